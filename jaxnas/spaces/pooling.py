"""The pooling space: 36 ResNet20s that pool at different blocks.

Roshtkhari et al., "Balanced Mixture of SuperNets for Learning the CNN Pooling
Architecture", AutoML 2023.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxnas.spaces.base import Costs, Space

BLOCKS = 9
POOLS = 2


@dataclasses.dataclass(frozen=True)
class PoolingSpace(Space):
  """Two 2x2 max pools, each before one of the nine residual blocks.

  A pool leaves out the last row or column of an odd side.

  Each position is a block; op 1 pools before it, and exactly two ops are 1. The
  text '4,7' (ResNet20 itself) pools before the fourth and the seventh block.
  The index of a block fixes its channels, wherever the pools are.
  """

  channels: tuple[int, ...]
  """Channels of each block."""
  stem: int
  """Channels of the 3x3 stem."""

  @property
  def size(self) -> int:
    return len(self.enumerate())

  def parse(self, text: str) -> Int[np.ndarray, ' E']:
    parts = text.split(',')
    allowed = [str(block) for block in range(1, self.positions + 1)]
    if len(parts) != POOLS or not all(part in allowed for part in parts):
      raise ValueError(
        f'{text!r} is not two blocks such as 4,7; {self.name} has blocks 1 '
        f'to {self.positions}.'
      )
    first, second = map(int, parts)
    if first >= second:
      raise ValueError(
        f'{text!r}: the first pool must stand before the second one in '
        f'{self.name}.'
      )
    arch_E = np.zeros(self.positions, np.int32)
    arch_E[[first - 1, second - 1]] = 1
    return arch_E

  def format(self, arch_E: Int[np.ndarray, ' E']) -> str:
    return ','.join(str(block + 1) for block in np.flatnonzero(arch_E))

  def enumerate(self) -> Int[np.ndarray, 'A E']:
    """All architectures, in the order 1,2 1,3 ... 8,9."""
    pairs = list(itertools.combinations(range(self.positions), POOLS))
    archs_AxE = np.zeros((len(pairs), self.positions), np.int32)
    np.put_along_axis(archs_AxE, np.array(pairs), 1, axis=1)
    return archs_AxE

  def index(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    self.validate(archs_AxE)
    same_AxA = (archs_AxE[:, None] == self.enumerate()).all(axis=-1)
    return same_AxA.argmax(axis=1)

  def random(
    self, rng: np.random.Generator, count: int
  ) -> Int[np.ndarray, 'A E']:
    return self.enumerate()[rng.integers(self.size, size=count)]

  def codes(self, archs_AxE: Any) -> Any:
    """Returns how often the maps that a block sees have been pooled."""
    return archs_AxE.cumsum(axis=1)

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    self.validate(archs_AxE)
    height, width, inputs = self.image_shape
    params = 9 * inputs * self.stem + 2 * self.stem
    macs_A = np.full(
      len(archs_AxE), 9 * inputs * self.stem * height * width, np.int64
    )
    inputs = self.stem
    # Each pool halves both sides, rounded down, for the blocks after it.
    pools_AxE = archs_AxE.cumsum(axis=1)
    for e, outputs in enumerate(self.channels):
      kernels = 9 * outputs * (inputs + outputs)
      params += kernels + 4 * outputs
      if inputs != outputs:
        kernels += inputs * outputs
        params += inputs * outputs + 2 * outputs
      macs_A += (
        kernels * (height >> pools_AxE[:, e]) * (width >> pools_AxE[:, e])
      )
      inputs = outputs
    params += self.classes * (inputs + 1)
    return Costs(
      np.full(len(archs_AxE), params, np.int64),
      macs_A + inputs * self.classes,
    )

  def on_images(
    self, image_shape: tuple[int, int, int], classes: int
  ) -> 'PoolingSpace':
    """Returns the space for these images.

    Raises ValueError where both pools do not leave a pixel.
    """
    if min(image_shape[:2]) < (least := 2**POOLS):
      raise ValueError(
        f'{self.name} pools {POOLS} times by 2, and these images are '
        f'{image_shape[0]}x{image_shape[1]}: they must be {least}x{least} at '
        'least.'
      )
    return dataclasses.replace(self, image_shape=image_shape, classes=classes)

  def complexity(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, ' A']:
    raise ValueError(
      f'{self.name} has no levels of complexity: all its networks have the '
      'same layers. Choose another sampler.name than balanced.'
    )

  def allowed(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Bool[np.ndarray, ' A']:
    return archs_AxE.sum(axis=1) == POOLS

  def _forbidden(self, archs_AxE: Int[np.ndarray, 'A E']) -> None:
    allowed_A = self.allowed(archs_AxE)
    if not allowed_A.all():
      a = int(allowed_A.argmin())
      raise ValueError(
        f'arch {a} has {archs_AxE[a].sum()} pools; {self.name} has exactly '
        f'{POOLS}.'
      )


POOLING = PoolingSpace(
  'pooling',
  (('none', 'pool'),) * BLOCKS,
  image_shape=(32, 32, 3),
  classes=10,
  any_images=True,
  channels=(16,) * 3 + (32,) * 3 + (64,) * 3,
  stem=16,
)
