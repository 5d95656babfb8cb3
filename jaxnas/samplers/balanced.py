"""Complexity-balanced sampling: a level of complexity first, then one of it.

Few architectures of a space are its most complex ones, so uniform sampling
rarely trains them. Here every level, as `Space.complexity` numbers them, has
the same probability, and so has every architecture within a level.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxnas.samplers.base import Sampler, listed
from jaxnas.spaces import ChainSpace, Space


def balanced(space: Space, *, paths: int = 1) -> Sampler:
  """Draws P(a) = 1 / (levels * architectures of a's level).

  Architectures without a level, which compute nothing, are not drawn. Takes
  O(A) a step, and O(P E) in a chain that is too large to list, where
  architectures of each number of blocks are counted.

  Args:
    space: the search space.
    paths: P, independent of each other.

  Raises ValueError where the space has no levels, or can neither be listed nor
  counted.

  >>> from jaxnas import spaces
  >>> sampler = balanced(spaces.get('digits'))
  >>> p_A = jnp.exp(sampler.log_prob(sampler.init()))
  >>> print(p_A[0].round(4), p_A[-1].round(4), p_A.sum().round(4))
  0.0101 0.0208 1.0
  """
  if space.enumerable:
    return _listed(space, paths)
  if isinstance(space, ChainSpace):
    return _counted(space, paths)
  raise ValueError(
    f'sampler.name balanced needs a space that can be listed, or a chain; '
    f'{space.name} has {space.size:.2g} architectures: choose another.'
  )


def _listed(space: Space, paths: int) -> Sampler:
  archs_AxE = space.enumerate()
  level_A = space.complexity(archs_AxE)
  has_A = level_A >= 0
  members = np.bincount(level_A[has_A])
  p_A = np.zeros(len(archs_AxE))
  p_A[has_A] = 1 / (np.count_nonzero(members) * members[level_A[has_A]])
  with np.errstate(divide='ignore'):
    logp_A = jnp.asarray(np.log(p_A), jnp.float32)
  return listed(archs_AxE, logp_A, paths)


def _counted(space: ChainSpace, paths: int) -> Sampler:
  """Draws the number of blocks first, then which positions have them."""
  depth_p_K, block_p_ExK = depth_tables(space)
  with np.errstate(divide='ignore'):
    depth_logp_K = jnp.asarray(np.log(depth_p_K), jnp.float32)
  chances_ExK = jnp.asarray(block_p_ExK, jnp.float32)
  ops_Ex2xO = jnp.asarray(
    [
      [_filled(ops, max(space.counts)) for ops in kinds]
      for kinds in space.kinds
    ]
  )
  counts_Ex2 = jnp.asarray([[*map(len, kinds)] for kinds in space.kinds])

  def sample_one(key):
    depth_key, kind_key, op_key = jax.random.split(key, 3)
    share_E = jax.random.uniform(kind_key, (space.positions,))

    def position(left, given):
      share, chance_K, counts_2, ops_2xO, op_key = given
      # Row 0 of a position has its blocks, row 1 its identities.
      row = jnp.where(share < chance_K[left], 0, 1)
      op = jax.random.randint(op_key, (), 0, counts_2[row])
      return left - (1 - row), ops_2xO[row, op]

    depth = jax.random.categorical(depth_key, depth_logp_K)
    op_keys_E = jax.random.split(op_key, space.positions)
    _, arch_E = jax.lax.scan(
      position, depth, (share_E, chances_ExK, counts_Ex2, ops_Ex2xO, op_keys_E)
    )
    return arch_E.astype(jnp.int32)

  def sample(state, key):
    del state
    return jax.vmap(sample_one)(jax.random.split(key, paths))

  return Sampler(init=tuple, sample=sample, log_prob=lambda state: None)


def depth_tables(
  space: ChainSpace,
) -> tuple[Float[np.ndarray, ' K'], Float[np.ndarray, 'E K']]:
  """Counts architectures by their number of blocks, exactly, in O(E^2).

  Returns:
    depth_p_K: the probability that an architecture has k blocks, for k = 0
      to E.
    block_p_ExK: the probability that a position is a block where it and those
      after it have k blocks together.
  """
  positions = space.positions
  # ways[e][k]: how to fill the positions from e on with k blocks. Python's
  # integers are exact: there are 2e23 networks in the MobileNet space.
  ways = [[0] * (positions + 1) for _ in range(positions + 1)]
  ways[positions][0] = 1
  block_p_ExK = np.zeros((positions, positions + 1))
  for e, (blocks, others) in reversed([*enumerate(space.kinds)]):
    for k in range(positions + 1):
      as_block = len(blocks) * ways[e + 1][k - 1] if k else 0
      ways[e][k] = as_block + len(others) * ways[e + 1][k]
      block_p_ExK[e, k] = as_block / max(ways[e][k], 1)
  level_K = space.level(np.arange(positions + 1)).tolist()
  total = dict.fromkeys(level_K, 0)
  for level, count in zip(level_K, ways[0], strict=True):
    total[level] += count
  levels = sum(count > 0 for count in total.values())
  depth_p_K = [
    count / max(total[level], 1) / levels
    for level, count in zip(level_K, ways[0], strict=True)
  ]
  return np.array(depth_p_K), block_p_ExK


def _filled(ops: list[int], length: int) -> list[int]:
  return [*ops, *[0] * (length - len(ops))]
