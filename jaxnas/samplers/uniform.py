"""Uniform single-path sampling (SPOS, Guo et al. 2020)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas.samplers.base import Sampler, draw
from jaxnas.spaces import Space


def uniform(
  space: Space, *, paths: int = 1, cost_bins: int | None = None
) -> Sampler:
  """Every architecture with probability 1/A, `paths` of them a step.

  Where the space is too large to list, every position draws its op alone.
  With cost bins, P(a) = 1 / (bins * architectures in the bin of a): SPOS's
  own code draws a bin of multiply-adds, seven from 290M to 360M, then
  architectures until one lies in it. That here the bins span the whole space
  and empty ones are left out is inferred; nothing is rejected, which gives the
  same distribution. O(A) a step, O(P E) where the space is not listed.

  Args:
    space: whose architectures.
    paths: P, independent of each other.
    cost_bins: of equal width, from the fewest multiply-adds to the most; None:
      whatever they cost.

  Raises ValueError where bins are asked for and the space can't be listed.

  >>> from jaxnas import spaces
  >>> sampler = uniform(spaces.get('pooling'), cost_bins=2)
  >>> p_A = jnp.exp(sampler.log_prob(sampler.init()))
  >>> print(p_A[::35].round(4), p_A.sum().round(4))
  [0.0156 0.125 ] 1.0
  """
  if not space.enumerable:
    if cost_bins is not None:
      raise ValueError(
        'sampler.cost_bins needs a space that can be listed; '
        f'{space.name} has {space.size:.2g} architectures.'
      )
    counts_E = jnp.asarray(space.counts)

    def sample_ops(state, key):
      del state
      return jax.random.randint(key, (paths, len(counts_E)), 0, counts_E)

    return Sampler(init=tuple, sample=sample_ops, log_prob=lambda state: None)

  archs_AxE = space.enumerate()
  all_AxE = jnp.asarray(archs_AxE)
  weight_A = np.ones(len(archs_AxE))
  if cost_bins is not None:
    weight_A = _per_bin(space.costs(archs_AxE).macs_A, cost_bins)
  total = math.log(weight_A.sum())
  logp_A = jnp.asarray(np.log(weight_A) - total, jnp.float32)

  def log_prob(state):
    del state
    return logp_A

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  return Sampler(init=tuple, sample=sample, log_prob=log_prob)


def _per_bin(
  macs_A: Int[np.ndarray, ' A'], bins: int
) -> Float[np.ndarray, ' A']:
  """1 / architectures in the same bin."""
  if bins < 1:
    raise ValueError(f'sampler.cost_bins {bins} must be at least 1, or None.')
  # In integers, which put a cost on a bin's edge into the upper one exactly.
  above_A = macs_A - macs_A.min()
  bin_A = np.minimum(above_A * bins // max(above_A.max(), 1), bins - 1)
  return 1 / np.bincount(bin_A)[bin_A]
