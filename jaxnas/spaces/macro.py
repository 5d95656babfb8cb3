"""NAS-Bench-Macro (Su et al., CVPR 2021), and spaces in its manner."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas.spaces.base import Costs, Space


class Layer(NamedTuple):
  """What a position maps, whichever op it has."""

  inputs: int
  outputs: int
  stride: int


@dataclasses.dataclass(frozen=True)
class MacroSpace(Space):
  """A chain of stages; every position is an identity or one of the MB blocks.

  The first position of a stage has stride 2 and changes the channels: there
  the identity is a strided 1x1 convolution with batch normalisation.
  """

  stem: int
  """Channels of the 3x3 stem."""
  stages: tuple[tuple[int, int], ...]
  """(positions, channels) of each stage."""
  head: int
  """Channels of the 1x1 convolution before pooling."""
  blocks: tuple[tuple[int, int], ...] = ((3, 3), (6, 5))
  """(expansion, kernel) of the inverted residuals, ops 1, 2, ..."""

  @property
  def layers(self) -> tuple[Layer, ...]:
    """One a position."""
    out, inputs = [], self.stem
    for positions, channels in self.stages:
      for i in range(positions):
        out.append(Layer(inputs, channels, 2 if i == 0 else 1))
        inputs = channels
    return tuple(out)

  def canonical(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, 'A E']:
    """Identities after a stage's first position commute: moved to its end."""
    out_AxE, start = archs_AxE.copy(), 0
    for positions, _ in self.stages:
      rest = slice(start + 1, start + positions)
      order = np.argsort(out_AxE[:, rest] == 0, axis=1, kind='stable')
      out_AxE[:, rest] = np.take_along_axis(out_AxE[:, rest], order, axis=1)
      start += positions
    return out_AxE

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    self.validate(archs_AxE)
    height, width, channels = self.image_shape
    pixels = height * width
    params = 9 * channels * self.stem + 2 * self.stem
    macs = 9 * channels * self.stem * pixels
    params_A = np.zeros(len(archs_AxE), np.int64)
    macs_A = np.zeros(len(archs_AxE), np.int64)
    for e, layer in enumerate(self.layers):
      height, width = (-(-side // layer.stride) for side in (height, width))
      table = [self._identity(layer, height * width)] + [
        self._block(layer, *block, pixels, height * width)
        for block in self.blocks
      ]
      params_O, macs_O = np.array(table, np.int64).T
      params_A += params_O[archs_AxE[:, e]]
      macs_A += macs_O[archs_AxE[:, e]]
      pixels = height * width
    last = self.stages[-1][1]
    params += self.head * (last + 2) + self.classes * (self.head + 1)
    macs += last * self.head * pixels + self.head * self.classes
    return Costs(params_A + params, macs_A + macs)

  @staticmethod
  def _identity(layer: Layer, pixels: int) -> tuple[int, int]:
    if layer.stride == 1 and layer.inputs == layer.outputs:
      return 0, 0
    kernel = layer.inputs * layer.outputs
    return kernel + 2 * layer.outputs, kernel * pixels

  @staticmethod
  def _block(
    layer: Layer, expansion: int, kernel: int, before: int, after: int
  ) -> tuple[int, int]:
    """`before` and `after`: pixels of the map that comes in and goes out."""
    wide = layer.inputs * expansion
    expand, depth = layer.inputs * wide, kernel**2 * wide
    project = wide * layer.outputs
    params = expand + depth + project + 4 * wide + 2 * layer.outputs
    return params, expand * before + (depth + project) * after


def _macro(name: str, **fields) -> MacroSpace:
  blocks = MacroSpace.blocks
  count = sum(positions for positions, _ in fields['stages'])
  ops = ('identity', *(f'mb{e}_k{k}' for e, k in blocks))
  return MacroSpace(name, (ops,) * count, **fields)


NAS_BENCH_MACRO = _macro(
  'nas_bench_macro',
  image_shape=(32, 32, 3),
  classes=10,
  stem=32,
  stages=((2, 64), (3, 128), (3, 256)),
  head=1280,
)

# scikit-learn's digits: 81 architectures that train in seconds.
DIGITS = _macro(
  'digits',
  image_shape=(8, 8, 1),
  classes=10,
  stem=4,
  stages=((2, 6), (2, 8)),
  head=32,
)
