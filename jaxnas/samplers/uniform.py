"""Uniform single-path sampling (SPOS, Guo et al. 2020)."""

import math

import jax
import jax.numpy as jnp

from jaxnas.samplers.base import Sampler, draw
from jaxnas.spaces import Space


def uniform(space: Space, *, paths: int = 1) -> Sampler:
  """Every architecture with probability 1/A, `paths` of them a step.

  Where the space is too large to list, every position draws its op alone.
  """
  if not space.enumerable:
    counts_E = jnp.asarray(space.counts)

    def sample_ops(state, key):
      del state
      return jax.random.randint(key, (paths, len(counts_E)), 0, counts_E)

    return Sampler(init=tuple, sample=sample_ops, log_prob=lambda state: None)

  all_AxE = jnp.asarray(space.enumerate())
  count = len(all_AxE)

  def log_prob(state):
    del state
    return jnp.full(count, -math.log(count), jnp.float32)

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  return Sampler(init=tuple, sample=sample, log_prob=log_prob)
