"""Both sides of a case alive on the same cores, measuring in turns: A B A B.

A machine that slows down for a while so slows both.
"""

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from jaxnas.bench.cases import Case, Side
from jaxnas.bench.rows import Row, row


class Failed(Exception):
  """A side gave no value; one line that names it."""


def run(case: Case) -> Row:
  """Prepares one side after the other, then asks them in turns.

  Raises Failed where a side ends before it has answered, or what it measured
  is no number to compare.
  """
  sides = {'ours': case.ours}
  if case.baseline is not None:
    sides['baseline'] = case.baseline
  values: dict[str, list[float]] = {name: [] for name in sides}
  with contextlib.ExitStack() as stack:
    rivals = {
      name: stack.enter_context(
        prepared(side, f'{case.part}, {case.case}: {name}')
      )
      for name, side in sides.items()
    }
    for _ in range(case.rounds):
      for name, rival in rivals.items():
        value = rival.ask('measure')
        # A cost of nothing has no ratio.
        if not math.isfinite(value) or (len(sides) > 1 and value <= 0):
          raise Failed(f'{rival.label} measured {value} {case.unit}.')
        values[name].append(value)
  return row(case, values['ours'], values.get('baseline'))


class Rival:
  """Process of one side of a case."""

  def __init__(self, label: str):
    self.label = label
    self._last = ''
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'jaxnas.bench.child'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
      # On an accelerator JAX would else take most of the other's memory.
      env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
    )
    self._echo = threading.Thread(target=self._pass_on, daemon=True)
    self._echo.start()

  def ask(self, question: Any) -> Any:
    """Raises Failed where there is no answer."""
    asked, answers = self._process.stdin, self._process.stdout
    assert asked and answers
    with contextlib.suppress(BrokenPipeError):
      print(json.dumps(question), file=asked, flush=True)
    answer = answers.readline()
    if answer:
      return json.loads(answer)
    code = self._process.wait()
    self._echo.join(timeout=1)
    said = f': {self._last}' if self._last else '.'
    raise Failed(f'{self.label} ended with exit code {code}{said}')

  def end(self) -> None:
    asked, answers = self._process.stdin, self._process.stdout
    assert asked and answers
    with contextlib.suppress(BrokenPipeError):
      asked.close()
    try:
      self._process.wait(timeout=10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    answers.close()

  def _pass_on(self) -> None:
    """Copies the side's standard error to ours, and keeps the last line."""
    assert self._process.stderr
    with self._process.stderr as stream:
      for line in stream:
        sys.stderr.write(line)
        self._last = line.strip() or self._last


@contextlib.contextmanager
def prepared(side: Side, label: str) -> Iterator[Rival]:
  """Starts a side and prepares it; ends its process, whatever happens."""
  rival = Rival(label)
  try:
    rival.ask(side)
    yield rival
  finally:
    rival.end()


@functools.cache
def device() -> tuple[str, str]:
  """JAX's platform and kind of device, asked in a process of its own.

  This one must hold no accelerator, whose memory is for the sides.
  """
  done = subprocess.run(
    [sys.executable, '-c', DEVICE], stdout=subprocess.PIPE, text=True
  )
  if done.returncode:
    # It has said why.
    raise SystemExit(done.returncode)
  platform, kind = json.loads(done.stdout.splitlines()[-1])
  return platform, kind


DEVICE = """
import json, jax
from jaxnas.runtime import errors, jax_settings, startup
with errors.usage_errors():
  jax_settings.check()
  startup.check_devices()
device = jax.devices()[0]
print(json.dumps([device.platform, device.device_kind]))
"""
