"""The process of a task: `PARENT CORES MODULE FLAGS...`, for `tasks.attempt`.

It is told to stop when its parent ends, by whatever: nobody would wait for it.
"""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from jaxnas.many import tasks
from jaxnas.runtime import lock, streams

# Of Linux: the signal that a process gets when its parent ends.
_SET_SIGNAL_OF_PARENT = 1


def main(argv: Sequence[str] | None = None) -> int:
  """Calls a command; returns its exit code, or BUSY where its folder is."""
  parent, cores, module, *flags = sys.argv[1:] if argv is None else argv
  end_with(int(parent))
  if cores:
    # Before JAX counts them.
    os.sched_setaffinity(0, [int(core) for core in cores.split(',')])
  try:
    return importlib.import_module(module).main(flags) or 0
  except SystemExit as ended:
    if isinstance(ended.__cause__, lock.Locked):
      return tasks.BUSY
    raise


def end_with(parent: int) -> None:
  """Has this process asked to stop as soon as its parent ends."""
  ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENT, signal.SIGTERM)
  if os.getppid() != parent:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == '__main__':
  streams.run(main)
