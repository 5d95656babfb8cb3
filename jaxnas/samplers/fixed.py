"""Architectures that somebody else chooses."""

import jax.numpy as jnp

from jaxnas.samplers.base import Sampler


def fixed(positions: int) -> Sampler:
  """The state is archs_1xE, what every step trains: data, so that one program
  serves all architectures. Put one in place of the zeros of `init`.

  >>> fixed(4).init()
  Array([[0, 0, 0, 0]], dtype=int32)
  """
  return Sampler(
    init=lambda: jnp.zeros((1, positions), jnp.int32),
    sample=lambda archs_PxE, key: archs_PxE,
    log_prob=lambda archs_PxE: None,
  )
