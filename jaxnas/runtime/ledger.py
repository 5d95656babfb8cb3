"""ledger.json: the seconds of a run by activity, over all its resumptions."""

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxnas.runtime import files, kinds

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

# The ledger remembers the seconds at this many of the newest checkpoints.
REMEMBERED = 16


KIND = {
  'processes': int,
  'seconds': {'*': kinds.NUMBER},
  'at': {'*': dict.fromkeys(PARTS, kinds.NUMBER)},
}


def read(file: Path, of: str) -> dict[str, Any]:
  """Reads a ledger. Raises Damaged where it is none, or of another run."""
  return files.read_result(file, KIND, {'config': of})


class Ledger:
  """Counts each second of this process to the innermost open part.

  init: until training starts or goes on; compile: tracing, lowering and
  compiling, or reading compiled programs; train: steps; data_wait: waiting for
  their inputs; checkpoint: writing one, as long as training stood still;
  density and rank: estimates and evaluations, in between or at the end; lost:
  the work of a killed process since the checkpoint that its successor started
  from. Members of an ensemble that are trained at once wait for each other, and
  each counts that as its own work.

  Args:
    file: ledger.json, written by `save`; counts go on from those in it.
    since_s: the time of `time.monotonic` from which seconds count.
    of: digest of the run's config; the seconds of another run are refused.
  """

  def __init__(self, file: Path, since_s: float, of: str):
    self._file, self._facts = file, {'config': of}
    kept = read(file, of) if file.exists() else {}
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
  def part(self, part: str) -> Iterator[None]:
    """Counts the seconds within to this part."""
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
    """Yields the inputs, and counts the wait for them to data_wait."""
    with contextlib.closing(inputs):
      while True:
        with self.part('data_wait'):
          item = next(inputs)
        yield item

  def compiled(self, event: str, duration_secs: float, **kwargs: Any) -> None:
    """Counts the seconds that JAX reports for compiling to compile alone.

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
    """Counts as lost the work after the checkpoint that training resumes."""
    if (then := self._at.get(str(step))) is None:
      return
    for part in PARTS:
      after_s = self._before[part] - then[part]
      self.seconds[part] -= after_s
      self.seconds['lost'] += after_s

  def saved(self, step: int) -> None:
    """Remembers the seconds at the checkpoint of this step."""
    self._turn()
    self._at[str(step)] = dict(self.seconds)
    self._at = dict([*self._at.items()][-REMEMBERED:])
    self.save()

  def save(self) -> None:
    self._turn()
    files.write_result(
      self._file,
      {
        'processes': self.processes,
        'seconds': {name: round(s, 3) for name, s in self.seconds.items()},
        'at': self._at,
      },
      self._facts,
    )

  def describe(self) -> str:
    """Returns the seconds of all parts in one line."""
    parts = ', '.join(
      f'{name.replace("_", " ")} {value:.1f}'
      for name, value in self.seconds.items()
      if value >= 0.05
    )
    return f'{sum(self.seconds.values()):.1f} s: {parts}'
