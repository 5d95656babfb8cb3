"""A sampler that always trains the architecture in its state."""

import jax.numpy as jnp

from jaxnas.samplers.base import Sampler


def fixed(positions: int) -> Sampler:
  """Trains the arch in its state, archs_1xE, in every step.

  The arch is data, so that one program serves all of them: put yours in place
  of the zeros that `init` returns.

  >>> fixed(4).init()
  Array([[0, 0, 0, 0]], dtype=int32)
  """
  return Sampler(
    init=lambda: jnp.zeros((1, positions), jnp.int32),
    sample=lambda archs_PxE, key: archs_PxE,
    log_prob=lambda archs_PxE: None,
  )
