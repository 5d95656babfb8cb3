"""The real commands in processes of their own, which signals may end.

They are forked from a server that has imported everything, so that a moment
drawn at random falls into the work and not into imports.
"""

import dataclasses
import fnmatch
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
  ['support.small_run', 'jaxnas.rank', 'jaxnas.search', 'jaxnas.retrain',
   'jaxnas.experiment.scoring', 'jaxnas.experiment.ranking',
   'jaxnas.training.checkpoint']
)  # fmt: skip


def _end_before(name: str) -> None:
  """Kills this process before it renames anything to a name that matches."""

  def watch(event, args):
    if event == 'os.rename' and fnmatch.fnmatch(Path(args[1]).name, name):
      os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(watch)


def _call(command: str, argv: list[str], log: Path, before: str | None) -> None:
  if before is not None:
    _end_before(before)
  with log.open('ab') as stream:
    for fd in (1, 2):
      os.dup2(stream.fileno(), fd)
  from jaxnas.experiment import scoring
  from support import small_run

  # Weights shift by so much that accuracies do.
  scoring.SHIFT_LR = 0.05
  with small_run.registered():
    sys.exit(importlib.import_module(f'jaxnas.{command}').main(argv))


@dataclasses.dataclass
class Ended:
  """Outcome of a command that ran in a child process."""

  code: int
  """Negative for a signal that it did not catch."""
  wall_s: float
  number: int | None
  """The signal that reached it, if any."""


def run(
  command: str,
  argv: list[str],
  log: Path,
  after_s: float | None = None,
  number: int = signal.SIGKILL,
  when: Callable[[], bool] | None = None,
  before: str | None = None,
) -> Ended:
  """Calls jaxnas.COMMAND, and sends it the signal after so long, or when.

  `before` is the name of a file or folder, or a pattern, that the command has
  written and not yet renamed to when SIGKILL ends it.
  """
  child = CONTEXT.Process(target=_call, args=(command, argv, log, before))
  start = time.monotonic()
  child.start()
  if when is None:
    child.join(after_s)
  else:
    while child.is_alive() and not when():
      time.sleep(1e-4)
  reached = None
  if child.is_alive():
    assert child.pid is not None
    os.kill(child.pid, number)
    reached = number
    child.join(600)
  assert child.exitcode is not None, log.read_text()
  return Ended(child.exitcode, time.monotonic() - start, reached)
