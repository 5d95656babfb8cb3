"""One process at a time in a folder, or at a file.

The kernel's lock on a file ends with the process that holds it, so that what a
killed one leaves behind is no obstacle, whoever has its number now. Where the
lock may not be seen, since it was taken on another machine, the file's age
decides: its holder touches it.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Of a folder that one process at a time may write to.
NAME = '.lock'

BEAT_S = 10.0

# A lock of another machine that was not touched for so long is nobody's.
GONE_S = 120.0


class Locked(ValueError):
  """Somebody else is at it."""


class Lock:
  """Holds a file; another process that asks for it raises Locked."""

  def __init__(self, file: Path):
    self._file = file
    self._fd = _locked(file)
    os.ftruncate(self._fd, 0)
    os.pwrite(self._fd, _me().encode(), 0)
    self._released = threading.Event()
    threading.Thread(target=self._beat, daemon=True).start()

  def _beat(self) -> None:
    while not self._released.wait(BEAT_S):
      with contextlib.suppress(OSError):
        os.utime(self._fd)

  def release(self) -> None:
    self._released.set()
    with contextlib.suppress(FileNotFoundError):
      self._file.unlink()
    os.close(self._fd)


_kept: dict[Path, Lock] = {}


def keep(folder: Path) -> None:
  """Holds a folder, which is made, until `release`; again is nothing new.

  Raises Locked where another process holds it.
  """
  file = folder.absolute() / NAME
  if file in _kept:
    return
  try:
    _kept[file] = Lock(file)
  except Locked as error:
    raise Locked(
      f'{folder} is in use by {error}: wait for its end, or choose another '
      '--workdir.'
    ) from error


def release() -> None:
  """Of all folders that are kept."""
  while _kept:
    _kept.popitem()[1].release()


@contextlib.contextmanager
def waited_for(file: Path) -> Iterator[None]:
  """Holds a file; waits for a process that does, and says so."""
  lock, told = None, False
  while lock is None:
    try:
      lock = Lock(file)
    except Locked as error:
      if not told:
        print(f'waiting for {error}')
      told = True
      time.sleep(0.2)
  try:
    yield
  finally:
    lock.release()


def _locked(file: Path) -> int:
  """Its descriptor, with a lock. Raises Locked, which says by whom."""
  while True:
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      alone = _alone(fd)
      owner = os.pread(fd, 4096, 0).decode(errors='replace')
      if not alone or (owner and _elsewhere(owner) and _touched(fd)):
        raise Locked(_who(owner))
      # Not one that its holder has just taken away.
      if os.path.exists(file) and os.path.samestat(os.stat(file), os.fstat(fd)):
        return fd
    except BaseException:
      os.close(fd)
      raise
    os.close(fd)


def _alone(fd: int) -> bool:
  """Whether no other process has the kernel's lock; this one has it then."""
  try:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.EAGAIN, errno.EACCES):
      return False
    # A file system without locks: the file's age decides.
    return not _touched(fd)
  return True


def _touched(fd: int) -> bool:
  """Whether it was lately, by the clock of its file system."""
  before = os.fstat(fd).st_mtime
  if not os.fstat(fd).st_size:
    return False
  os.utime(fd)
  age_s = os.fstat(fd).st_mtime - before
  os.utime(fd, (before, before))
  return age_s < GONE_S


def _me() -> str:
  now = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
  return json.dumps(
    {'pid': os.getpid(), 'host': socket.gethostname(), 'since': now}
  )


def _elsewhere(owner: str) -> bool:
  try:
    return json.loads(owner)['host'] != socket.gethostname()
  except (ValueError, KeyError, TypeError):
    # Cut short, by who did not live to hold it.
    return False


def _who(owner: str) -> str:
  try:
    said = json.loads(owner)
    return f'process {said["pid"]} on {said["host"]} since {said["since"]}'
  except (ValueError, KeyError, TypeError):
    return 'another process'
