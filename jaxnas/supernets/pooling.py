"""The supernet and stand-alone networks of the pooling space."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn import pooling, uninitialised
from jaxnas.nn.blocks import BasicBlock, Identity
from jaxnas.nn.choice import Arch, switch
from jaxnas.nn.layers import Conv, Groups, Linear, Norm
from jaxnas.nn.maps import Map
from jaxnas.spaces import PoolingSpace


class PoolingNet(nn.Module):
  """ResNet20 whose pools move: every architecture uses every weight.

  Where the pools stand decides the resolution, and a program has fixed
  shapes. So one buffer a resolution (32, 16, 8 of CIFAR) is carried
  through the blocks; each block switches on which one is live, reads that,
  pools where the arch says so, and writes it or the next one. One program for
  all 36.

  Named tensor sets: 'authors' as in the authors' published analysis, the
  stem, the second convolution of every block and the linear layer; 'early'
  the stem and the first block; 'deep' the convolutions of the last three
  blocks. Layers whose input can be read: the linear layer.
  """

  space: PoolingSpace
  dtype: Any = jnp.float32
  affine: bool = False
  momentum: float | None = None
  groups: Groups = Groups()

  sequential: ClassVar[bool] = False
  default_tensors: ClassVar[str] = 'authors'
  tensor_sets: ClassVar[dict[str, tuple[str, ...]]] = {
    'authors': (
      'stem/kernel',
      r'block_\d+/conv2/kernel',
      'linear/kernel',
    ),
    'early': ('stem/kernel', r'block_1/conv\d/kernel'),
    'deep': (r'block_[789]/conv\d/kernel',),
  }
  layers: ClassVar[tuple[str, ...]] = ('linear',)

  def setup(self):
    norm = functools.partial(
      Norm,
      self.affine,
      self.momentum,
      dtype=self.dtype,
      groups=self.groups,
    )
    self.stem = Conv(self.space.stem, dtype=self.dtype, name='stem')
    self.stem_norm = norm(name='stem_norm')
    self.blocks = [
      BasicBlock(
        features,
        functools.partial(Identity, features, 1, norm, dtype=self.dtype),
        norm,
        dtype=self.dtype,
        name=f'block_{e + 1}',
      )
      for e, features in enumerate(self.space.channels)
    ]
    self.linear = Linear(self.space.classes, name='linear')

  def __call__(
    self,
    x_BxHxWxC: Float[Array, 'B H W C'],
    arch: tuple[int | np.integer, ...] | Arch,
    *,
    train: bool,
  ) -> Float[Array, 'B K']:
    x = self.stem_norm(self.stem(x_BxHxWxC), train, 'relu')
    if isinstance(arch, tuple) or self.is_initializing():
      for e in range(len(self.blocks)):
        if isinstance(arch, tuple) and arch[e]:
          x = pooling.max_pool(x)
        x = self.blocks[e](x, train)
      x_BxD = pooling.mean_of_map(x)
    else:
      x_BxD = self._any_arch(x, arch, train)
    return self.linear(x_BxD)

  def _any_arch(self, x: Map, arch_E: Arch, train: bool) -> Array:
    level_E = jnp.cumsum(arch_E)
    buffers, sides = {0: x}, x.shape[1:3]
    for e, cases in enumerate(self._cases()):
      # The case of (live buffer after the block, pool before it).
      table = np.zeros(np.max(cases, axis=0) + 1, np.int32)
      for index, case in enumerate(cases):
        table[case] = index
      levels = sorted({level for level, _ in cases})
      # Named as choices are, for those who read the compiled program.
      with jax.named_scope(f'position_{e}'):
        buffers = switch(
          self,
          jnp.asarray(table)[level_E[e], arch_E[e]],
          [
            functools.partial(
              _live_block, self.blocks[e], *case, sides, levels, train
            )
            for case in cases
          ],
          [self.blocks[e]],
          buffers,
        )
    # Every architecture has pooled as often by now.
    (x,) = buffers.values()
    return pooling.mean_of_map(x)

  def taken(self) -> list[list[float]]:
    """Shares of all architectures that take each branch of a block's switch."""
    archs_AxE = self.space.enumerate()
    case_AxEx2 = np.stack([archs_AxE.cumsum(axis=1), archs_AxE], axis=-1)
    return [
      [float((case_AxEx2[:, e] == case).all(axis=1).mean()) for case in cases]
      for e, cases in enumerate(self._cases())
    ]

  def _cases(self) -> list[list[tuple[int, int]]]:
    """For each block, the (level after it, pool before it) that can occur."""
    archs_AxE = self.space.enumerate()
    case_AxEx2 = np.stack([archs_AxE.cumsum(axis=1), archs_AxE], axis=-1)
    return [
      sorted(set(map(tuple, case_AxEx2[:, e].tolist())))
      for e in range(archs_AxE.shape[1])
    ]

  def used(self, params: Any, arch_E: Arch) -> Any:
    """Booleans by leaf: all true, whatever the arch."""
    del arch_E
    return jax.tree.map(lambda leaf: jnp.bool_(True), params)


def _live_block(
  block: nn.Module,
  level: int,
  pools: int,
  sides: tuple[int, int],
  levels: Sequence[int],
  train: bool,
  call: Callable[..., Map],
  buffers: dict[int, Map],
) -> dict[int, Map]:
  """A block on the live buffer; nothing reads the others."""
  dead = dict(buffers)
  x = dead.pop(level - pools)
  x = call(block, pooling.max_pool(x) if pools else x, train)
  batch, *_, channels = x.shape
  shapes = {
    other: (batch, *(side >> other for side in sides), channels)
    for other in levels
    if other != level
  }
  return {level: x, **uninitialised.replace(dead, shapes, x.dtype)}
