"""Checks of what a flag names to be written, before any work."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def check_folder(folder: Path, flag: str) -> None:
  """Raises ValueError where a folder can neither be written to nor be made."""
  check_name(folder, flag)
  folder = folder.absolute()
  there = next(path for path in (folder, *folder.parents) if path.exists())
  if not there.is_dir():
    raise ValueError(f'{there} is no folder: choose another {flag}.')
  try:
    # Modes don't tell: root has all rights, also where nothing can be made.
    os.rmdir(tempfile.mkdtemp(prefix='.jaxnas-', dir=there))
  except OSError as error:
    made = '' if there == folder else f'{folder} cannot be made: '
    raise ValueError(
      f'{made}{there} cannot be written to ({error.strerror}); choose another '
      f'{flag}.'
    ) from error


def check_file(
  file: Path,
  flag: str,
  ours: Callable[[Path], Any],
  *,
  overwrite: bool = False,
) -> None:
  """Raises ValueError where a file is in the way of one to be written.

  Args:
    file: what a flag names.
    flag: the flag.
    ours: reads the file, and raises ValueError where the same command did not
      write it.
    overwrite: another regular file may be replaced.
  """
  check_folder(file.parent, flag)
  try:
    status = os.lstat(file)
  except FileNotFoundError:
    return
  if stat.S_ISDIR(status.st_mode):
    raise ValueError(f'{flag} {file} is a folder: give a file in it.')
  if not stat.S_ISREG(status.st_mode):
    raise ValueError(
      f'{flag} {file} is no regular file, but a link or a device: choose '
      'another.'
    )
  if not overwrite:
    try:
      ours(file)
    except ValueError as error:
      raise ValueError(
        f'{flag} {file} is there, and this command did not write it: choose '
        'another, or add --overwrite.'
      ) from error


def check_name(path: Path, flag: str) -> None:
  """Raises ValueError for a name that is no text, which libraries refuse."""
  try:
    str(path).encode()
  except UnicodeEncodeError:
    shown = str(path).encode(errors='backslashreplace').decode()
    raise ValueError(
      f'the name {shown} is no UTF-8: rename it, or choose another {flag}.'
    ) from None
