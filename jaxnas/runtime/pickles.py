"""Reads pickles of numbers, arrays and containers, and refuses all others.

A pickle names functions that reading it calls. Here it may name only those
that numpy and ordered dicts need. The rest is still read by code that was not
made for hostile files: read only files that someone vouches for.
"""

import bz2
import io
import pickle
from pathlib import Path
from typing import Any

from jaxnas.runtime import errors, inputs

# The first is the module's name before numpy 2.
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
  """Reads a stream's only pickle; text of Python 2 becomes str.

  Raises:
    ValueError: names a function or class that is not allowed, or says why
      this is no whole pickle.
  """
  try:
    out = _Unpickler(stream, encoding='latin1').load()
    # bz2 compares checksums at the end of the stream.
    if stream.read(1):
      raise pickle.UnpicklingError('more follows it')
    return out
  except Exception as error:
    # A damaged pickle raises the errors of the calls that it asks for.
    raise ValueError(f'no readable pickle ({errors.reason(error)}).') from error


def read(file: Path) -> Any:
  """Reads a file's pickle, through bz2 where its name ends in .pbz2.

  Raises:
    FileNotFoundError: names the file.
    ValueError: the one of `load` with the file's name, or it is no file.
  """
  inputs.check_file(file, 'the pickle')
  try:
    with _opened(file) as stream:
      return load(stream)
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from error


def begins(file: Path) -> bool:
  """Returns True where a file begins as pickles since protocol 2 do."""
  try:
    with _opened(file) as stream:
      return stream.read(1) == pickle.PROTO
  except (OSError, EOFError):
    # Not of bz2, or cut within its first block.
    return False


def _opened(file: Path) -> io.BufferedIOBase:
  return bz2.open(file) if file.suffix == '.pbz2' else file.open('rb')


def check_trusted(source: Path, trust_pickle: bool) -> None:
  """Raises an error where a source is missing or nobody vouches for it.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: `trust_pickle` is false, or there is something else.
  """
  if not source.is_dir():
    inputs.check_file(source, '--from')
  if not trust_pickle:
    raise ValueError(
      f'{source} is read as pickles, and a pickle can run code: add '
      '--trust_pickle, for files that you trust only.'
    )


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('_codecs', 'encode'):
      return _latin1
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(f'{module}.{name} is refused')
    return super().find_class(*_ALLOWED[module, name])


def _latin1(text: str, encoding: str) -> bytes:
  """Stands for _codecs.encode, which protocol 2 uses only to write bytes."""
  if encoding != 'latin1':
    raise pickle.UnpicklingError(f'the encoding {encoding!r} is refused')
  return text.encode('latin1')
