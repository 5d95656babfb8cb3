"""ledger.json: where the seconds of a run went, over all its resumptions."""

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxnas import runs

FILE = 'ledger.json'

PARTS = (
  'init',
  'compile',
  'train',
  'data_wait',
  'checkpoint',
  'density',
  'rank',
  'lost',
)

# Checkpoints of which it is known what the run had spent by then.
REMEMBERED = 16


class Ledger:
  """Each second of this process counts to one part, the innermost one open.

  init: until training starts or goes on; compile: tracing, lowering and
  compiling, or reading what was compiled; train: steps; data_wait: for their
  inputs; checkpoint: writing one, as long as training stood still; density and
  rank: estimates and evaluations, in between or at the end; lost: what a
  killed process had done since the checkpoint that its successor started from.

  Args:
    file: written with `save`; what is in it counts on.
    since_s: when it begins, of `time.monotonic`.
  """

  def __init__(self, file: Path, since_s: float):
    self._file = file
    kinds = {'processes': int, 'seconds': dict, 'at': dict}
    kept = runs.read_json(file, kinds) if file.exists() else {}
    self.processes = kept.get('processes', 0) + 1
    self.seconds: dict[str, float] = {
      part: kept.get('seconds', {}).get(part, 0.0) for part in PARTS
    }
    self._before = dict(self.seconds)
    self._at: dict[str, dict[str, float]] = kept.get('at', {})
    self._open, self._since_s = ['init'], since_s
    self._compiled: list[tuple[float, float]] = []

  def __enter__(self) -> 'Ledger':
    jax.monitoring.register_event_duration_secs_listener(self.compiled)
    return self

  def __exit__(self, *error: object) -> None:
    jax.monitoring.unregister_event_duration_listener(self.compiled)
    self.save()

  @contextlib.contextmanager
  def of(self, part: str) -> Iterator[None]:
    """What goes on within counts to this part."""
    self._turn()
    self._open.append(part)
    try:
      yield
    finally:
      self._turn()
      self._open.pop()

  def _turn(self) -> None:
    now_s = time.monotonic()
    self.seconds[self._open[-1]] += now_s - self._since_s
    self._since_s = now_s

  def waiting(self, inputs: Generator[Any]) -> Generator[Any]:
    """The same inputs; the time they take to come counts to data_wait."""
    with contextlib.closing(inputs):
      while True:
        with self.of('data_wait'):
          item = next(inputs)
        yield item

  def compiled(self, event: str, duration_secs: float, **kwargs: Any) -> None:
    """Listens to JAX: what compiling took counts to that alone.

    Programs are traced within others, so that intervals may hold others.
    """
    del kwargs
    if not event.startswith('/jax/core/compile/'):
      return
    end_s = time.monotonic()
    start_s, known_s = end_s - duration_secs, 0.0
    while self._compiled and self._compiled[-1][0] >= start_s:
      one_s, other_s = self._compiled.pop()
      known_s += other_s - one_s
    self._compiled.append((start_s, end_s))
    self.seconds['compile'] += duration_secs - known_s
    self.seconds[self._open[-1]] -= duration_secs - known_s

  def restarted(self, step: int) -> None:
    """Training goes on from this checkpoint; what came after it was lost."""
    if (then := self._at.get(str(step))) is None:
      return
    for part in PARTS:
      after_s = self._before[part] - then[part]
      self.seconds[part] -= after_s
      self.seconds['lost'] += after_s

  def saved(self, step: int) -> None:
    """A checkpoint of this step is there, or on its way."""
    self._turn()
    self._at[str(step)] = dict(self.seconds)
    self._at = dict([*self._at.items()][-REMEMBERED:])
    self.save()

  def save(self) -> None:
    self._turn()
    runs.write_json(
      self._file,
      {
        'processes': self.processes,
        'seconds': {name: round(s, 3) for name, s in self.seconds.items()},
        'at': self._at,
      },
    )

  def describe(self) -> str:
    """One line."""
    parts = ', '.join(
      f'{name.replace("_", " ")} {value:.1f}'
      for name, value in self.seconds.items()
      if value >= 0.05
    )
    return f'{sum(self.seconds.values()):.1f} s: {parts}'
