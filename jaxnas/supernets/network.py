"""The base of networks that come from outside the package."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jaxnas.nn.blocks import Identity
from jaxnas.nn.choice import Arch, Choice, used_by_choices
from jaxnas.nn.layers import Conv, Groups, Linear, Norm
from jaxnas.nn.maps import Map
from jaxnas.spaces import Space

Maker = Callable[..., nn.Module]


class Network(nn.Module):
  """A supernet, and each stand-alone network, by one definition.

  A subclass defines `__call__(x_BxHxWxC, arch, *, train) -> logits_BxK`, with
  `nn.compact` or `setup`. Layers whose weights depend on the choice at position
  e stand in `self.choice(e, makers)`, which is called with `arch[e]`. Blocks
  and normalisation come from here: with those of Flax alone, networks trained
  alone would not keep the statistics that evaluation needs.
  """

  space: Space
  dtype: Any = jnp.float32
  affine: bool = False
  momentum: float | None = None
  groups: Groups = Groups()

  sequential: ClassVar[bool] = False
  """True where `stem`, `position` and `head` let a ranking share prefixes."""
  default_tensors: ClassVar[str] = 'all'
  """Gradients that densities compare, of the sets or a regular expression."""
  tensor_sets: ClassVar[dict[str, tuple[str, ...]]] = {}
  """Regular expressions over parameter paths, by name."""
  layers: ClassVar[tuple[str, ...]] = ()
  """Layers whose input `density.measure representational` can compare."""

  def norm(self, **fields: Any) -> Norm:
    """Returns batch normalisation; it is called with (x, train)."""
    return self._norm(**fields)

  def block(self, features: int, kernel: int = 3, stride: int = 1) -> Maker:
    """Returns what makes a convolution with normalisation and ReLU.

    The module made is called with (x, train).
    """
    return functools.partial(
      ConvBlock, features, kernel, stride, self._norm, self.dtype
    )

  def skip(self, features: int, stride: int = 1) -> Maker:
    """Returns what makes the identity.

    It is a strided 1x1 convolution where the shape changes.
    """
    return functools.partial(
      Identity, features, stride, self._norm, dtype=self.dtype
    )

  def choice(self, position: int, makers: Sequence[Maker]) -> Choice:
    """Returns the choice of a position; it is called with (x, op, train)."""
    return Choice(tuple(makers), name=f'position_{position}')

  def classify(self, x: Map, name: str = 'linear') -> Any:
    """Averages over the map, and returns float32 logits of a linear layer."""
    mean_BxD = x.astype(jnp.float32).mean((1, 2))
    return Linear(self.space.classes, name=name)(mean_BxD)

  def used(self, params: Any, arch_E: Arch) -> Any:
    """Booleans by leaf: which parameters an architecture trains."""
    return used_by_choices(params, arch_E)

  @property
  def _norm(self) -> Callable[..., Norm]:
    return functools.partial(
      Norm,
      self.affine,
      self.momentum,
      dtype=self.dtype,
      groups=self.groups,
    )


class ConvBlock(nn.Module):
  """A convolution, batch normalisation and ReLU."""

  features: int
  kernel: int
  stride: int
  make_norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    x = Conv(self.features, self.kernel, self.stride, self.dtype, name='conv')(
      x
    )
    return self.make_norm(name='norm')(x, train, 'relu')
