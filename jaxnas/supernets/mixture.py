"""Several supernets in one, of which an architecture takes one."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxnas.nn.choice import Arch
from jaxnas.spaces import Space


@dataclasses.dataclass(frozen=True)
class Mixture:
  """M supernets of the same definition, with a supernet's methods.

  Every leaf has a leading axis of M members. Archs have one position more
  than `space` has, the last: the member, 0 to M - 1. Members that an arch
  does not name get gradients of zero. Parameters and their gradients weigh M
  times what the supernet's do; a forward pass copies one member's.

  `supernets.init` draws the members from one law, each leaf as one array: the
  first is what the supernet alone starts from, and one member more shifts
  none.

  Args:
    net: from `supernets.build`.
    members: M.
  """

  net: Any
  members: int

  sequential: ClassVar[bool] = False

  @property
  def space(self) -> Space:
    """Space of the members: architectures without the last position."""
    return self.net.space

  @property
  def dtype(self) -> Any:
    return self.net.dtype

  @property
  def momentum(self) -> float | None:
    return self.net.momentum

  @property
  def default_tensors(self) -> str:
    return self.net.default_tensors

  @property
  def tensor_sets(self) -> dict[str, tuple[str, ...]]:
    return self.net.tensor_sets

  @property
  def layers(self) -> tuple[str, ...]:
    return self.net.layers

  def init(self, key: Any, x: Any, arch: Any, **options: Any) -> Any:
    return jax.vmap(lambda one: self.net.init(one, x, arch[:-1], **options))(
      jax.random.split(key, self.members)
    )

  def apply(self, variables: Any, x: Any, arch: Any, **options: Any) -> Any:
    """Applies the member that the arch names.

    Collections that it changes (`mutable`) come back with all members'
    values, those that it makes anew with its own.
    """
    member = arch[-1]
    out = self.net.apply(_of(variables, member), x, arch[:-1], **options)
    if not options.get('mutable'):
      return out
    result, changed = out
    return result, {
      name: _put(variables[name], part, member) if name in variables else part
      for name, part in changed.items()
    }

  def of_arch(self, params: Any, arch: Any) -> tuple[Any, Any, Any]:
    """The net, parameters and arch of the member that an arch names."""
    return self.net, _of(params, arch[-1]), arch[:-1]

  def used(self, params: Any, arch_E: Arch) -> Any:
    """Booleans by leaf that broadcast to it, along the members: (M, 1, ...)."""
    member = arch_E[-1]
    of_member = self.net.used(_of(params, member), arch_E[:-1])
    is_member_M = jnp.arange(self.members) == member

    def used(leaf, mask):
      shape = (self.members,) + (1,) * (leaf.ndim - 1)
      return is_member_M.reshape(shape) & mask

    return jax.tree.map(used, params, of_member)


def _of(variables: Any, member: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf[member], variables)


def _put(variables: Any, part: Any, member: Any) -> Any:
  return jax.tree.map(
    lambda leaf, new: leaf.at[member].set(new), variables, part
  )
