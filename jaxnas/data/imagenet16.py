"""ImageNet16-120: the first 120 classes of ImageNet at 16x16.

Chrabaszcz et al. 2017 publish all classes as pickles, train_data_batch_1 to
_10 and val_data; NAS-Bench-201 takes these classes (Dong and Yang, ICLR 2020).
The real files: not run; the tests prepare small ones of the same format.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxnas.runtime import pickles, progress

FILE = 'imagenet16_120.npz'
CLASSES = 120
SIZE = 16
TRAIN = tuple(f'train_data_batch_{i}' for i in range(1, 11))
TEST = 'val_data'
TAKEN = 'the folder with train_data_batch_1 to _10 and val_data'
_ALL_CLASSES = 1000  # the files count them from 1

Part = tuple[UInt8[np.ndarray, 'N 16 16 3'], Int[np.ndarray, ' N']]


def read(folder: Path) -> dict[str, np.ndarray]:
  """Reads the batches as arrays x_train, y_train, x_test and y_test.

  Images are uint8 and NHWC, labels 0 to 119; the real batches have 151,700
  training images, and 6,000 validation images, which become test images.

  Args:
    folder: holds the batches, or folders that hold them.

  Raises:
    FileNotFoundError: names the batch that is missing.
    ValueError: names the file and what is wrong with it.
  """
  files = find(folder)
  parts = [
    _read_batch(file)
    for file in progress.track(files, 'reading batches', len(files))
  ]
  arrays = {}
  for split, taken in (('train', parts[:-1]), ('test', parts[-1:])):
    x_NxHxWxC, y_N = (np.concatenate(a) for a in zip(*taken, strict=True))
    if not len(y_N):
      raise ValueError(
        f'{folder} has no {split} images with labels 1 to {CLASSES}.'
      )
    arrays |= {f'x_{split}': x_NxHxWxC, f'y_{split}': y_N}
  return arrays


def find(folder: Path) -> list[Path]:
  """Returns the files of the batches, in order; the last one's are for tests.

  Raises:
    FileNotFoundError: names the batch that is missing.
    ValueError: names the batch that is there twice, or this is no folder.
  """
  if not folder.is_dir():
    raise ValueError(f'{folder} is no folder: give {TAKEN}.')
  return [_find(folder, name) for name in (*TRAIN, TEST)]


def _find(folder: Path, name: str) -> Path:
  found = [
    file
    for file in (folder / name, *folder.glob(f'*/{name}'))
    if file.is_file()
  ]
  if not found:
    raise FileNotFoundError(
      f'{folder} lacks {name}, and so do its folders: give {TAKEN}.'
    )
  if len(found) > 1:
    raise ValueError(
      f'{found[0]} is there a second time, as {found[1]}: leave one of them.'
    )
  return found[0]


def _read_batch(file: Path) -> Part:
  """Reads the images and labels of the first 120 classes from a batch."""
  content = pickles.read(file)
  x_NxD, y_N = (_entry(file, content, key) for key in ('data', 'labels'))
  depth = 3 * SIZE**2
  if x_NxD.dtype != np.uint8 or x_NxD.shape[1:] != (depth,):
    raise ValueError(
      f"{file}: 'data' is {x_NxD.dtype} of shape {x_NxD.shape}; it must be "
      f'uint8 of shape (N, {depth}).'
    )
  if not np.issubdtype(y_N.dtype, np.integer) or y_N.shape != (len(x_NxD),):
    raise ValueError(
      f"{file}: 'labels' is {y_N.dtype} of shape {y_N.shape}; it must be "
      f'integers of shape ({len(x_NxD)},).'
    )
  wrong_N = (y_N < 1) | (y_N > _ALL_CLASSES)
  if wrong_N.any():
    n = wrong_N.argmax()
    raise ValueError(
      f'{file}: image {n} has label {y_N[n]}; labels are 1 to {_ALL_CLASSES}.'
    )
  kept_N = y_N <= CLASSES
  x_NxCxHxW = x_NxD[kept_N].reshape(-1, 3, SIZE, SIZE)
  return x_NxCxHxW.transpose(0, 2, 3, 1), (y_N[kept_N] - 1).astype(np.int32)


def _entry(file: Path, content: Any, key: str) -> np.ndarray:
  """Returns an array of a dict whose keys are str or, from Python 2, bytes."""
  value = None
  if isinstance(content, dict):
    value = content.get(key, content.get(key.encode()))
  if value is None:
    raise ValueError(f'{file} holds no dict with {key!r}.')
  try:
    return np.asarray(value)
  except ValueError as error:
    raise ValueError(f'{file}: {key!r} is no array: {error}') from error
