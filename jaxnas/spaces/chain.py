"""Chains of stages whose positions choose between inverted residuals."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas.spaces.base import Costs, Space

# Fraction of the expanded width to which squeeze-and-excitation narrows it.
SQUEEZE = 0.25


class Block(NamedTuple):
  """An inverted residual (MB block); expansion 1 leaves out the first 1x1."""

  expansion: int
  kernel: int
  squeeze: bool = False
  """True for squeeze-and-excitation after the depthwise convolution."""

  @property
  def name(self) -> str:
    end = '_SE' if self.squeeze else ''
    return f'MB{self.expansion}_K{self.kernel}{end}'

  def squeeze_width(self, inputs: int) -> int | None:
    """Number of channels to which squeeze-and-excitation narrows, or None."""
    return int(SQUEEZE * inputs * self.expansion) if self.squeeze else None


class Stage(NamedTuple):
  """Positions in a row with the same channels; the first one has the stride."""

  positions: int
  channels: int
  stride: int = 2


class Layer(NamedTuple):
  """Input and output of a position, the same for every op."""

  inputs: int
  outputs: int
  stride: int

  @property
  def keeps_shape(self) -> bool:
    return self.stride == 1 and self.inputs == self.outputs


@dataclasses.dataclass(frozen=True)
class ChainSpace(Space):
  """Stem, stages and head; every position is an identity or an MB block.

  Where the shape changes, the identity is a strided 1x1 convolution with batch
  normalisation.
  """

  stages: tuple[Stage, ...]
  head: int
  """Channels of the 1x1 convolution before pooling."""
  candidates: tuple[tuple[Block | None, ...], ...]
  """The ops of each position; None is the identity."""
  stem: int
  """Channels of the 3x3 stem."""
  stem_stride: int = 1
  first: tuple[Block, int] | None = None
  """A block that every architecture has between stem and positions, and its
  number of channels."""
  activation: str = 'relu'
  """Activation of the blocks; stem and head have ReLU."""

  @property
  def layers(self) -> tuple[Layer, ...]:
    """Input and output of each position."""
    out, inputs = [], self.first[1] if self.first else self.stem
    for positions, channels, stride in self.stages:
      for i in range(positions):
        out.append(Layer(inputs, channels, stride if i == 0 else 1))
        inputs = channels
    return tuple(out)

  def canonical(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, 'A E']:
    """Moves identities after a stage's first position to the stage's end."""
    out_AxE, start = archs_AxE.copy(), 0
    for positions, _, _ in self.stages:
      rest = slice(start + 1, start + positions)
      order = np.argsort(out_AxE[:, rest] == 0, axis=1, kind='stable')
      out_AxE[:, rest] = np.take_along_axis(out_AxE[:, rest], order, axis=1)
      start += positions
    return out_AxE

  @property
  def kinds(self) -> tuple[tuple[list[int], list[int]], ...]:
    """Ops of each position that are MB blocks, and those that are not."""
    return tuple(
      (
        [op for op, block in enumerate(ops) if block is not None],
        [op for op, block in enumerate(ops) if block is None],
      )
      for ops in self.candidates
    )

  def depth(self, archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, ' A']:
    """Number of MB blocks."""
    blocks_A = np.zeros(len(archs_AxE), np.int64)
    for e, (blocks, _) in enumerate(self.kinds):
      blocks_A += np.isin(archs_AxE[:, e], blocks)
    return blocks_A

  def complexity(
    self, archs_AxE: Int[np.ndarray, 'A E']
  ) -> Int[np.ndarray, ' A']:
    """Level of its number of blocks (inferred).

    Blocks at half of the positions or fewer are level 0, each one more is the
    next level: {0 to 4, 5, 6, 7, 8} in NAS-Bench-Macro.
    """
    return self.level(self.depth(archs_AxE))

  def level(self, depth_A: Int[np.ndarray, ' A']) -> Int[np.ndarray, ' A']:
    """Level of complexity of so many blocks."""
    return np.maximum(depth_A - self.positions // 2, 0)

  def costs(self, archs_AxE: Int[np.ndarray, 'A E']) -> Costs:
    self.validate(archs_AxE)
    before_2, tables, after_2 = self._parts()
    chosen_Ax2 = sum(
      table_Ox2[archs_AxE[:, e]] for e, table_Ox2 in enumerate(tables)
    )
    return Costs(*(before_2 + chosen_Ax2 + after_2).T)

  def shared_macs(self, archs_AxE: Int[np.ndarray, 'A E']) -> int:
    """Multiply-adds of a walk of the prefix tree: a shared start counts once.

    All 6,561 architectures of NAS-Bench-Macro take 3.73 times fewer so.
    """
    self.validate(archs_AxE)
    before_2, tables, after_2 = self._parts()
    total = before_2[1] + len(archs_AxE) * after_2[1]
    for e, table_Ox2 in enumerate(tables):
      prefixes = np.unique(archs_AxE[:, : e + 1], axis=0)
      total += table_Ox2[prefixes[:, e], 1].sum()
    return int(total)

  def _parts(
    self,
  ) -> tuple[
    Int[np.ndarray, '2'], list[Int[np.ndarray, 'O 2']], Int[np.ndarray, '2']
  ]:
    """Parameters and multiply-adds before, at and after the positions."""
    height, width, channels = self.image_shape

    def pixels_after(stride: int) -> tuple[int, int]:
      """Pixels of the map before and after a layer."""
      nonlocal height, width
      before = height * width
      height, width = (-(-side // stride) for side in (height, width))
      return before, height * width

    _, pixels = pixels_after(self.stem_stride)
    before_2 = _conv(channels, self.stem, 3, pixels)
    if self.first:
      block, outputs = self.first
      before_2 = before_2 + _block(
        Layer(self.stem, outputs, 1), block, pixels, pixels
      )
    tables = []
    for layer, ops in zip(self.layers, self.candidates, strict=True):
      before, pixels = pixels_after(layer.stride)
      tables.append(np.stack([_block(layer, op, before, pixels) for op in ops]))
    after_2 = _conv(self.stages[-1].channels, self.head, 1, pixels)
    linear = self.head * self.classes
    return before_2, tables, after_2 + np.array([linear + self.classes, linear])


def _conv(
  inputs: int, outputs: int, kernel: int, pixels: int, *, groups: int = 1
) -> Int[np.ndarray, '2']:
  """(parameters, multiply-adds) of a convolution and its normalisation."""
  weights = kernel**2 * inputs * outputs // groups
  return np.array([weights + 2 * outputs, weights * pixels], np.int64)


def _block(
  layer: Layer, block: Block | None, before: int, after: int
) -> Int[np.ndarray, '2']:
  """(parameters, multiply-adds) of an op on `before` pixels, giving `after`."""
  if block is None:
    if layer.keeps_shape:
      return np.zeros(2, np.int64)
    return _conv(layer.inputs, layer.outputs, 1, after)
  wide = layer.inputs * block.expansion
  out = _conv(wide, wide, block.kernel, after, groups=wide)
  out = out + _conv(wide, layer.outputs, 1, after)
  if block.expansion > 1:
    out = out + _conv(layer.inputs, wide, 1, before)
  if narrow := block.squeeze_width(layer.inputs):
    weights = 2 * wide * narrow
    out = out + np.array([weights + narrow + wide, weights])
  return out


def chain(
  name: str,
  *,
  stages: tuple[Stage, ...],
  blocks: tuple[Block, ...],
  identity_everywhere: bool = True,
  **fields,
) -> ChainSpace:
  """Builds a space whose positions offer the identity and the same blocks.

  Args:
    name: of the space.
    stages: of the chain.
    blocks: ops 1, 2, ... of each position; op 0 is the identity.
    identity_everywhere: False leaves the identity out of positions that change
      the shape.
    fields: the other fields of `ChainSpace`.
  """
  unchosen = ChainSpace(name, (), stages=stages, candidates=(), **fields)
  candidates = tuple(
    (None, *blocks) if identity_everywhere or layer.keeps_shape else blocks
    for layer in unchosen.layers
  )
  return dataclasses.replace(
    unchosen,
    candidates=candidates,
    ops=tuple(
      tuple(block.name if block else 'ID' for block in position)
      for position in candidates
    ),
  )
