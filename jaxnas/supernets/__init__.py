"""Supernets, one module a space, for a traced arch or a static one alone."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.nn import maps
from jaxnas.nn.choice import Arch
from jaxnas.nn.initial import draw
from jaxnas.nn.layers import Groups
from jaxnas.runtime.cache import per_net
from jaxnas.spaces import CellSpace, ChainSpace, PoolingSpace, Space
from jaxnas.supernets.chain import ChainNet
from jaxnas.supernets.mixture import Mixture as Mixture
from jaxnas.supernets.nas_bench_201 import CellNet
from jaxnas.supernets.network import Network as Network
from jaxnas.supernets.pooling import PoolingNet

NETS: dict[type[Space], Any] = {
  ChainSpace: ChainNet,
  CellSpace: CellNet,
  PoolingSpace: PoolingNet,
}

# Networks from outside the package, by the name of their space.
OWN: dict[str, Any] = {}


def build(
  space: Space,
  *,
  dtype: Any = jnp.float32,
  affine: bool = False,
  momentum: float | None = None,
  activation: str | None = None,
) -> nn.Module:
  """The network of a space.

  Called with a traced arch it is the supernet, one program for every
  architecture; with an arch of Python ints the stand-alone network. The
  supernet's batch normalisation has no parameters and no state by default;
  stand-alone networks want `affine` and the `momentum` of running statistics.
  `activation` replaces that of a chain's blocks.
  """
  options = {} if activation is None else {'activation': activation}
  make = OWN.get(space.name) or NETS[type(space)]
  return make(space, dtype, affine, momentum, **options)


@dataclasses.dataclass(frozen=True)
class StandAlone:
  """A net trained along one architecture, with a supernet's methods.

  Args:
    net: from `build`, with `affine` and `momentum`.
    arch: the architecture, of which alone parameters exist. None: the arch is
      an argument, one program serves all, and the others' parameters lie idle.
  """

  net: Any
  arch: tuple[int, ...] | None = None

  sequential: ClassVar[bool] = False

  @property
  def space(self) -> Space:
    return self.net.space

  @property
  def dtype(self) -> Any:
    return self.net.dtype

  def init(self, key: Any, x: Any, arch: Any, **options: Any) -> Any:
    return self.net.init(key, x, self.arch or arch, **options)

  def apply(self, variables: Any, x: Any, arch: Any, **options: Any) -> Any:
    return self.net.apply(variables, x, self.arch or arch, **options)

  def used(self, params: Any, arch_E: Arch) -> Any:
    if self.arch is None:
      return self.net.used(params, arch_E)
    return jax.tree.map(lambda leaf: jnp.bool_(True), params)


# Largest difference between logits of an image alone and in a batch, as a share
# of the largest logit.
TOLERANCE = 0.05


def check_alone(net: StandAlone) -> None:
  """Raises ValueError where an image's logits depend on the others of a batch.

  Such a network, normalised by the batch it is given, is accurate as long as it
  is tested in batches, and guesses in use. Only networks from outside of the
  package are looked at.
  """
  space = net.space
  if space.name not in OWN:
    return
  rng = np.random.default_rng(0)
  x_BxHxWxC = jnp.asarray(rng.normal(size=(4, *space.image_shape)), jnp.float32)
  archs_AxE = space.random(rng, 3) if net.arch is None else [net.arch]
  for arch in archs_AxE:
    arch = tuple(map(int, arch))
    alone = StandAlone(net.net, arch)
    variables = init(alone, arch, 0)
    together_BxK = alone.apply(variables, x_BxHxWxC, arch, train=False)
    one_1xK = alone.apply(variables, x_BxHxWxC[:1], arch, train=False)
    if one_1xK.shape != (1, space.classes):
      raise ValueError(
        f'the network of space {space.name} gives an array of shape '
        f'{one_1xK.shape} for one image; it must be (1, {space.classes}).'
      )
    difference = np.abs(together_BxK[0] - one_1xK[0]).max()
    # NaN is within nothing.
    if not difference <= TOLERANCE * np.abs(together_BxK).max():
      raise ValueError(
        f'the network of space {space.name} predicts an image otherwise alone '
        f'than in a batch ({space.format(np.array(arch))}: logits differ by '
        f'{difference:.2g}): normalise with self.norm() or self.block(), and '
        'pass train on to them.'
      )


def of_arch(net: Any, params: Any, arch: Any) -> tuple[Any, Any, Any]:
  """Net, parameters and arch without members: of a mixture, those of one."""
  if isinstance(net, Mixture):
    return net.of_arch(params, arch)
  return net, params, arch


def with_momentum(net: Any, momentum: float | None) -> Any:
  """Returns the same net with this momentum of running statistics, or none."""
  if isinstance(net, Mixture):
    return dataclasses.replace(net, net=with_momentum(net.net, momentum))
  return net.clone(momentum=momentum)


def in_groups(net: Any, groups: Groups) -> Any:
  """Returns the same net with batches divided so for normalisation."""
  if isinstance(net, Mixture | StandAlone):
    return dataclasses.replace(net, net=in_groups(net.net, groups))
  return net.clone(groups=groups)


def formulated(net: Any, backend: str) -> Any:
  """Returns the same net in the form that a backend computes fast.

  Any backend can compute it.

  Args:
    net: from `build`.
    backend: 'cpu', or another.
  """
  if isinstance(net, ChainNet):
    return net.clone(trunk=maps.trunk_layout(backend))
  return net


def init(net: Any, arch: tuple[int, ...] | Arch, seed: int) -> dict[str, Any]:
  """Fresh variables; a parameter's value is a function of its path.

  Args:
    net: from `build`.
    arch: any arch where the net is a supernet, a tuple of ints for the
      stand-alone network of that arch. Both hold the same values for the
      parameters that they share.
    seed: of the experiment.
  """
  return draw(_laws(net, arch), seed)


def shapes(net: Any, arch: tuple[int, ...] | Arch) -> dict[str, Any]:
  """Returns shapes of the variables that `init` gives, without drawing them."""
  return nn.meta.unbox(_laws(net, arch))


def _laws(net: Any, arch: tuple[int, ...] | Arch) -> Any:
  return _traced(net, arch if isinstance(arch, tuple) else len(arch))


@per_net
def _traced(net: Any, arch: tuple[int, ...] | int) -> Any:
  """Traced once a net, which takes seconds where it is large.

  Args:
    net: as in `init`.
    arch: of the stand-alone network; the length of a supernet's.
  """
  images = jnp.zeros((2, *net.space.image_shape))
  of = jnp.zeros(arch, jnp.int32) if isinstance(arch, int) else arch
  return jax.eval_shape(
    lambda: net.init(jax.random.key(0), images, of, train=True)
  )
