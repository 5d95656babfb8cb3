"""Checks of what a flag names to be read, before any work."""

from pathlib import Path


def check_file(file: Path, what: str, remedy: str = '') -> None:
  """Raises an error where there is no regular file to read.

  A pipe is none, since whoever reads it may wait, nor is a device.

  Args:
    file: the file.
    what: says what it is, such as its flag.
    remedy: how to get one.

  Raises:
    FileNotFoundError: there is nothing.
    ValueError: there is something else.
  """
  get = f': {remedy}' if remedy else ''
  # A name may also be one in a file, or a link to itself.
  if not file.exists():
    raise FileNotFoundError(f'{what} {file} does not exist{get}.')
  if not file.is_file():
    is_ = 'a folder' if file.is_dir() else 'no regular file'
    raise ValueError(f'{what} {file} is {is_}{get or ": give a file"}.')


def check_folder(folder: Path, what: str) -> None:
  """Raises ValueError where something is there that is no folder."""
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'{what} {folder} is no folder: give one.')
