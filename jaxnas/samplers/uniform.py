"""Uniform single-path sampling (SPOS, Guo et al. 2020)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxnas.samplers.base import Sampler, draw


def uniform(archs_AxE: Int[np.ndarray, 'A E'], *, paths: int = 1) -> Sampler:
  """Every architecture with probability 1/A, `paths` of them a step."""
  all_AxE = jnp.asarray(archs_AxE)
  count = len(archs_AxE)

  def log_prob(state):
    del state
    return jnp.full(count, -math.log(count), jnp.float32)

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  return Sampler(init=tuple, sample=sample, log_prob=log_prob)
