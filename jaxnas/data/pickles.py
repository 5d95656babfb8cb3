"""Pickles of numbers, arrays and containers, and of nothing that acts.

A pickle names functions that reading it calls. Here it may name only those
that numpy and ordered dicts need; what is left is still read by code that was
not made for hostile files, so only for files that someone vouches for.
"""

import bz2
import io
import pickle
from pathlib import Path
from typing import Any

# Modules that went by another name before numpy 2.
_NUMPY = {'numpy.core.multiarray', 'numpy._core.multiarray'}
_ALLOWED = {
  ('collections', 'OrderedDict'): ('collections', 'OrderedDict'),
  ('numpy', 'ndarray'): ('numpy', 'ndarray'),
  ('numpy', 'dtype'): ('numpy', 'dtype'),
  **{
    (module, name): ('numpy._core.multiarray', name)
    for module in _NUMPY
    for name in ('_reconstruct', 'scalar')
  },
}


def load(stream: io.BufferedIOBase) -> Any:
  """What a stream's only pickle holds; text of Python 2's as str.

  Raises:
    ValueError: names a function or class that is not allowed, or says why
      this is no whole pickle.
  """
  try:
    out = _Unpickler(stream, encoding='latin1').load()
    # At its end bz2 compares checksums.
    if stream.read(1):
      raise pickle.UnpicklingError('more follows it')
    return out
  except Exception as error:
    # A damaged pickle raises whatever the calls that it asks for raise.
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(f'no readable pickle ({reason[:200]}).') from error


def read(file: Path) -> Any:
  """What a file's pickle holds, through bz2 where its name ends in .pbz2.

  Raises:
    FileNotFoundError: names the file.
    ValueError: as `load`, with the file's name.
  """
  if not file.is_file():
    raise FileNotFoundError(f'{file} does not exist.')
  opened = bz2.open if file.suffix == '.pbz2' else open
  try:
    with opened(file, 'rb') as stream:
      return load(stream)
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from error


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('_codecs', 'encode'):
      return _latin1
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(f'{module}.{name} is refused')
    return super().find_class(*_ALLOWED[module, name])


def _latin1(text: str, encoding: str) -> bytes:
  """How protocol 2 writes bytes: the one use of _codecs.encode."""
  if encoding != 'latin1':
    raise pickle.UnpicklingError(f'the encoding {encoding!r} is refused')
  return text.encode('latin1')
