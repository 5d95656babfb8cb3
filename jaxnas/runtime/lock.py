"""Lets one process at a time into a folder, or at a file.

The kernel's lock on a file ends with the process that holds it: a file that a
killed process leaves behind is no obstacle, even where another process has its
number now. A lock that was taken on another machine may be out of the kernel's
sight. There the file's age decides, since the holder touches the file.

A folder may be removed under its holder, and begun anew, and a holder that was
suspended may have been taken for dead: `kept` tells the holder, which then
stops.

filelock gives the kernel's lock on a descriptor of ours. Its `FileLock` would
empty the file, which says who holds it and since when.
"""

import contextlib
import datetime
import errno
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

# The file that stands for its folder.
NAME = '.lock'

# The holder touches its file this often.
BEAT_S = 10.0

# A lock of another machine is nobody's once its file is this old.
GONE_S = 120.0


class Locked(ValueError):
  """Another process has the lock; the message says which."""


class Lost(OSError):
  """Another process has what this one held; the message says so."""


class Lock:
  """Holds a file until `release`; another process that asks raises Locked."""

  def __init__(self, file: Path):
    self._file = file
    self._fd = _locked(file)
    self._note = _note().encode()
    os.ftruncate(self._fd, 0)
    os.pwrite(self._fd, self._note, 0)
    self._released = threading.Event()
    threading.Thread(target=self._beat, daemon=True).start()

  def _beat(self) -> None:
    while not self._released.wait(BEAT_S):
      with contextlib.suppress(OSError):
        os.utime(self._fd)

  def own(self) -> bool:
    """Returns True while the file at the path is the one that is held.

    It is not where the folder was removed or moved, and another process may
    have made one of its name; nor where another machine took the lock over
    because this process did not touch it in time.
    """
    try:
      same = os.path.samestat(os.lstat(self._file), os.fstat(self._fd))
    except (FileNotFoundError, NotADirectoryError):
      return False
    return same and os.pread(self._fd, 4096, 0) == self._note

  def release(self) -> None:
    self._released.set()
    if self.own():
      self._file.unlink(missing_ok=True)
    os.close(self._fd)


_kept: dict[Path, Lock] = {}


def keep(folder: Path) -> None:
  """Makes a folder and holds it until `release`; a second call does nothing.

  Raises Locked where another process holds it.
  """
  file = folder.absolute() / NAME
  if file in _kept:
    if _kept[file].own():
      return
    # The folder was removed since then, and its name begins anew.
    _kept.pop(file).release()
  try:
    _kept[file] = Lock(file)
  except Locked as error:
    raise Locked(
      f'{folder} is in use by {error}: wait for its end, or choose another '
      '--workdir.'
    ) from error


def kept(path: Path) -> Iterator[Path]:
  """Yields the folders that are kept and hold a path, or are it.

  Raises Lost where one of them is another's by now.
  """
  path = path.absolute()
  for file, lock in _kept.items():
    folder = file.parent
    if folder == path or folder in path.parents:
      if not lock.own():
        raise Lost(
          f'{folder} was removed, moved, begun anew or taken over while this '
          'process wrote to it: it stops, and leaves what is there now as it '
          'is.'
        )
      yield folder


def holder(folder: Path) -> str | None:
  """Says who holds a folder, by what it wrote; None where nobody does.

  It takes nothing, and may be wrong for the seconds in which a holder ends.
  """
  file = folder / NAME
  try:
    # At a pipe it would wait for a writer.
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
      owner = os.read(fd, 4096).decode(errors='replace')
      age_s = time.time() - os.fstat(fd).st_mtime
    finally:
      os.close(fd)
  except OSError:
    return None
  # A time that lies ahead was written before the clock was set back.
  if not owner or abs(age_s) > GONE_S:
    return None
  if not _elsewhere(owner):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      if not Path(f'/proc/{json.loads(owner)["pid"]}').exists():
        return None
  return _describe(owner)


def release() -> None:
  """Lets go of all folders that are kept."""
  while _kept:
    _kept.popitem()[1].release()


@contextlib.contextmanager
def waited_for(file: Path) -> Iterator[None]:
  """Holds a file, if need be after waiting for the process that holds it."""
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
  """Opens and locks a file. Raises Locked, which says who holds it."""
  while True:
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = _opened(file)
    try:
      alone = _alone(fd)
      owner = os.pread(fd, 4096, 0).decode(errors='replace')
      if not alone or (owner and _elsewhere(owner) and _touched(fd)):
        raise Locked(_describe(owner))
      # The holder may have deleted the file since it was opened.
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(file), os.fstat(fd)):
          return fd
    except BaseException:
      os.close(fd)
      raise
    os.close(fd)


def _opened(file: Path) -> int:
  """Opens the file, which is no link to another and has no other name.

  Raises ValueError where it is something else: it would be emptied.
  """
  flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  try:
    fd = os.open(file, flags, 0o644)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
      return fd
    os.close(fd)
  except OSError as error:
    if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
      raise
  raise ValueError(f'{file} is no file of a lock, or a link: take it away.')


def _alone(fd: int) -> bool:
  """Takes the kernel's lock; returns False where another process has it."""
  try:
    return filelock.lock_descriptor(fd, blocking=False)
  except OSError:
    # The file system has no locks: the file's age decides.
    return not _touched(fd)


def _touched(fd: int) -> bool:
  """Returns True for a file touched lately, by its file system's clock.

  A time that lies ahead was written before the clock was set back: a holder
  would have touched the file since.
  """
  before = os.fstat(fd).st_mtime
  if not os.fstat(fd).st_size:
    return False
  os.utime(fd)
  age_s = os.fstat(fd).st_mtime - before
  os.utime(fd, (before, before))
  return abs(age_s) < GONE_S


def _note() -> str:
  now = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
  return json.dumps(
    {
      'pid': os.getpid(),
      'host': socket.gethostname(),
      'since': now,
      # Tells a lock from an earlier one of the same second.
      'token': secrets.token_hex(8),
    }
  )


def _elsewhere(owner: str) -> bool:
  try:
    return json.loads(owner)['host'] != socket.gethostname()
  except (ValueError, KeyError, TypeError):
    # Its writer ended before the note was whole, and holds nothing.
    return False


def _describe(owner: str) -> str:
  try:
    note = json.loads(owner)
    return f'process {note["pid"]} on {note["host"]} since {note["since"]}'
  except (ValueError, KeyError, TypeError):
    return 'another process'
