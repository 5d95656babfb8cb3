"""The supernet and stand-alone networks of NAS-Bench-201."""

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn.blocks import (
  AveragedProjection,
  AveragePool,
  BasicBlock,
  Identity,
  ReluConvNorm,
  Zero,
)
from jaxnas.nn.choice import Arch, Choice, used_by_choices
from jaxnas.nn.layers import Conv, Groups, Linear, Norm
from jaxnas.nn.maps import Map
from jaxnas.spaces import CellSpace
from jaxnas.spaces.nas_bench_201 import EDGES, NODES


class CellNet(nn.Module):
  """Three stages of equal cells, residual blocks of stride 2 between them.

  One arch is every cell's, each with weights of its own. The cells of a stage
  are scanned over, so that they are compiled once; their parameters have the
  cell as leading axis. On 2 cores of an AMD EPYC a training step takes 2.3 s
  to trace and 3.1 s to compile.

  Named tensor sets: 'deep' is what every architecture uses behind most
  choices, the last residual block and the linear layer (inferred default of
  the paper where ops differ); 'early' the stem's convolution. Layers whose
  input can be read: those between the cells, and the linear layer.
  """

  space: CellSpace
  dtype: Any = jnp.float32
  affine: bool = False
  momentum: float | None = None
  groups: Groups = Groups()

  sequential: ClassVar[bool] = False
  default_tensors: ClassVar[str] = 'deep'
  tensor_sets: ClassVar[dict[str, tuple[str, ...]]] = {
    'deep': (r'reduce_2/.*kernel', 'linear/kernel'),
    'early': ('stem/kernel',),
  }
  layers: ClassVar[tuple[str, ...]] = ('reduce_1', 'reduce_2', 'linear')

  @nn.compact
  def __call__(
    self,
    x_BxHxWxC: Float[Array, 'B H W C'],
    arch: tuple[int | np.integer, ...] | Arch,
    *,
    train: bool,
  ) -> Float[Array, 'B K']:
    if not isinstance(arch, tuple):
      arch = jnp.asarray(arch)
    space, dtype = self.space, self.dtype
    norm = functools.partial(
      Norm, self.affine, self.momentum, dtype=dtype, groups=self.groups
    )
    x = Conv(space.channels, dtype=dtype, name='stem')(x_BxHxWxC)
    x = norm(name='stem_norm')(x, train)
    for stage, channels in enumerate(space.widths):
      if stage:
        x = BasicBlock(
          channels,
          functools.partial(AveragedProjection, channels, dtype),
          norm,
          stride=2,
          preactivate=True,
          dtype=dtype,
          name=f'reduce_{stage}',
        )(x, train)
      scan: Any = nn.scan  # its annotations know ints for axes only
      cells = scan(
        Cell,
        variable_axes={'params': 0, 'batch_stats': 0},
        split_rngs={'params': True},
        in_axes=(nn.broadcast, nn.broadcast),
        length=space.cells,
      )(channels, norm, dtype, name=f'cells_{stage}')
      x, _ = cells(x, arch, train)
    x_BxC = norm(name='last_norm').averaged(x, train)
    return Linear(space.classes, name='linear')(x_BxC)

  def used(self, params: Any, arch_E: Arch) -> Any:
    """Booleans by leaf: which parameters an architecture trains."""
    return used_by_choices(params, arch_E)


class Cell(nn.Module):
  """Nodes that sum what their edges bring; an edge is a choice."""

  features: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Map, arch: Any, train: bool) -> tuple[Map, None]:
    conv = functools.partial(
      ReluConvNorm, self.features, norm=self.norm, dtype=self.dtype
    )
    candidates = (
      Zero,
      functools.partial(Identity, self.features, 1, self.norm),
      functools.partial(conv, 1),
      functools.partial(conv, 3),
      AveragePool,
    )
    nodes = [x]
    for node in range(1, NODES):
      arriving = [
        Choice(candidates, name=f'position_{e}')(nodes[source], arch[e], train)
        for e, (source, target) in enumerate(EDGES)
        if target == node
      ]
      nodes.append(functools.reduce(jnp.add, arriving))
    return nodes[-1], None
