"""Loads data sets whose images fit into memory."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from PIL import Image

from jaxnas.data import (
  array_records,
  cifar,
  imagenet16,
  labels,
  npz,
  tfds_folders,
)
from jaxnas.data.ignored import Ignored
from jaxnas.runtime import errors

# Test images of which so many say in what unit they are.
FEW = 10


@dataclasses.dataclass(frozen=True)
class Images:
  """A training set and its test set; labels count from 0.

  Pixels are bytes, 0 to 255, or float32 that are normalised as they are.
  """

  x_train: Num[np.ndarray, 'N H W C']
  y_train: Int[np.ndarray, ' N']
  x_test: Num[np.ndarray, 'M H W C']
  y_test: Int[np.ndarray, ' M']
  classes: int
  mean_C: Float[np.ndarray, ' C']
  """Mean of the training pixels: of bytes, divided by 255."""
  std_C: Float[np.ndarray, ' C']
  ignored: Ignored = dataclasses.field(default_factory=Ignored)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.x_train.shape[1:]

  @property
  def pixels(self) -> str:
    """Says what was taken for pixels; '' where they are bytes."""
    if self.x_train.dtype == np.uint8:
      return ''
    parts = self.x_train, self.x_test
    low, high = min(x.min() for x in parts), max(x.max() for x in parts)
    if low >= 0 and high <= 1:
      return 'floats of 0 to 1'
    return f'floats taken as standardised, {low:.3g} to {high:.3g}'


def cifar10(dir: str | None) -> Images:
  """Reads CIFAR-10 from the folder that jaxnas.prepare wrote.

  Any tfds folder of ArrayRecord files serves, as for `encoded.load`.

  Raises:
    ValueError: the data is not as it must be.
    FileNotFoundError: there is no data; the message names the command that
      makes it.
  """
  return _cifar(_prepared('cifar10', dir), cifar.KINDS['cifar10'])


def cifar100(dir: str | None) -> Images:
  """Reads CIFAR-100, as `cifar10` does."""
  return _cifar(_prepared('cifar100', dir), cifar.KINDS['cifar100'])


def _prepared(name: str, dir: str | None) -> Path:
  """Raises FileNotFoundError where no folder is given."""
  if dir is None:
    raise FileNotFoundError(
      f'data.name {name} needs --data.dir D; {_command(name, "D")} makes it.'
    )
  return Path(dir)


def _command(name: str, folder: Path | str) -> str:
  """Returns the command that prepares a data set."""
  taken = ' --from BATCHES --trust_pickle' if name == 'imagenet16_120' else ''
  return f'python -m jaxnas.prepare {name} --dir {folder}{taken}'


def _with_moments(x_train, y_train, x_test, y_test, classes: int) -> Images:
  return Images(
    x_train,
    y_train.astype(np.int32),
    x_test,
    y_test.astype(np.int32),
    classes,
    *_moments(x_train),
  )


def _moments(x_NxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean of each channel, and its standard deviation."""
  if x_NxHxWxC.dtype != np.uint8:
    axes = (0, 1, 2)
    mean_C = x_NxHxWxC.mean(axis=axes, dtype=np.float64)
    return mean_C, x_NxHxWxC.std(axis=axes, dtype=np.float64)
  count = x_NxHxWxC.size // x_NxHxWxC.shape[-1]
  # Sums of integers are exact, and need no float copy of all images.
  sum_C = x_NxHxWxC.sum(axis=(0, 1, 2), dtype=np.int64)
  squares_C = np.einsum('nhwc,nhwc->c', x_NxHxWxC, x_NxHxWxC, dtype=np.int64)
  std_C = np.sqrt(squares_C / count - (sum_C / count) ** 2) / 255
  return sum_C / count / 255, std_C


