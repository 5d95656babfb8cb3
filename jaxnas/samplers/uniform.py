"""Uniform single-path sampling (SPOS, Guo et al. 2020)."""

import math

import jax
import jax.numpy as jnp

from jaxnas.samplers.base import Sampler, listed
from jaxnas.spaces import Space


def uniform(space: Space, *, paths: int = 1) -> Sampler:
  """Draws `paths` architectures a step, each with probability 1/A.

  Where the space is too large to list, every position draws its op alone. O(A)
  a step, O(P E) where the space is not listed.

  Args:
    space: the search space.
    paths: P, independent of each other.

  >>> from jaxnas import spaces
  >>> sampler = uniform(spaces.get('pooling'))
  >>> p_A = jnp.exp(sampler.log_prob(sampler.init()))
  >>> print(p_A[:2].round(4), p_A.sum().round(4))
  [0.0278 0.0278] 1.0
  """
  if not space.enumerable:
    counts_E = jnp.asarray(space.counts)

    def sample_ops(state, key):
      del state
      return jax.random.randint(key, (paths, len(counts_E)), 0, counts_E)

    return Sampler(init=tuple, sample=sample_ops, log_prob=lambda state: None)

  archs_AxE = space.enumerate()
  logp_A = jnp.full(len(archs_AxE), -math.log(len(archs_AxE)), jnp.float32)
  return listed(archs_AxE, logp_A, paths)
