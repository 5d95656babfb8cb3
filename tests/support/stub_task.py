"""Stands where a command would: a task that does as its name says."""

import errno
import os
import signal
import time
from pathlib import Path

from jaxnas.runtime import errors, files, lock


def folder_of(root, name):
  return Path(root) / 'tasks' / name


def main(flags):
  root = flags[flags.index('--workdir') + 1]
  name = flags[flags.index('--only') + 1]
  folder = folder_of(root, name)
  with errors.usage_errors():
    lock.keep(folder)
  files.append(folder / 'starts', b'.')
  starts = (folder / 'starts').stat().st_size
  with errors.outcome(folder):
    _behave(name.partition('-')[0], folder, starts)
    cores = ','.join(map(str, sorted(os.sched_getaffinity(0))))
    files.write_text(folder / 'cores', cores)
    files.write_text(folder / 'done', '')
  return 0


def _behave(how, folder, starts):
  if how == 'fails':
    raise ArithmeticError('the loss is not finite')
  if how == 'full':
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / 'x'))
  if how == 'killed' and starts == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  if how == 'dies':
    os.kill(os.getpid(), signal.SIGKILL)
  if how == 'long' and starts == 1:
    _until_asked(folder)


def _until_asked(folder):
  """Waits as a training does, and saves."""
  asked = []
  signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
  files.write_text(folder / 'trains', '')
  for _ in range(1200):
    if asked:
      files.write_text(folder / 'saved', '')
      raise errors.Stopped
    time.sleep(0.05)
  raise TimeoutError('nobody asked it to stop')