def digits() -> Images:
  """Reads scikit-learn's 1,797 digits of 8x8, of which 797 test."""
  from sklearn.datasets import load_digits

  loaded: Any = load_digits()
  # Their pixels are 0 to 16.
  x = np.round(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
  order = np.random.default_rng(0).permutation(len(x))
  train, test = order[:1000], order[1000:]
  y = loaded.target
  return _with_moments(x[train], y[train], x[test], y[test], 10)


def _cifar(folder: Path, kind: cifar.Cifar) -> Images:
  """Reads CIFAR through tensorflow-datasets, without TensorFlow."""
  command = _command(kind.name, folder)
  found = tfds_folders.find(folder, kind.name)
  if found is None:
    raise FileNotFoundError(f'no {kind.name} in {folder}: {command} makes it.')
  tfds_folders.check_format(found)
  import tensorflow_datasets as tfds  # takes a second

  try:
    builder = tfds.builder_from_directory(found)
    train, test = (
      _decode(builder, name, kind.classes) for name in ('train', 'test')
    )
  except Exception as error:
    # tfds passes on all that its readers raise, some of it over many lines.
    raise ValueError(
      f'{found} is no readable ArrayRecord data set: move it away, '
      f'and {command} makes it anew ({errors.reason(error)}).'
    ) from error
  return Images(
    *train,
    *test,
    classes=kind.classes,
    mean_C=np.array(kind.mean_C),
    std_C=np.array(kind.std_C),
  )


def _decode(
  builder: Any, split: str, classes: int
) -> tuple[np.ndarray, np.ndarray]:
  # tfds' own decoding takes twice as long.
  source = array_records.source(builder, split)
  records = source.__getitems__(list(range(len(source))))
  # tfds shuffles the records that it prepares, and jaxnas.prepare does not. A
  # seed must pick the same images from either.
  records.sort(key=lambda record: record['id'])
  x_NxHxWxC = np.stack(
    [
      np.asarray(Image.open(io.BytesIO(record['image']), formats=['PNG']))
      for record in records
    ]
  )
  y_N = np.array([record['label'] for record in records], np.int32)
  if y_N.min() < 0 or y_N.max() >= classes:
    raise ValueError(f'labels of {split} are {y_N.min()} to {y_N.max()}')
  if x_NxHxWxC.shape[1:] != (32, 32, 3):
    raise ValueError(f'images of {split} are of shape {x_NxHxWxC.shape[1:]}')
  return x_NxHxWxC, y_N


def arrays(dir: str | None) -> Images:
  """Reads an npz of one's own, with the arrays of `npz.ARRAYS`.

  Images are bytes or floats. Floats are kept as float32 and normalised by their
  own mean and deviation, in whatever unit they are.

  Raises ValueError or FileNotFoundError where it is none.
  """
  if dir is None:
    raise FileNotFoundError(
      'data.name arrays needs --data.dir: an npz with x_train, y_train, '
      'x_test, y_test.'
    )
  file = Path(dir)
  if not file.is_file():
    raise FileNotFoundError(
      f'data.dir {file} is no file: give by --data.dir the npz with x_train, '
      'y_train, x_test, y_test that data.name arrays reads.'
    )
  found = npz.read(file, 'uf')
  classes = labels.count(f'{file}: y_train', found['y_train'])
  images = _with_moments(**found, classes=classes)
  _check_scales(file, images)
  return dataclasses.replace(images, ignored=Ignored(names=npz.unread(file)))


def _check_scales(file: Path, images: Images) -> None:
  """Raises ValueError for pixels that training's moments cannot normalise."""
  for channel, std in enumerate(images.std_C):
    # Beyond, the deviation or its reciprocal leaves the range of float32.
    if not 1e-30 < std < 1e30:
      raise ValueError(
        f'{file}: channel {channel} of x_train has a standard deviation of '
        f'{std:.3g}, by which float32 cannot divide: save x / '
        'np.abs(x_train).max() of both parts.'
      )
  furthest, width, below = {}, {}, {}
  unit = 255 if images.x_train.dtype == np.uint8 else 1
  for name in ('x_train', 'x_test'):
    x_NxHxWxC = getattr(images, name)
    width[name] = float(x_NxHxWxC.max()) - float(x_NxHxWxC.min())
    below[name] = (x_NxHxWxC.min((1, 2, 3)) < 0).mean()
    furthest[name] = max(
      abs((extreme_C / unit - images.mean_C) / images.std_C).max()
      for extreme_C in (x_NxHxWxC.min((0, 1, 2)), x_NxHxWxC.max((0, 1, 2)))
    )
  # Standardised images have values below 0, and those of 0 to 1 have none.
  one_sided = (
    len(images.x_test) >= FEW
    and max(below.values()) > 0.9
    and min(below.values()) == 0
  )
  if (
    furthest['x_test'] > 10 * furthest['x_train']
    or width['x_train'] > 100 * width['x_test']
    or one_sided
  ):
    train, test = images.x_train, images.x_test
    raise ValueError(
      f'{file}: x_train is {train.min():g} to {train.max():g} and x_test '
      f'{test.min():g} to {test.max():g}; both are normalised by the moments '
      'of x_train: save both in one unit.'
    )


def imagenet16_120(dir: str | None) -> Images:
  """Reads ImageNet16-120 from the folder that jaxnas.prepare wrote.

  Raises as `cifar10`.
  """
  folder = _prepared('imagenet16_120', dir)
  file = folder / imagenet16.FILE
  if not file.is_file():
    command = _command('imagenet16_120', folder)
    raise FileNotFoundError(f'no {file.name} in {folder}: {command} makes it.')
  arrays = npz.read(file)
  for key in ('y_train', 'y_test'):
    if arrays[key].max() >= imagenet16.CLASSES:
      raise ValueError(
        f'{file}: {key} goes to {arrays[key].max()}; labels are 0 to '
        f'{imagenet16.CLASSES - 1}.'
      )
  return _with_moments(**arrays, classes=imagenet16.CLASSES)
