"""Makes files and folders once, whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas.runtime import files, lock


class Prepared(NamedTuple):
  """A file or folder that is ready to use."""

  path: Path
  made: bool
  """False where the path was there already, and was left alone."""


class Conversion(NamedTuple):
  """A way from files of another format to one that is read here."""

  convert: Callable[..., Prepared]
  """Takes the folder to write to, the source and trust_pickle."""
  makes: str
  """The file that it writes to that folder."""
  check: Callable[[Path], object]
  """Raises ValueError or OSError where a source can't be converted."""
  takes: str
  """The source, in words."""


def npz_once(
  final: Path,
  keys: Collection[str],
  read: Callable[[], Mapping[str, np.ndarray]],
) -> Prepared:
  """Makes an npz with these arrays, as `once` does."""

  def whole() -> bool:
    try:
      files.read_npz(final, keys)
    except ValueError:
      return False
    return True

  return once(
    final,
    lambda complete, _: files.write_npz(complete, read()),
    whole=whole,
    otherwise=f'no npz with {", ".join(keys)}',
  )


def once(
  final: Path,
  write: Callable[[Path, Path], None],
  *,
  whole: Callable[[], bool],
  otherwise: str,
) -> Prepared:
  """Writes a file or folder under another name and renames it.

  Leaves alone what is there already. Waits for another process that makes the
  same, and then leaves its result alone.

  Args:
    final: the file or folder.
    write: takes the path to write to, and a folder for intermediate files.
    whole: returns True where `final` is complete.
    otherwise: says in an error what is wrong with `final` if not.
  """
  if final.exists():
    return _left_alone(final, whole, otherwise)
  with _parents(final), lock.waited_for(_beside(final, '.lock')):
    if final.exists():
      return _left_alone(final, whole, otherwise)
    with _scratch(final) as scratch:
      complete = scratch / final.name
      write(complete, scratch)
      os.rename(complete, final)
  return Prepared(final, made=True)


def _left_alone(
  final: Path, whole: Callable[[], bool], otherwise: str
) -> Prepared:
  if whole():
    return Prepared(final, made=False)
  raise ValueError(f'{final} is in the way and {otherwise}: move it away.')


@contextlib.contextmanager
def _parents(final: Path) -> Iterator[None]:
  """Removes parents that were missing before and are still empty."""
  missing = [path for path in final.absolute().parents if not path.exists()]
  try:
    yield
  finally:
    # The nearest comes first; the first that is not empty ends the removal.
    with contextlib.suppress(OSError):
      for path in missing:
        path.rmdir()


@contextlib.contextmanager
def _scratch(final: Path) -> Iterator[Path]:
  """Yields a temporary folder on the same disk, so that renaming is atomic."""
  prefix = _beside(final, '-').name
  # These are of processes that were killed, since this one has the lock.
  for left in final.parent.glob(f'{prefix}*'):
    shutil.rmtree(left, ignore_errors=True)
  with tempfile.TemporaryDirectory(prefix=prefix, dir=final.parent) as name:
    yield Path(name)


def _beside(final: Path, suffix: str) -> Path:
  return final.with_name(f'.jaxnas-{final.name}{suffix}')
