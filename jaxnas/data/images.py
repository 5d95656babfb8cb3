"""Sources of images, all of them uint8 in memory."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxnas import runs
from jaxnas.data import cifar, imagenet16


@dataclasses.dataclass(frozen=True)
class Images:
  """A data set with its test set; pixels 0 to 255, labels from 0."""

  x_train: UInt8[np.ndarray, 'N H W C']
  y_train: Int[np.ndarray, ' N']
  x_test: UInt8[np.ndarray, 'M H W C']
  y_test: Int[np.ndarray, ' M']
  classes: int
  mean_C: Float[np.ndarray, ' C']
  """Of the training pixels, in [0, 1]."""
  std_C: Float[np.ndarray, ' C']

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.x_train.shape[1:]


def load(name: str, dir: str | None = None) -> Images:
  """A data set by name.

  Args:
    name: one of `NAMES`.
    dir: for cifar10 and cifar100 the folder that `python -m jaxnas.prepare`
      wrote, or any tfds folder of ArrayRecord files; for imagenet16_120 the
      folder that it wrote; for arrays an npz with x_train, y_train, x_test,
      y_test.

  Raises:
    ValueError: data that is not as it must be.
    FileNotFoundError: the data is not there; says which command makes it.
  """
  if name == 'digits':
    return _digits()
  if dir is None:
    raise FileNotFoundError(
      f'data.name {name} needs --data.dir'
      + (
        ': an npz with x_train, y_train, x_test, y_test.'
        if name == 'arrays'
        else f' D; {_command(name, "D")} makes it.'
      )
    )
  folder = Path(dir)
  if name == 'arrays':
    return _arrays(folder)
  if name == 'imagenet16_120':
    return _imagenet16_120(folder)
  return _cifar(folder, cifar.KINDS[name])


NAMES = ('digits', 'cifar10', 'cifar100', 'imagenet16_120', 'arrays')
ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')


def _command(name: str, folder: Path | str) -> str:
  """What prepares a data set."""
  taken = ' --from BATCHES --trust_pickle' if name == 'imagenet16_120' else ''
  return f'python -m jaxnas.prepare {name} --dir {folder}{taken}'


def _with_moments(x_train, y_train, x_test, y_test, classes: int) -> Images:
  count = x_train.size // x_train.shape[-1]
  # Sums of integers are exact, and need no float copy of all images.
  sum_C = x_train.sum(axis=(0, 1, 2), dtype=np.int64)
  squares_C = np.einsum('nhwc,nhwc->c', x_train, x_train, dtype=np.int64)
  return Images(
    x_train,
    y_train.astype(np.int32),
    x_test,
    y_test.astype(np.int32),
    classes,
    mean_C=sum_C / count / 255,
    std_C=np.sqrt(squares_C / count - (sum_C / count) ** 2) / 255,
  )


def _digits() -> Images:
  """scikit-learn's 1,797 digits of 8x8: 1,000 to train on, 797 to test on."""
  from sklearn.datasets import load_digits

  digits: Any = load_digits()
  # Their pixels are 0 to 16.
  x = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
  order = np.random.default_rng(0).permutation(len(x))
  train, test = order[:1000], order[1000:]
  y = digits.target
  return _with_moments(x[train], y[train], x[test], y[test], 10)


def _cifar(folder: Path, kind: cifar.Cifar) -> Images:
  """Through tensorflow-datasets' ArrayRecord reader, without TensorFlow."""
  command = _command(kind.name, folder)
  infos = sorted(folder.glob(f'{kind.name}/*/dataset_info.json'))
  if not infos:
    raise FileNotFoundError(f'no {kind.name} in {folder}: {command} makes it.')
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(infos[-1].parent)
    train, test = (
      _decode(builder, name, kind.classes) for name in ('train', 'test')
    )
  except Exception as error:
    # tfds lets whatever its readers raise pass, some of it over many lines.
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'{infos[-1].parent} is no readable ArrayRecord data set: move it away, '
      f'and {command} makes it anew ({reason[:200]}).'
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
  import tensorflow_datasets as tfds
  from PIL import Image

  # tfds' own decoding takes twice as long.
  source = builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  records = source.__getitems__(list(range(len(source))))
  # tfds shuffles what it prepares and our own preparer does not: a seed must
  # pick the same images from either.
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


def _arrays(file: Path) -> Images:
  """An npz of one's own."""
  if not file.is_file():
    raise FileNotFoundError(
      f'data.dir {file} is no file: data.name arrays reads an npz with '
      'x_train, y_train, x_test, y_test.'
    )
  arrays = _read_npz(file)
  labels_N = np.concatenate([arrays['y_train'], arrays['y_test']])
  classes = 1 + int(labels_N.max())
  if classes > len(labels_N):
    raise ValueError(
      f'{file} has label {classes - 1} and {len(labels_N)} images; labels must '
      'count the classes from 0.'
    )
  return _with_moments(**arrays, classes=classes)


def _imagenet16_120(folder: Path) -> Images:
  file = folder / imagenet16.FILE
  if not file.is_file():
    command = _command('imagenet16_120', folder)
    raise FileNotFoundError(f'no {file.name} in {folder}: {command} makes it.')
  arrays = _read_npz(file)
  for key in ('y_train', 'y_test'):
    if arrays[key].max() >= imagenet16.CLASSES:
      raise ValueError(
        f'{file}: {key} goes to {arrays[key].max()}; labels are 0 to '
        f'{imagenet16.CLASSES - 1}.'
      )
  return _with_moments(**arrays, classes=imagenet16.CLASSES)


def _read_npz(file: Path) -> dict[str, np.ndarray]:
  """Raises ValueError where they are no images with labels."""
  arrays = runs.read_npz(file, ARRAYS)
  for part in ('train', 'test'):
    x, y = arrays[f'x_{part}'], arrays[f'y_{part}']
    if x.dtype != np.uint8 or x.ndim != 4 or x.size == 0:
      raise ValueError(
        f'{file}: x_{part} is {x.dtype} of shape {x.shape}; it must be uint8 '
        'of shape (N, H, W, C), none of them 0.'
      )
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (len(x),):
      raise ValueError(
        f'{file}: y_{part} is {y.dtype} of shape {y.shape}; it must be '
        f'integers of shape ({len(x)},).'
      )
    if y.min() < 0 or y.max() > np.iinfo(np.int32).max:
      raise ValueError(
        f'{file}: labels of y_{part} are {y.min()} to {y.max()}; they must '
        'count the classes from 0, as int32.'
      )
  train, test = arrays['x_train'], arrays['x_test']
  if train.shape[1:] != test.shape[1:]:
    raise ValueError(
      f'{file}: images of x_train are {train.shape[1:]}, of x_test '
      f'{test.shape[1:]}; they must agree.'
    )
  constant_C = (train == train[0, 0, 0]).all(axis=(0, 1, 2))
  if constant_C.any():
    raise ValueError(
      f'{file}: channel {constant_C.argmax()} of x_train is constant; it has '
      'no standard deviation to divide by: leave it out.'
    )
  return arrays
