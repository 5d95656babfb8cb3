"""Reads images and labels of an npz; says how to save those that are none."""

import zipfile
from pathlib import Path

import numpy as np

from jaxnas.runtime import files

ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')


def read(file: Path, kinds: str = 'u') -> dict[str, np.ndarray]:
  """Reads images and labels. Raises ValueError where they are neither.

  Args:
    file: the npz.
    kinds: NumPy's letters of the kinds that images may be.
  """
  arrays = files.read_npz(file, ARRAYS)
  for part in ('train', 'test'):
    x, y = arrays[f'x_{part}'], arrays[f'y_{part}']
    arrays[f'x_{part}'] = _images(f'{file}: x_{part}', x, kinds)
    _check_labels(file, part, y, len(x))
  train, test = arrays['x_train'], arrays['x_test']
  if train.shape[1:] != test.shape[1:]:
    raise ValueError(
      f'{file}: images of x_train are {train.shape[1:]}, of x_test '
      f'{test.shape[1:]}; they must agree.'
    )
  if train.dtype != test.dtype:
    raise ValueError(
      f'{file}: x_train is {train.dtype} and x_test {test.dtype}; they must '
      'agree.'
    )
  constant_C = (train == train[0, 0, 0]).all(axis=(0, 1, 2))
  if constant_C.any():
    raise ValueError(
      f'{file}: channel {constant_C.argmax()} of x_train is constant; it has '
      'no standard deviation to divide by: leave it out.'
    )
  return arrays


def _images(name: str, x_NxHxWxC: np.ndarray, kinds: str) -> np.ndarray:
  """Returns images, floats as float32; raises ValueError for what is none."""
  x = x_NxHxWxC
  if not (x.dtype == np.uint8 or (x.dtype.kind == 'f' in kinds)) or (
    x.ndim != 4 or x.size == 0
  ):
    wanted = 'uint8 or floats' if 'f' in kinds else 'uint8'
    raise ValueError(
      f'{name} is {x.dtype} of shape {x.shape}; it must be {wanted} of shape '
      f'(N, H, W, C), none of them 0{_as_images(name.rpartition(" ")[2], x)}.'
    )
  if x.dtype.kind == 'f':
    x = _as_float32(name, x)
  _, height, width, channels = x.shape
  # No image is at most 4 pixels high with more channels than that.
  if height < width == channels or height <= 4 < min(width, channels):
    raise ValueError(
      f'{name} of shape {x.shape} has its channels first; they must come last: '
      'save x.transpose(0, 2, 3, 1).'
    )
  return x


def _check_labels(file: Path, part: str, y_N: np.ndarray, count: int) -> None:
  """Raises ValueError where labels are none of `count` images."""
  if not np.issubdtype(y_N.dtype, np.integer) or y_N.shape != (count,):
    raise ValueError(
      f'{file}: y_{part} is {y_N.dtype} of shape {y_N.shape}; it must be '
      f'integers of shape ({count},){_as_labels(f"y_{part}", y_N, count)}.'
    )
  if y_N.min() < 0 or y_N.max() > np.iinfo(np.int32).max:
    raise ValueError(
      f'{file}: labels of y_{part} are {y_N.min()} to {y_N.max()}; they must '
      'count the classes from 0, as int32.'
    )


def unread(file: Path) -> tuple[str, ...]:
  """Returns the names of arrays in an npz that are none of `ARRAYS`."""
  with zipfile.ZipFile(file) as zipped:
    names = [name.removesuffix('.npy') for name in zipped.namelist()]
  return tuple(name for name in names if name not in ARRAYS)


def _as_images(name: str, x: np.ndarray) -> str:
  """Returns how to save an array as images, where that can be told."""
  if x.ndim == 2:
    return (
      f': where a row is an image, save {name}.reshape(-1, H, W, C) by its '
      'height, width and channels, or, of channels one after the other as in '
      "CIFAR's batches, reshape(-1, C, H, W).transpose(0, 2, 3, 1)"
    )
  if x.ndim == 3 and x.dtype == np.uint8:
    return f': save {name}[..., None]'
  if x.ndim == 4 and x.size and x.dtype.kind in 'iuf':
    low, high = x.min(), x.max()
    if x.dtype.kind == 'f' and low >= 0 and high <= 1:
      return f': save (255 * {name}).round().astype(np.uint8)'
    if low >= 0 and high <= 255:
      return f': save {name}.astype(np.uint8)'
    return f': it has values of {low:g} to {high:g}, scale them to 0 to 255'
  return ''


def _as_labels(name: str, y: np.ndarray, count: int) -> str:
  """Returns how to save an array as labels, where that can be told."""
  if y.shape == (count,) and y.dtype.kind in 'US':
    return f': save np.searchsorted(np.unique(y_train), {name})'
  if y.shape == (count,) and y.dtype.kind == 'f' and not np.isfinite(y).all():
    first = (~np.isfinite(y)).argmax()
    return (
      f', and image {first} has {y[first]:g}: leave out what has no label, or '
      'give it one'
    )
  if y.shape == (count,) and y.dtype.kind in 'fb':
    whole = (np.floor(y) == y).all()
    return f': save {name}.astype(int)' if whole else ''
  if y.shape == (count, 1) and y.dtype.kind in 'iu':
    return f': save {name}[:, 0]'
  a_row = y.ndim == 2 and len(y) == count and y.size and y.dtype.kind in 'iufb'
  if a_row and np.array_equal(y, np.eye(y.shape[1])[y.argmax(axis=1)]):
    return f': save {name}.argmax(axis=1)'
  return ''


def _as_float32(name: str, x_NxHxWxC: np.ndarray) -> np.ndarray:
  """Raises ValueError for floats that are no pixels, or are bytes."""
  with np.errstate(over='ignore'):
    x = x_NxHxWxC.astype(np.float32)
  low, high = x.min(), x.max()
  if not np.isfinite(low + high):
    first = np.unravel_index((~np.isfinite(x)).argmax(), x.shape)
    raise ValueError(
      f'{name} has values that are not finite in float32, the first one '
      f'{x_NxHxWxC[first]:g} in image {first[0]}: repair the image, or leave '
      'it out.'
    )
  if low >= 0 and 1 < high <= 255 and (x % 1 == 0).all():
    raise ValueError(
      f'{name} has whole numbers from {low:g} to {high:g} as floats: save '
      f'x.astype(np.uint8).'
    )
  return x
