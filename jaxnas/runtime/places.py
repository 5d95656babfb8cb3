"""Keeps what a run writes in its own folders, and out of links.

A run's folder may come from somebody else. A link in it, as a folder or as the
name of a file, would lead what is written out of it; links that a user made
above the run's folder are followed.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from jaxnas.runtime import errors, lock


def check(folder: Path, *roots: Path) -> None:
  """Raises an error where a folder is none of a run that this process holds.

  Args:
    folder: what is written to; it need not exist.
    roots: folders of runs, besides those that this process keeps.

  Raises:
    Damaged: a link or a file stands for it, or for a folder on the way to it.
    lock.Lost: another process has begun the run anew.
  """
  folder = folder.absolute()
  for root in [*lock.kept(folder), *(root.absolute() for root in roots)]:
    if root in folder.parents:
      for path in [*reversed(folder.parents), folder]:
        if root in path.parents and not _is_real(path):
          raise errors.Damaged(
            f'{path} is no folder but a link or a file, which may lead out of '
            f'{root}: take it away.'
          )


def make(folder: Path) -> None:
  """Makes a folder and its parents. Raises as `check`."""
  check(folder)
  folder.mkdir(parents=True, exist_ok=True)


def check_within(folder: Path) -> None:
  """Raises Damaged where there is anything but folders and files in a folder.

  For a folder that libraries write to, which follow links.
  """
  check(folder)
  for path, status in _entries(folder):
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
      raise errors.Damaged(
        f'{path} is neither a file nor a folder, but a link or a device: take '
        'it away.'
      )


def check_readable(folder: Path) -> None:
  """Raises Damaged where reading a folder's files would wait, as at a pipe."""
  for path, _ in _entries(folder):
    with contextlib.suppress(FileNotFoundError):
      mode = path.stat().st_mode
      if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise errors.Damaged(f'{path} is neither a file nor a folder')


def remove(path: Path) -> None:
  """Removes a file, a folder or a link, whatever there is; follows nothing."""
  check(path.parent)
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


# Whatever is damaged goes to a folder of this name beside it.
ASIDE = 'damaged'


def aside(path: Path) -> Path:
  """Returns where a damaged file or folder goes; the folder for it is made."""
  make(path.parent / ASIDE)
  return path.parent / ASIDE / path.name


_PART = re.compile(r'\..+\.[0-9a-f]{16}\.part')


def part_of(file: Path) -> Path:
  """Returns a name beside a file, for what is not complete yet.

  Nobody can foresee it, and put a file or a link there.
  """
  return file.with_name(f'.{file.name}.{secrets.token_hex(8)}.part')


def clean(folder: Path) -> None:
  """Removes what killed processes left incomplete in a folder that is kept.

  What lies in a folder within that another process holds is being written, and
  is left alone, as are folders that this user can't read.
  """
  try:
    there = _listed(folder)
  except OSError:
    return
  for path, status in there:
    if stat.S_ISDIR(status.st_mode):
      if lock.holder(path) is None:
        clean(path)
    elif stat.S_ISREG(status.st_mode) and _PART.fullmatch(path.name):
      path.unlink(missing_ok=True)


def _is_real(path: Path) -> bool:
  """Returns True for a folder, or where there is nothing."""
  try:
    return stat.S_ISDIR(os.lstat(path).st_mode)
  except FileNotFoundError:
    return True
  except NotADirectoryError:
    return False


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
  """Yields all that is below a folder, and follows no link.

  Raises Damaged where one of the folders can't be read.
  """
  if not folder.is_dir():
    return
  try:
    there = _listed(folder)
  except FileNotFoundError:
    return
  except OSError as error:
    raise errors.Damaged(
      f'{folder} cannot be read ({error.strerror}): take it away, or let this '
      'user read it.'
    ) from error
  for path, status in there:
    yield path, status
    if stat.S_ISDIR(status.st_mode):
      yield from _entries(path)


def _listed(folder: Path) -> list[tuple[Path, os.stat_result]]:
  """Lists what is in a folder, and follows no link."""
  out = []
  with os.scandir(folder) as entries:
    for entry in entries:
      # Another process may have renamed its file since it was listed.
      with contextlib.suppress(FileNotFoundError):
        out.append((Path(entry.path), entry.stat(follow_symlinks=False)))
  return out
