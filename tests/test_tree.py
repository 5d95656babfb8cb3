"""Tree sampling against recursive walks in Python, with dicts and lists."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.samplers.base import Feedback
from jaxnas.samplers.tree import (
  VARIANTS,
  best,
  rebuild,
  rebuild_from_outputs,
  tree,
)
from jaxnas.samplers.tree_building import from_merges, halves, prefixes

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()
TINY = dataclasses.replace(DIGITS, ops=(('a', 'b'), ('a', 'b')))
NAN = float('nan')


def trained(sampler, state, archs_TxE, reward_T):
  update = jax.jit(sampler.update)
  for arch_E, reward in zip(archs_TxE, reward_T, strict=True):
    state = update(
      state, Feedback(jnp.asarray(arch_E), None, jnp.float32(reward))
    )
  return state


def some_rewards(archs_AxE, seed=0, count=60):
  """Visits to architectures, a third of which measure nothing."""
  rng = np.random.default_rng(seed)
  archs_TxE = archs_AxE[rng.integers(0, len(archs_AxE), count)]
  reward_T = rng.uniform(0.2, 0.9, count)
  reward_T[rng.random(count) < 1 / 3] = NAN
  return archs_TxE, reward_T


def built(space, variant, seed=1):
  """A sampler, its first state, and one whose tree has been built."""
  sampler = tree(space, variant=variant, paths=3)
  state = sampler.init()
  rng = np.random.default_rng(seed)
  if variant == 'iterative':
    return sampler, state, rebuild(state, rng.random(space.size))
  if variant == 'hierarchical':
    return (
      sampler,
      state,
      rebuild_from_outputs(state, rng.normal(size=(space.size, 4))),
    )
  return sampler, state, state


def p_by_walking(archs_AxE, archs_TxE, reward_T, priority=0.0):
  """Probabilities of the prefix tree at C = 0.8 and T = 0.5, by recursion."""
  archs = [tuple(row) for row in archs_AxE.tolist()]
  n, r, by_op = {}, {}, {}
  for row, reward in zip(archs_TxE.tolist(), reward_T.tolist(), strict=True):
    for e, op in enumerate(row):
      prefix = tuple(row[: e + 1])
      n[prefix] = n.get(prefix, 0) + 1
      if not math.isnan(reward):
        r[prefix] = 0.95 * r.get(prefix, 0) + 0.05 * reward
        by_op.setdefault((e, op), []).append(reward)
  n[()] = len(archs_TxE)
  out = {}

  def visit(prefix, p):
    if len(prefix) == len(archs[0]):
      out[prefix] = p
      return
    e = len(prefix)
    branches = sorted({arch[: e + 1] for arch in archs if arch[:e] == prefix})
    weights = []
    for branch in branches:
      uct = r.get(branch, 0) + 0.8 * math.sqrt(
        math.log(1 + n.get(prefix, 0)) / (1 + n.get(branch, 0))
      )
      rewards = by_op.get((e, branch[-1]), [0])
      uct += priority * sum(rewards) / len(rewards)
      weights.append(math.exp(uct / 0.5))
    for branch, weight in zip(branches, weights, strict=True):
      visit(branch, p * weight / sum(weights))

  visit((), 1.0)
  return [out[arch] for arch in archs]


@pytest.mark.parametrize('name', ['digits', 'pooling'])
@pytest.mark.parametrize(
  ('variant', 'priority'), [('default', 0.0), ('prioritized', 1.7)]
)
def test_equals_the_recursive_walk(name, variant, priority):
  space = spaces.get(name)
  archs_AxE = space.enumerate()
  sampler = tree(
    space, variant=variant, exploration=0.8, temperature=0.5, priority=1.7
  )
  visits = some_rewards(archs_AxE)
  state = trained(sampler, sampler.init(), *visits)
  np.testing.assert_allclose(
    np.exp(sampler.log_prob(state)),
    p_by_walking(archs_AxE, *visits, priority),
    rtol=1e-5,
  )


def test_a_trace_by_hand():
  sampler = tree(TINY, variant='prioritized')
  state = sampler.init()
  assert state.tree.node_AxL.tolist() == [[0, 2], [0, 3], [1, 4], [1, 5]]
  assert state.tree.parent_N.tolist() == [6, 6, 0, 0, 1, 1]
  state = trained(
    sampler, state, np.array([[0, 1], [1, 1], [0, 1]]), [1.0, 0.4, NAN]
  )
  state = trained(sampler, state, np.array([[0, 0]]), [0.6])
  assert state.visits_N.tolist() == [3, 1, 1, 2, 0, 1]
  np.testing.assert_allclose(
    state.value_N, [0.95 * 0.05 + 0.03, 0.02, 0.03, 0.05, 0, 0.02], rtol=1e-6
  )
  np.testing.assert_allclose(
    state.ops.mean_ExO, [[0.8, 0.4], [0.6, 0.7]], rtol=1e-6
  )


@pytest.mark.parametrize('variant', VARIANTS)
def test_without_a_reward_only_visits_move(variant):
  sampler, _, state = built(DIGITS, variant)
  before = trained(sampler, state, *some_rewards(ARCHS_AxE))
  after = trained(sampler, before, ARCHS_AxE[40:41], [NAN])
  np.testing.assert_array_equal(after.value_N, before.value_N)
  jax.tree.map(np.testing.assert_array_equal, after.ops, before.ops)
  path_L = np.unique(before.tree.node_AxL[40])
  expected_N = np.asarray(before.visits_N).copy()
  expected_N[path_L] += 1
  np.testing.assert_array_equal(after.visits_N, expected_N)


@pytest.mark.parametrize('name', ['digits', 'pooling', 'nas_bench_macro'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_probabilities_sum_to_one(name, variant):
  space = spaces.get(name)
  sampler, first, state = built(space, variant)
  log_prob = jax.jit(sampler.log_prob)
  visits = some_rewards(space.enumerate(), count=5)
  for given in (first, state, trained(sampler, state, *visits)):
    p_A = np.exp(np.asarray(log_prob(given), np.float64))
    assert p_A.shape == (space.size,)
    assert p_A.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('variant', ['prioritized', 'hierarchical'])
def test_frequencies_follow_the_probabilities(variant):
  _, _, state = built(DIGITS, variant)
  sampler = tree(
    DIGITS, variant=variant, paths=20_000, exploration=3.0, temperature=0.3
  )
  state = trained(sampler, state, *some_rewards(ARCHS_AxE))
  drawn_P = DIGITS.index(np.asarray(sampler.sample(state, jax.random.key(0))))
  share_A = np.bincount(drawn_P, minlength=81) / 20_000
  p_A = np.exp(np.asarray(sampler.log_prob(state), np.float64))
  assert p_A.max() > 2 / 81
  # Five standard errors.
  assert (abs(share_A - p_A) < 5 * np.sqrt(p_A / 20_000)).all()


@pytest.mark.parametrize('variant', ['iterative', 'hierarchical'])
def test_uniform_until_built_whatever_it_learns(variant):
  sampler, first, state = built(DIGITS, variant)
  visits = some_rewards(ARCHS_AxE)
  warm = trained(sampler, first, *visits)
  np.testing.assert_allclose(np.exp(sampler.log_prob(warm)), 1 / 81, rtol=1e-6)
  assert np.ptp(sampler.log_prob(trained(sampler, state, *visits))) > 0.1


@pytest.mark.parametrize('variant', ['iterative', 'hierarchical'])
def test_a_rebuilt_tree_compiles_nothing(variant):
  sampler, first, state = built(DIGITS, variant)
  traces = []

  @jax.jit
  def step(state, key):
    traces.append(1)
    archs_PxE = sampler.sample(state, key)
    return sampler.update(state, Feedback(archs_PxE[0], None, jnp.float32(0.5)))

  for given in (first, state, built(DIGITS, variant, seed=2)[2]):
    step(step(given, jax.random.key(0)), jax.random.key(1))
  assert len(traces) == 1


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_state_is_arrays_of_one_shape(variant):
  sampler, first, state = built(DIGITS, variant)
  state = trained(sampler, state, ARCHS_AxE[:2], [0.5, NAN])
  shapes = []
  for given in (first, state):
    leaves = jax.tree.leaves(given)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    shapes.append([(x.shape, x.dtype, x.weak_type) for x in leaves])
  assert shapes[0] == shapes[1]


def under(state, node):
  """Architectures whose path passes through a node."""
  passes_AxL = np.asarray(state.tree.node_AxL) == node
  return set(np.flatnonzero(passes_AxL.any(axis=1)).tolist())


def children(state, node):
  return np.flatnonzero(np.asarray(state.tree.parent_N) == node).tolist()


def test_iterative_halves_the_ranking():
  accuracy_A = np.random.default_rng(3).permutation(81) / 100
  sampler, first, _ = built(DIGITS, 'iterative')
  state = rebuild(trained(sampler, first, ARCHS_AxE[:3], [0.1] * 3), accuracy_A)
  assert state.tree.node_AxL.shape == (81, 7)
  assert state.tree.parent_N.shape == (160,)
  assert not np.asarray(state.visits_N).any()

  def spans(node, ranks):
    """Checks a node of these ranks, and all below it."""
    archs = under(state, node)
    assert sorted((accuracy_A[[*archs]] * 100).round()) == [*ranks]
    mean = np.mean(ranks) / 100
    assert float(state.value_N[node]) == pytest.approx(mean, rel=1e-5)
    if len(ranks) == 1:
      assert children(state, node) == []
      return
    check(node, ranks)

  def check(node, ranks):
    middle = len(ranks) // 2
    worse, better = sorted(
      children(state, node), key=lambda child: state.value_N[child]
    )
    spans(worse, ranks[:middle])
    spans(better, ranks[middle:])

  check(160, range(81))


def test_iterative_prefers_what_scored_better():
  accuracy_A = np.random.default_rng(3).random(81)
  sampler, first, _ = built(DIGITS, 'iterative')
  state = rebuild(first, accuracy_A)
  p_A = np.asarray(sampler.log_prob(state))[np.argsort(accuracy_A)]
  assert p_A[:40].max() < p_A[40:].max()
  assert p_A[:40].mean() < p_A[40:].mean()
  assert best(state) == accuracy_A.argmax()


def test_separated_outputs_part_at_the_root():
  rng = np.random.default_rng(0)
  group_A = rng.random(81) < 0.3
  outputs_AxD = rng.normal(size=(81, 5)) + 100 * group_A[:, None]
  _, first, _ = built(DIGITS, 'hierarchical')
  state = rebuild_from_outputs(first, outputs_AxD)
  groups = [under(state, child) for child in children(state, 160)]
  expected = [set(np.flatnonzero(group_A == one)) for one in (False, True)]
  assert groups in (expected, expected[::-1])


def chain(count):
  """Merges that add one architecture after the other: depth count - 1."""
  nodes = count + np.arange(count - 1)
  return np.stack([np.append(0, nodes[:-1]), np.arange(1, count)], axis=1)


@pytest.mark.parametrize('levels', [1, 2, 5, 11, 12, 15])
def test_flattening_keeps_every_leaf_once(levels):
  built = from_merges(chain(12), levels)
  node_AxL, parent_N = map(np.asarray, built)
  assert node_AxL.shape == (12, levels)
  np.testing.assert_array_equal(node_AxL[:, -1], np.arange(12))
  paths = [list(dict.fromkeys(row)) for row in node_AxL.tolist()]
  for a, path in enumerate(paths):
    assert path[-1] == a
    assert [parent_N[node] for node in path] == [22, *path[:-1]]
    # Architecture 11 joins last, at the root; the rest stay together.
    assert len(path) == min(12 - max(a, 1), levels)
  used = {node for path in paths for node in path}
  for node in set(range(22)) - used:
    assert parent_N[node] == node
  assert (np.bincount(parent_N)[22] == 2) == (levels > 1)


def test_halves_are_as_shallow_as_can_be():
  for count in (2, 3, 7, 8, 9):
    levels = math.ceil(math.log2(count))
    cut, deeper = (
      from_merges(halves(np.arange(float(count))), n)
      for n in (levels, levels + 3)
    )
    np.testing.assert_array_equal(cut.parent_N, deeper.parent_N)
    np.testing.assert_array_equal(
      np.tile(np.asarray(cut.node_AxL)[:, -1:], 3),
      deeper.node_AxL[:, levels:],
    )


def test_prefixes_of_any_order_and_of_no_product():
  archs_AxE = np.array([[2, 0, 1], [0, 1, 1], [2, 0, 0], [2, 1, 1]], np.int32)
  node_AxL, parent_N = prefixes(archs_AxE)
  assert node_AxL.tolist() == [[1, 3, 7], [0, 2, 5], [1, 3, 6], [1, 4, 8]]
  assert parent_N.tolist() == [9, 9, 0, 1, 1, 2, 3, 3, 4]


def test_best_follows_the_branches_not_the_leaves():
  sampler = tree(TINY)
  # The first op does better on the whole, the best leaf is elsewhere.
  state = sampler.init()._replace(
    value_N=jnp.array([0.6, 0.5, 0.3, 0.7, 0.9, 0.1])
  )
  assert best(state) == 1


@pytest.mark.parametrize(
  ('space', 'variant', 'says'),
  [
    ('mobilenet', 'default', r'can be listed; mobilenet has 2.5e\+23 arch'),
    ('nas_bench_201', 'hierarchical', 'nas_bench_201 has 15,625: use variant'),
    ('digits', 'beam', "no variant 'beam'; there are default, prioritized"),
  ],
)
def test_refuses_in_one_line(space, variant, says):
  with pytest.raises(ValueError, match=says) as error:
    tree(spaces.get(space), variant=variant)
  assert '\n' not in str(error.value)


def test_a_tree_of_ops_is_not_rebuilt():
  with pytest.raises(ValueError, match='120 nodes cannot be rebuilt with 160'):
    rebuild(tree(DIGITS).init(), np.arange(81.0))
