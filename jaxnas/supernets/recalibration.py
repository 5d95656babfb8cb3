"""Statistics of batch normalisation, measured for one architecture at a time.

The third way to evaluate an architecture under shared weights (SPOS, Guo et
al. 2020): statistics are reset, averaged over some training batches, each
counting alike, and frozen.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas import supernets

Statistics = Any


def statistics(
  net: Any,
  params: Any,
  arch_E: Int[Array, ' E'],
  images_NxBxHxWxC: Float[Array, 'N B H W C'],
) -> Statistics:
  """Mean over N batches of their statistics; unused ops have zeros.

  Args:
    net: a supernet.
    params: its shared weights.
    arch_E: as the net takes it.
    images_NxBxHxWxC: prepared training images, without augmentation.
  """
  alone, params, arch_E = supernets.of_arch(net, params, arch_E)
  measuring = supernets.with_momentum(alone, 1.0)
  shapes = supernets.shapes(measuring, arch_E)['batch_stats']
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

  def add(total, x_BxHxWxC):
    _, changed = measuring.apply(
      {'params': params, 'batch_stats': zeros},
      x_BxHxWxC,
      arch_E,
      train=True,
      mutable=['batch_stats'],
    )
    return jax.tree.map(jnp.add, total, changed['batch_stats']), None

  total, _ = jax.lax.scan(add, zeros, images_NxBxHxWxC)
  return jax.tree.map(lambda leaf: leaf / len(images_NxBxHxWxC), total)


def logits(
  net: Any,
  params: Any,
  frozen: Statistics,
  x_BxHxWxC: Float[Array, 'B H W C'],
  arch_E: Int[Array, ' E'],
) -> Float[Array, 'B K']:
  """Logits of an architecture, normalised by frozen statistics."""
  alone, params, arch_E = supernets.of_arch(net, params, arch_E)
  return supernets.with_momentum(alone, 1.0).apply(
    {'params': params, 'batch_stats': frozen}, x_BxHxWxC, arch_E, train=False
  )
