"""Monte-Carlo tree sampling: good branches are taken more often.

A walk takes branch i of a node with probability softmax(UCT(i) / T) among
siblings, UCT(i) = R(i) + C sqrt(ln n_parent / n_i). There n counts visits and R
is a moving average of validation accuracy, R <- 0.95 R + 0.05 reward.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.cluster.hierarchy import linkage

from jaxnas.samplers.base import Feedback, Measurements, Sampler, draw, index_of
from jaxnas.samplers.tree_building import (
  Tree,
  among_siblings,
  from_merges,
  halves,
  log_paths,
  prefixes,
)
from jaxnas.spaces import Space

VARIANTS = ('default', 'prioritized', 'iterative', 'hierarchical')

# b in R <- b R + (1 - b) reward.
MEMORY = 0.95

# Linkage compares all pairs.
TOO_MANY_TO_CLUSTER = 10_000


class OpRewards(NamedTuple):
  """Average reward of each op at each position, over all archs that have it."""

  mean_ExO: Float[Array, 'E O']
  count_ExO: Int[Array, 'E O']
  choice_N: Int[Array, ' N']
  """Index of the op that a node of the tree stands for, among all E O."""


class TreeState(NamedTuple):
  """The tree is data, so that a rebuilt one recompiles nothing."""

  tree: Tree
  visits_N: Int[Array, ' N']
  value_N: Float[Array, ' N']
  """R of each node."""
  built: Bool[Array, '']
  """False until the tree is built; until then draws are uniform."""
  ops: Any
  """`OpRewards` of the variant 'prioritized'; else empty."""


def tree(
  space: Space,
  *,
  paths: int = 1,
  variant: str = 'default',
  exploration: float = 1.0,
  temperature: float = 0.7,
  priority: float = 1.0,
) -> Sampler:
  """Draws `paths` independent walks from the root of a tree to its leaves.

  'default' (the baseline of Roshtkhari et al. 2025): a level for each position,
  a branch for each op.
  'prioritized' (Su et al. 2021): adds C2 G to UCT, G the average reward of that
  op at that position over all architectures. Their reward is a ratio of
  training losses, here it is accuracy as in the others; C2 = 1 is second-hand,
  and that G is a plain mean is inferred.
  'iterative' (Roshtkhari et al. 2025): a binary tree over the ranking. Draws
  are uniform until `rebuild` gets accuracies; the paper measures each on three
  validation batches and rebuilds up to four times.
  'hierarchical' (Roshtkhari et al. 2025b): the tree of agglomerative
  clustering of outputs. Draws are uniform until `rebuild_from_outputs`. That it
  serves spaces under 10,000 architectures is second-hand.

  UCT, b, C and T are stated. That n counts from one, so that a branch not yet
  visited has a finite UCT and the first draw is uniform among siblings, is
  inferred. A step that measures no reward is a visit and moves no average.
  Uniform branches do not make uniform architectures where siblings lead to
  different numbers of them: in 'pooling' the first draw takes one architecture
  with probability 1/4.

  Costs O(N + A L) a step and O(A E) an update. The number of levels L is E
  where they are positions, ceil(log2 A) for 'iterative' and four times that for
  'hierarchical'. N is 2 A - 2 where the tree is binary, and less than 2 A in a
  product of at least two ops a position.

  Args:
    space: one that can be listed.
    paths: P, walks in a step.
    variant: one of `VARIANTS`.
    exploration: C.
    temperature: T.
    priority: C2, read by 'prioritized' alone.

  Raises:
    ValueError: the space is too large, or there is no such variant.

  >>> from jaxnas import spaces
  >>> space = spaces.get('digits')
  >>> sampler = tree(space, exploration=0.0, temperature=0.1)
  >>> state = sampler.init()
  >>> good = Feedback(jnp.array([2, 0, 0, 0]), None, jnp.float32(0.9))
  >>> for _ in range(4):
  ...   state = sampler.update(state, good)
  >>> p_A = jnp.exp(sampler.log_prob(state))
  >>> f'{p_A[54]:.3f}', best(state)
  ('0.278', 54)
  """
  _check(space, variant)
  archs_AxE = space.enumerate()
  all_AxE, index = jnp.asarray(archs_AxE), index_of(space)
  by_op = variant in ('default', 'prioritized')
  first = (
    prefixes(archs_AxE) if by_op else _placeholder(len(archs_AxE), variant)
  )
  nodes = len(first.parent_N)
  ops: Any = ()
  if variant == 'prioritized':
    ops = _no_rewards(first, archs_AxE)

  def init():
    return TreeState(
      tree=first,
      visits_N=jnp.zeros(nodes, jnp.int32),
      value_N=jnp.zeros(nodes, jnp.float32),
      built=jnp.array(by_op),
      ops=ops,
    )

  def log_prob(state):
    parent_N = state.tree.parent_N
    visits_of_parent_N = among_siblings(
      jax.ops.segment_sum, state.visits_N, parent_N
    )
    uct_N = state.value_N + exploration * jnp.sqrt(
      jnp.log1p(visits_of_parent_N) / (1 + state.visits_N)
    )
    if variant == 'prioritized':
      uct_N += priority * state.ops.mean_ExO.reshape(-1)[state.ops.choice_N]
    logp_A = log_paths(state.tree, uct_N / temperature)
    return jnp.where(state.built, logp_A, -math.log(len(all_AxE)))

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  def update(state, feedback: Feedback):
    arch_E, reward = feedback.arch_E, feedback.reward
    path_L = state.tree.node_AxL[index(arch_E[None])[0]]
    old_L = state.value_N[path_L]
    new_L = MEMORY * old_L + (1 - MEMORY) * reward
    # A path that stays at its leaf sets the same value several times.
    state = state._replace(
      visits_N=state.visits_N.at[path_L].set(state.visits_N[path_L] + 1),
      value_N=state.value_N.at[path_L].set(
        jnp.where(jnp.isnan(reward), old_L, new_L)
      ),
    )
    if variant == 'prioritized':
      state = state._replace(ops=_with_reward(state.ops, arch_E, reward))
    return state

  return Sampler(
    init, sample, log_prob, update, rewards=True, rebuild=REBUILD.get(variant)
  )


def rebuild(state: TreeState, accuracy_A: Float[np.ndarray, ' A']) -> TreeState:
  """Builds the 'iterative' tree: a binary one over the ranking.

  Its leaves are the architectures in order of accuracy, split in halves again
  and again. Visits start from zero, and R of a node from the mean accuracy of
  its leaves (inferred). Runs on the host in O(A log A).
  """
  levels = state.tree.node_AxL.shape[1]
  ranked = from_merges(halves(accuracy_A), levels)
  node = np.asarray(ranked.node_AxL).reshape(-1)
  nodes = len(ranked.parent_N)
  # A leaf counts as often as its path stays there, which leaves its mean.
  total_N = np.bincount(node, np.repeat(accuracy_A, levels), nodes)
  count_N = np.bincount(node, minlength=nodes)
  return _replaced(state, ranked, total_N / np.maximum(count_N, 1))


def rebuild_from_outputs(
  state: TreeState, outputs_AxD: Float[np.ndarray, 'A D']
) -> TreeState:
  """Builds the 'hierarchical' tree: agglomerative clustering of outputs.

  Ward's linkage is inferred: average linkage splits single architectures off,
  which a walk then takes with probability 1/2. Inferred as well: the tree is
  cut at 4 ceil(log2 A) levels, where nodes have all their leaves as children,
  and visits and R start from zero. Runs on the host in O(A^2 D).
  """
  levels = state.tree.node_AxL.shape[1]
  merges_Mx2 = linkage(outputs_AxD, method='ward')[:, :2].astype(np.int64)
  clustered = from_merges(merges_Mx2, levels)
  return _replaced(state, clustered, np.zeros(len(clustered.parent_N)))


REBUILD: dict[str, Callable[[TreeState, Measurements], TreeState]] = {
  'iterative': lambda state, measurements: rebuild(
    state, measurements.accuracies()
  ),
  'hierarchical': lambda state, measurements: rebuild_from_outputs(
    state, measurements.outputs()
  ),
}


def best(state: TreeState) -> int:
  """Index of the arch at the end of the branches with the highest R: C = 0.

  Among siblings of equal R it takes the one that leads to the first arch.
  """
  node_AxL, value_N = np.asarray(state.tree.node_AxL), np.asarray(state.value_N)
  left_M = np.arange(len(node_AxL))
  for node_A in node_AxL.T:
    node_M = node_A[left_M]
    left_M = left_M[node_M == node_M[value_N[node_M].argmax()]]
  return int(left_M[0])


def _check(space: Space, variant: str) -> None:
  if variant not in VARIANTS:
    raise ValueError(
      f'sampler tree has no variant {variant!r}; there are '
      f'{", ".join(VARIANTS)}.'
    )
  if not space.enumerable:
    raise ValueError(
      f'sampler tree needs a space that can be listed; {space.name} has '
      f'{space.size:.2g} architectures.'
    )
  if variant == 'hierarchical' and space.size >= TOO_MANY_TO_CLUSTER:
    raise ValueError(
      f'sampler tree clusters fewer than {TOO_MANY_TO_CLUSTER:,} '
      f'architectures; {space.name} has {space.size:,}: use variant iterative.'
    )


def _placeholder(count: int, variant: str) -> Tree:
  """A tree for the warm-up, of the shape that a rebuilt one will have."""
  levels = math.ceil(math.log2(count))
  return from_merges(
    halves(np.arange(float(count))),
    4 * levels if variant == 'hierarchical' else levels,
  )


def _replaced(state: TreeState, built: Tree, value_N: np.ndarray) -> TreeState:
  if built.parent_N.shape != state.tree.parent_N.shape:
    raise ValueError(
      f'a tree of {len(state.tree.parent_N)} nodes cannot be rebuilt with '
      f'{len(built.parent_N)}: use variant iterative or hierarchical, and '
      'every architecture of the space.'
    )
  return state._replace(
    tree=built,
    visits_N=jnp.zeros(len(value_N), jnp.int32),
    value_N=jnp.asarray(value_N, jnp.float32),
    built=jnp.array(True),
  )


def _no_rewards(first: Tree, archs_AxE: np.ndarray) -> OpRewards:
  shape = archs_AxE.shape[1], int(archs_AxE.max()) + 1
  choice_N = np.empty(len(first.parent_N), np.int32)
  choice_N[np.asarray(first.node_AxL)] = (
    np.arange(shape[0]) * shape[1] + archs_AxE
  )
  return OpRewards(
    jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.asarray(choice_N)
  )


def _with_reward(ops: OpRewards, arch_E: Array, reward: Array) -> OpRewards:
  at = jnp.arange(len(arch_E)), arch_E
  measured = ~jnp.isnan(reward)
  count_ExO = ops.count_ExO.at[at].add(measured.astype(jnp.int32))
  # The count is zero only where nothing was measured.
  step_E = (reward - ops.mean_ExO[at]) / count_ExO[at]
  mean_ExO = ops.mean_ExO.at[at].add(jnp.where(measured, step_E, 0))
  return ops._replace(mean_ExO=mean_ExO, count_ExO=count_ExO)
