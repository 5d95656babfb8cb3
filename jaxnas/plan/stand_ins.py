"""Data sets of the right sizes without images, to plan before a download.

Pixels are black, and every class is as large as the others.
"""

import dataclasses
import io

import numpy as np
from jaxtyping import Int32
from PIL import Image

from jaxnas import data
from jaxnas.config import Config


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a public data set."""

  train: int
  test: int
  classes: int
  side: int


SIZES = {
  'cifar10': Sizes(50_000, 10_000, 10, 32),
  'cifar100': Sizes(50_000, 10_000, 100, 32),
  'imagenet16_120': Sizes(151_700, 6_000, 120, 16),
}
IMAGENET = Sizes(1_281_167, 50_000, 1000, 224)
_MOMENT_C = np.full(3, 0.5)


@dataclasses.dataclass(frozen=True, eq=False)
class Black:
  """Encoded images by index, all of them the same black one."""

  labels_N: Int32[np.ndarray, ' N']

  def __len__(self) -> int:
    return len(self.labels_N)

  def read(self, index: int) -> bytes:
    del index
    file = io.BytesIO()
    Image.new('RGB', (8, 8)).save(file, 'png')
    return file.getvalue()

  def name(self, index: int) -> str:
    return f'black {index}'

  def listing(self) -> bytes:
    return b'black'


def images(config: Config) -> data.DataSet:
  """Returns images that stand in for the config's; digits and arrays are real.

  Raises ValueError or FileNotFoundError as `data.load` does.
  """
  given = config.data
  if given.name == 'imagenet':
    return data.Photos(
      Black(_labels(IMAGENET.train, IMAGENET.classes)),
      Black(_labels(IMAGENET.test, IMAGENET.classes)),
      IMAGENET.classes,
      _MOMENT_C,
      _MOMENT_C,
      size=given.size,
      # Threads suffice, as these images take no time to decode.
      workers=0,
      on_error='raise',
    )
  if given.name not in SIZES:
    return data.load(given.name, given.dir)
  sizes = SIZES[given.name]
  shape = (sizes.side, sizes.side, 3)
  return data.Images(
    # A broadcast zero takes no memory.
    np.broadcast_to(np.uint8(0), (sizes.train, *shape)),
    _labels(sizes.train, sizes.classes),
    np.broadcast_to(np.uint8(0), (sizes.test, *shape)),
    _labels(sizes.test, sizes.classes),
    sizes.classes,
    _MOMENT_C,
    _MOMENT_C,
  )


def _labels(count: int, classes: int) -> Int32[np.ndarray, ' N']:
  return (np.arange(count) % classes).astype(np.int32)
