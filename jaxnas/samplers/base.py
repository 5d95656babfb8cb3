"""The contract of a sampler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Sampler(NamedTuple):
  """Pure functions; the state is a pytree and is checkpointed.

  init: () -> state
  sample: (state, key) -> archs_PxE, the architectures of one step
  log_prob: (state) -> logp_A over the enumerated space
  """

  init: Callable[[], Any]
  sample: Callable[[Any, PRNGKeyArray], Int[Array, 'P E']]
  log_prob: Callable[[Any], Float[Array, ' A']]


def draw(
  key: PRNGKeyArray,
  logp_A: Float[Array, ' A'],
  archs_AxE: Int[Array, 'A E'],
  paths: int,
) -> Int[Array, 'P E']:
  """`paths` independent architectures with probabilities exp(logp_A)."""
  indices_P = jax.random.categorical(key, logp_A, shape=(paths,))
  return jnp.take(archs_AxE, indices_P, axis=0)
