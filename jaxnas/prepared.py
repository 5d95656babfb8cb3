"""Files and folders that are made once: all of them, or nothing."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas import runs


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

  Args:
    final: a file or folder.
    write: takes where to write it, and a folder for what is in between.
    whole: whether what is there is what would be written.
    otherwise: what it is if not.
  """
  if final.exists():
    if whole():
      return Prepared(final, made=False)
    raise ValueError(f'{final} is in the way and {otherwise}: move it away.')
  with _scratch(final.parent) as scratch:
    complete = scratch / final.name
    write(complete, scratch)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.rename(complete, final)
  return Prepared(final, made=True)


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
  """A folder that goes again, on the same disk, so that renaming is atomic.

  It stands in the nearest parent that exists: a failure leaves no folders.
  """
  parent = parent.absolute()
  there = next(path for path in (parent, *parent.parents) if path.exists())
  with tempfile.TemporaryDirectory(prefix='.jaxnas-', dir=there) as name:
    yield Path(name)
