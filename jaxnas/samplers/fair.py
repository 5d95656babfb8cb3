"""Strict fairness: each step trains every op of every position once."""

import math

import jax
import jax.numpy as jnp

from jaxnas.samplers.base import Sampler
from jaxnas.spaces import Space


def fair(space: Space, *, paths: int = 1) -> Sampler:
  """Trains m paths a step that share no op, where each position has m ops.

  FairNAS (Chu et al. 2021): every position draws a random permutation of its
  m ops, path j takes the j-th of each, and the gradients of the m paths are
  summed into one update (stated). So each path alone is uniform, and a step
  costs as much as m steps of `uniform`: compare the two at equal compute.
  O(m E) a step.

  Args:
    space: has m ops at every position and allows all their combinations.
    paths: m, or 1, which stands for m.

  Raises ValueError for other spaces and other numbers of paths.

  >>> from jaxnas import spaces
  >>> sampler = fair(spaces.get('digits'))
  >>> archs_PxE = sampler.sample(sampler.init(), jax.random.key(0))
  >>> print(jnp.sort(archs_PxE, axis=0))
  [[0 0 0 0]
   [1 1 1 1]
   [2 2 2 2]]
  """
  ops, most = min(space.counts), max(space.counts)
  if ops != most:
    raise ValueError(
      f'sampler fair needs as many ops at every position; {space.name} has '
      f'{ops} to {most}: choose another sampler.'
    )
  if space.size != math.prod(space.counts):
    raise ValueError(
      f'sampler fair combines ops freely; {space.name} allows only '
      f'{space.size} of {math.prod(space.counts)} combinations: choose '
      'another sampler.'
    )
  if paths not in (1, ops):
    raise ValueError(
      f'sampler.paths {paths}: fair trains the {ops} ops of each position of '
      f'{space.name} in one step; set 1 or {ops}.'
    )
  ops_PxE = jnp.tile(jnp.arange(ops, dtype=jnp.int32)[:, None], space.positions)

  def sample(state, key):
    del state
    return jax.random.permutation(key, ops_PxE, axis=0, independent=True)

  def log_prob(state):
    """Distribution of each path alone."""
    del state
    if not space.enumerable:
      return None
    return jnp.full(space.size, -math.log(space.size), jnp.float32)

  return Sampler(init=tuple, sample=sample, log_prob=log_prob, together=True)
