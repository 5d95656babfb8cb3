"""Looks at an npz file before its arrays are read: types, sizes and memory."""

import math
import zipfile
from collections.abc import Collection
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from jaxnas.runtime import memory

HEADERS = {
  (1, 0): npy.read_array_header_1_0,
  (2, 0): npy.read_array_header_2_0,
}

# More arrays than these are in no file of ours.
MOST_ARRAYS = 1000


def read(
  stream: IO[bytes], keys: Collection[str] | None = None
) -> dict[str, np.ndarray]:
  """Reads arrays of an npz, or only `keys`, of those that are there.

  The archive has a checksum of each array, which is verified.

  Raises ValueError, memory.TooLarge if so, and errors of zipfile and numpy.
  """
  with zipfile.ZipFile(stream) as zipped:
    members = {
      info.filename.removesuffix('.npy'): info for info in zipped.infolist()
    }
    if len(zipped.infolist()) > MOST_ARRAYS:
      raise ValueError(f'it has {len(zipped.infolist())} arrays')
    if len(members) < len(zipped.infolist()):
      raise ValueError('it has two arrays of one name')
    wanted = {
      name: info
      for name, info in members.items()
      if keys is None or name in keys
    }
    for name, info in wanted.items():
      _check(zipped, name, info)
    memory.check(sum(info.file_size for info in wanted.values()))
    return {name: _array(zipped, info) for name, info in wanted.items()}


def _check(zipped: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> None:
  """Raises ValueError where an array is not as large as its header says."""
  with zipped.open(info) as stream:
    shape, _, dtype = _header(stream)
    if dtype.hasobject:
      raise ValueError(
        f'{name} holds Python objects: save {name}.astype(TYPE), such as '
        'np.int32 for labels'
      )
    start = stream.tell()
  size = math.prod(shape) * dtype.itemsize
  if start + size != info.file_size:
    raise ValueError(
      f'{name} of {dtype} and shape {shape} has {info.file_size - start} bytes'
    )


def _header(stream: Any) -> tuple[tuple[int, ...], bool, Any]:
  version = npy.read_magic(stream)
  if version not in HEADERS:
    raise ValueError(f'an array has the format {version}')
  shape, fortran, dtype = HEADERS[version](stream)
  return shape, fortran, dtype


def _array(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  with zipped.open(info) as stream:
    return npy.read_array(stream, allow_pickle=False)
