"""The supernet and stand-alone networks of chains of MB blocks."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn import maps
from jaxnas.nn.blocks import Identity, InvertedResidual
from jaxnas.nn.choice import Arch, Choice, Op, loop, used_by_choices
from jaxnas.nn.layers import Conv, Groups, Linear, Norm, Pointwise
from jaxnas.nn.maps import Layout, Map
from jaxnas.spaces import ChainSpace
from jaxnas.spaces.chain import Block, Layer

# At least so many alike positions in a row become a loop over one program.
# The price is a copy of their parameters.
SHORTEST_LOOP = 3


class ChainNet(nn.Module):
  """stem -> positions -> head, the positions in the trunk's inner layout.

  A supernet when `arch` is a traced vector, a stand-alone network when it is
  a tuple of ints.

  Named tensor sets: 'deep' is what stands after the last choice, the head's
  convolution and linear layer (inferred default of the paper where ops
  differ); 'early' the stem's convolution. Layers whose input can be read: the
  head, which receives the last position's map, and its linear layer.
  """

  space: ChainSpace
  dtype: Any = jnp.float32
  affine: bool = False
  momentum: float | None = None
  groups: Groups = Groups()
  activation: str | None = None
  trunk: Layout | None = None
  """The inner layout; None: what suits this backend."""

  sequential: ClassVar[bool] = True
  default_tensors: ClassVar[str] = 'deep'
  tensor_sets: ClassVar[dict[str, tuple[str, ...]]] = {
    'deep': ('head/conv/kernel', 'head/linear/kernel'),
    'early': ('stem/conv/kernel',),
  }
  layers: ClassVar[tuple[str, ...]] = ('head', 'head/linear')

  def setup(self):
    space = self.space
    layout = self.trunk or maps.trunk_layout()
    norm = functools.partial(
      Norm,
      self.affine,
      self.momentum,
      dtype=self.dtype,
      groups=self.groups,
    )
    inner: dict[str, Any] = {
      'norm': functools.partial(norm, layout=layout),
      'layout': layout,
      'dtype': self.dtype,
    }

    def maker(layer: Layer, block: Block | None) -> Callable[..., nn.Module]:
      if block is None:
        return functools.partial(Identity, layer.outputs, layer.stride, **inner)
      return functools.partial(
        InvertedResidual,
        layer.outputs,
        block.expansion,
        block.kernel,
        layer.stride,
        squeeze=block.squeeze_width(layer.inputs),
        activation=self.activation or space.activation,
        **inner,
      )

    self.layout: Layout = layout
    self.stem_part = Stem(
      space.stem, space.stem_stride, norm, self.dtype, name='stem'
    )
    if space.first is not None:
      block, channels = space.first
      self.first_part = maker(Layer(space.stem, channels, 1), block)(
        name='first'
      )
    self.choices = [
      Choice(
        tuple(maker(layer, block) for block in candidates),
        name=f'position_{e}',
      )
      for e, (layer, candidates) in enumerate(
        zip(space.layers, space.candidates, strict=True)
      )
    ]
    self.head_part = Head(
      space.head, space.classes, norm, self.dtype, name='head'
    )

  def __call__(
    self,
    x_BxHxWxC: Float[Array, 'B H W C'],
    arch: tuple[int | np.integer, ...] | Arch,
    *,
    train: bool,
  ) -> Float[Array, 'B K']:
    if not isinstance(arch, tuple):
      arch = jnp.asarray(arch)
    x = self.stem(x_BxHxWxC, train)
    for run in self._alike():
      choices, ops = self.choices[run], arch[run]
      if isinstance(arch, tuple) or len(choices) < SHORTEST_LOOP:
        for choice, op in zip(choices, ops, strict=True):
          x = choice(x, op, train)
      else:
        x = loop(choices, x, jnp.asarray(ops), train)
    return self.head(x, train)

  def _alike(self) -> list[slice]:
    """Positions in a row that have one shape and the same candidates."""
    layers, candidates = self.space.layers, self.space.candidates
    of_position = zip(layers, candidates, strict=True)
    lengths = [len([*run]) for _, run in itertools.groupby(of_position)]
    ends = itertools.accumulate(lengths)
    return [
      slice(end - length, end)
      for end, length in zip(ends, lengths, strict=True)
    ]

  def stem(self, x_BxHxWxC: Map, train: bool = False) -> Map:
    """Images -> map that the first position receives, in the inner layout."""
    x = self.stem_part(x_BxHxWxC, train)
    x = maps.relayout(x, 'NHWC', self.layout)
    return x if self.space.first is None else self.first_part(x, train)

  def position(self, e: int, x: Map, op: Op, train: bool = False) -> Map:
    """One choice, in the inner layout."""
    return self.choices[e](x, op, train)

  def head(self, x: Map, train: bool = False) -> Float[Array, 'B K']:
    """Map of the last position -> logits, float32."""
    return self.head_part(maps.relayout(x, self.layout, 'NHWC'), train)

  def used(self, params: Any, arch_E: Arch) -> Any:
    """Booleans by leaf: which parameters an architecture trains."""
    return used_by_choices(params, arch_E)


class Stem(nn.Module):
  """3x3 convolution to the trunk's channels."""

  features: int
  stride: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    x = Conv(self.features, stride=self.stride, dtype=self.dtype, name='conv')(
      x
    )
    return self.norm(name='norm')(x, train, 'relu')


class Head(nn.Module):
  """1x1 convolution, average over the map, linear layer in float32."""

  features: int
  classes: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Float[Array, 'B K']:
    x = Pointwise(self.features, dtype=self.dtype, name='conv')(x)
    x_BxC = self.norm(name='norm').averaged(x, train)
    return Linear(self.classes, name='linear')(x_BxC)
