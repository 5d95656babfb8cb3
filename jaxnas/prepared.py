"""Files and folders that are made once: all of them, or nothing."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas import locks, runs


class Prepared(NamedTuple):
  """What is ready to use."""

  path: Path
  made: bool
  """False where it was there already, and was left alone."""


def npz_once(
  final: Path,
  keys: Collection[str],
  read: Callable[[], Mapping[str, np.ndarray]],
) -> Prepared:
  """`once` for an npz with these arrays."""

  def whole() -> bool:
    try:
      runs.read_npz(final, keys)
    except ValueError:
      return False
    return True

  return once(
    final,
    lambda complete, _: runs.write_npz(complete, read()),
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
  """Leaves what is there alone, or renames what has been written.

  Waits for another process that makes the same, and leaves that alone then.

  Args:
    final: a file or folder.
    write: takes where to write it, and a folder for what is in between.
    whole: whether what is there is what would be written.
    otherwise: what it is if not.
  """
  if final.exists():
    return _left_alone(final, whole, otherwise)
  with _parents(final), locks.waited_for(_beside(final, '.lock')):
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
  """Those that were not there and stay empty go again."""
  missing = [path for path in final.absolute().parents if not path.exists()]
  try:
    yield
  finally:
    # The nearest first; from one that holds something they stay.
    with contextlib.suppress(OSError):
      for path in missing:
        path.rmdir()


@contextlib.contextmanager
def _scratch(final: Path) -> Iterator[Path]:
  """A folder that goes again, on the same disk, so that renaming is atomic."""
  prefix = _beside(final, '-').name
  # Of a process that was killed: this one has the lock.
  for left in final.parent.glob(f'{prefix}*'):
    shutil.rmtree(left, ignore_errors=True)
  with tempfile.TemporaryDirectory(prefix=prefix, dir=final.parent) as name:
    yield Path(name)


def _beside(final: Path, suffix: str) -> Path:
  return final.with_name(f'.jaxnas-{final.name}{suffix}')
