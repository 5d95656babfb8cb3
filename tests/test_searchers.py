"""Every searcher on every space that it takes, and what each does exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import searchers, spaces
from jaxnas.config.registry import SEARCHERS
from jaxnas.runtime import files
from jaxnas.runtime.rng import generator
from jaxnas.samplers.base import Feedback
from jaxnas.samplers.tree import best as best_branches
from jaxnas.samplers.tree import tree as tree_sampler
from jaxnas.searchers import Limits, State, base, pareto, selection
from jaxnas.searchers.draws import keys, listed
from jaxnas.searchers.evolution import crossed, mutated
from jaxnas.searchers.limits import costs, feasible

SMALL = {'population': 12, 'generations': 5, 'parents': 4}
# name: (searcher, options)
MADE = {
  'random': ('random', {'count': 30, 'population': 12}),
  'exhaustive': ('exhaustive', {'population': 2000}),
  **{
    f'evolution by {select}': ('evolution', {**SMALL, 'select': select})
    for select in selection.SELECTIONS
  },
  'shifting': ('shifting', SMALL),
  'tree': ('tree', {'walks': 12, 'generations': 5}),
  'prioritized': (
    'tree',
    {'walks': 12, 'generations': 5, 'variant': 'prioritized'},
  ),
}
LISTED_ONLY = ('exhaustive', 'tree', 'prioritized')
LIMITS = {
  'digits': Limits(4500, 35_000),
  'pooling': Limits(None, 60_000_000),
  'nas_bench_macro': Limits(1_700_000, 50_000_000),
  'nas_bench_201': Limits(400_000, None),
  'mobilenet': Limits(None, 330_000_000),
  'mobilenet_strict': Limits(4_500_000, 350_000_000),
}
PAIRS = [
  (name, on)
  for name in MADE
  for on in LIMITS
  if spaces.get(on).enumerable or name not in LISTED_ONLY
  # Which takes as long to compile as the other tree.
  if name != 'prioritized' or on in ('digits', 'pooling')
]
DIGITS, POOLING = spaces.get('digits'), spaces.get('pooling')
MACRO = spaces.get('nas_bench_macro')


def marked(pairs, fast):
  """Marks as slow the pairs that only repeat on a larger space."""
  return [
    pytest.param(name, on, marks=[] if on in fast else [pytest.mark.slow])
    for name, on in pairs
  ]


def make(name, on, limits=None):
  searcher, options = MADE[name]
  limits = LIMITS[on] if limits is None else limits
  return SEARCHERS.get(searcher)(spaces.get(on), limits, **options)


def planted(target_E):
  """An accuracy with this optimum, no ties near it, and no free lunch."""
  # Of integers, whose sums are exact.
  weight_E = len(target_E) + np.arange(len(target_E))

  def score(archs_NxE):
    return (archs_NxE == target_E) @ weight_E / weight_E.sum()

  return score


def target(on, limits=None):
  """An architecture within the limits, far from the first and the last."""
  space = spaces.get(on)
  limits = LIMITS[on] if limits is None else limits
  if not space.enumerable:
    return np.arange(space.positions) % 2
  archs_AxE = listed(space, limits)
  return archs_AxE[2 * len(archs_AxE) // 3]


@functools.cache
def ran(name, on):
  """The search, its states after each generation, and calls of the score."""
  states, calls, score = [], [], planted(target(on))

  def heard(archs_NxE):
    calls.append(archs_NxE)
    return score(archs_NxE)

  searcher = make(name, on)
  end = searchers.run(searcher, heard, seed=3, save=states.append)
  return searcher, end, states, calls


@pytest.mark.parametrize(('name', 'on'), marked(PAIRS, ('digits', 'mobilenet')))
def test_candidates_are_valid_within_limits_and_scored_once(name, on):
  searcher, end, states, calls = ran(name, on)
  space = spaces.get(on)
  archs_VxE = np.concatenate(calls)
  assert archs_VxE.dtype == end.archs_VxE.dtype == np.int32
  space.validate(archs_VxE)
  assert feasible(space, LIMITS[on], archs_VxE).all()
  assert end is states[-1]
  # The history is what was scored, when, and how.
  if not name.startswith(('tree', 'prior')):
    np.testing.assert_array_equal(end.archs_VxE, archs_VxE)
  assert sorted(keys(end.archs_VxE)) == sorted(keys(archs_VxE))
  np.testing.assert_array_equal(
    end.accuracy_V, planted(target(on))(end.archs_VxE)
  )
  generation_V = np.repeat(np.arange(len(calls)), [len(call) for call in calls])
  np.testing.assert_array_equal(end.generation_V, generation_V)
  most = MADE[name][1].get('population', 12)
  assert np.bincount(generation_V).max() <= most
  for call in calls:
    assert len(set(keys(call))) == len(call) > 0
  if not searcher.revisit:
    assert len(set(keys(archs_VxE))) == len(archs_VxE)


@pytest.mark.parametrize(('name', 'on'), marked(PAIRS, ('digits', 'mobilenet')))
def test_what_is_found_is_among_the_scored(name, on):
  searcher, end, _, _ = ran(name, on)
  space, limits = spaces.get(on), LIMITS[on]
  top_N = searchers.best(end, space, limits, 5)
  order_V = np.argsort(-end.accuracy_V, kind='stable')
  first = dict.fromkeys(keys(end.archs_VxE[order_V]))
  assert keys(end.archs_VxE[top_N]) == list(first)[:5]
  picked_E = searcher.pick(end)
  assert keys(picked_E[None])[0] in first
  if name not in ('tree', 'prioritized'):
    np.testing.assert_array_equal(picked_E, end.archs_VxE[top_N[0]])


class Killed(Exception):
  """Carries the state that was saved last."""


def after_one(searcher, score, state):
  """Kills a search as soon as it has saved; the error carries its state."""
  known = set() if searcher.revisit else set(keys(state.archs_VxE))

  def heard(archs_NxE):
    assert known.isdisjoint(keys(archs_NxE))
    return score(archs_NxE)

  def save(saved):
    raise Killed(saved)

  with pytest.raises(Killed) as killed:
    searchers.run(searcher, heard, seed=3, state=state, save=save)
  return killed.value.args[0]


@pytest.mark.parametrize(
  ('name', 'on'),
  marked(
    [
      (n, on)
      for n, on in PAIRS
      if on in ('pooling', 'nas_bench_macro', 'mobilenet')
    ],
    ('pooling', 'mobilenet'),
  ),
)
def test_a_search_killed_at_any_generation_goes_on_bit_for_bit(
  name, on, tmp_path
):
  _, end, states, _ = ran(name, on)
  searcher, score = make(name, on), planted(target(on))
  file = tmp_path / 'search.npz'

  def same(state, other):
    jax.tree.map(np.testing.assert_array_equal, state, other)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(state)] == [
      (x.shape, x.dtype) for x in jax.tree.leaves(other)
    ]

  for before, after in itertools.pairwise([searcher.init(), *states]):
    searchers.save_state(file, before)
    loaded = searchers.load_state(file)
    same(loaded, before)
    same(after_one(searcher, score, loaded), after)
  # From the middle to the end, and from the end nowhere.
  same(searchers.run(searcher, score, seed=3, state=states[0]), end)
  assert searchers.run(searcher, score, seed=3, state=end) is end
  assert [path.name for path in tmp_path.iterdir()] == ['search.npz']


@pytest.mark.parametrize(
  'name', [n for n in MADE if n not in ('exhaustive', 'prioritized')]
)
def test_the_seed_is_all_that_differs(name):
  _, end, _, _ = ran(name, 'nas_bench_macro')
  other = searchers.run(
    make(name, 'nas_bench_macro'), planted(target('nas_bench_macro')), seed=4
  )
  assert keys(other.archs_VxE) != keys(end.archs_VxE)


@pytest.mark.parametrize(
  ('name', 'on', 'limited', 'options'),
  [
    *(
      (name, on, limited, {})
      for name in ('exhaustive', 'random', 'tree')
      for on in ('digits', 'pooling')
      for limited in (False, True)
    ),
    *(
      ('evolution', on, limited, {'select': select})
      for on, limited in (
        ('digits', True),
        ('pooling', True),
        ('nas_bench_macro', False),
      )
      for select in selection.SELECTIONS
    ),
    ('evolution', 'nas_bench_macro', True, {}),
    ('shifting', 'nas_bench_macro', False, {}),
    ('shifting', 'pooling', False, {}),
    ('tree', 'digits', False, {'variant': 'prioritized'}),
    ('exhaustive', 'nas_bench_macro', True, {'population': 3000}),
  ],
)
def test_a_planted_optimum_is_found(name, on, limited, options):
  space = spaces.get(on)
  limits = LIMITS[on] if limited else Limits()
  target_E = target(on, limits)
  end = searchers.run(
    SEARCHERS.get(name)(space, limits, **options), planted(target_E), seed=0
  )
  top_N = searchers.best(end, space, limits, 1)
  np.testing.assert_array_equal(end.archs_VxE[top_N[0]], target_E)


def test_evolution_beats_random_where_the_space_is_too_large():
  space, limits = spaces.get('mobilenet'), LIMITS['mobilenet']
  score = planted(target('mobilenet'))
  top = [
    searchers.run(SEARCHERS.get(name)(space, limits, **options), score, seed=0)
    for name, options in (
      ('random', {'count': 400}),
      ('evolution', {'generations': 8}),
    )
  ]
  assert [len(end.accuracy_V) for end in top] == [400, 400]
  assert top[0].accuracy_V.max() + 0.1 < top[1].accuracy_V.max()


@pytest.mark.parametrize('limits', [Limits(), LIMITS['pooling']])
@pytest.mark.parametrize('name', ['random', 'exhaustive', 'evolution'])
def test_a_small_space_is_scored_whole_and_the_search_ends(name, limits):
  end = searchers.run(
    SEARCHERS.get(name)(POOLING, limits, population=7),
    planted(target('pooling', limits)),
    seed=1,
  )
  expected = listed(POOLING, limits)
  assert sorted(keys(end.archs_VxE)) == sorted(keys(expected))
  assert end.generation == -(-len(expected) // 7)


def test_random_is_uniform_over_what_is_allowed():
  archs_AxE = listed(DIGITS, LIMITS['digits'])
  count_A = np.zeros(81)
  searcher = SEARCHERS.get('random')(DIGITS, LIMITS['digits'], count=4)
  for seed in range(500):
    end = searchers.run(searcher, planted(archs_AxE[0]), seed=seed)
    count_A[DIGITS.index(end.archs_VxE)] += 1
  p = 4 / len(archs_AxE)
  count_A = count_A[DIGITS.index(archs_AxE)]
  assert count_A.sum() == 2000
  # Five standard deviations.
  assert (abs(count_A - 500 * p) < 5 * np.sqrt(500 * p * (1 - p))).all()


def test_exhaustive_is_the_enumeration():
  end = searchers.run(
    SEARCHERS.get('exhaustive')(DIGITS, Limits(), population=50),
    planted(target('digits')),
    seed=0,
  )
  np.testing.assert_array_equal(end.archs_VxE, DIGITS.enumerate())
  assert np.bincount(end.generation_V).tolist() == [50, 31]


def test_a_mutation_draws_each_position_anew():
  parents_PxE = np.array([[0, 1, 2, 0, 1, 2, 0, 1], [2] * 8], np.int32)
  rng = np.random.default_rng(0)
  same_NxE = mutated(MACRO, 0.0, parents_PxE, rng, 50)
  assert set(keys(same_NxE)) == set(keys(parents_PxE))
  child_NxE = mutated(MACRO, 0.1, parents_PxE[:1], rng, 20_000)
  share_ExO = np.stack([(child_NxE == op).mean(axis=0) for op in range(3)], 1)
  expected_ExO = 0.9 * np.eye(3)[parents_PxE[0]] + 0.1 / 3
  # Five standard errors.
  assert (abs(share_ExO - expected_ExO) < 5 * np.sqrt(0.1 / 20_000)).all()
  # Each position alone: as often none, one, two as of independent coins.
  changed_N = (child_NxE != parents_PxE[0]).sum(axis=1)
  p = 0.1 * 2 / 3
  for count, ways in ((0, 1), (1, 8), (2, 28)):
    expected = ways * p**count * (1 - p) ** (8 - count)
    share = (changed_N == count).mean()
    assert abs(share - expected) < 5 * np.sqrt(expected / 20_000)


def test_a_crossover_takes_each_position_from_one_of_two():
  parents_PxE = np.array([[0] * 8, [1] * 8, [2] * 8], np.int32)
  child_NxE = crossed(parents_PxE, np.random.default_rng(0), 9000)
  assert child_NxE.dtype == np.int32
  kinds_N = np.array([len(set(row)) for row in child_NxE.tolist()])
  # Two different parents of three with probability 2/3; then 2 ops but once
  # in 128.
  assert set(kinds_N) == {1, 2}
  expected = 2 / 3 * (1 - 2 / 2**8)
  assert abs((kinds_N == 2).mean() - expected) < 5 * np.sqrt(0.25 / 9000)
  assert abs(child_NxE.mean() - 1) < 0.03
  # Two positions of the same child: from the same parent half the time.
  same = (child_NxE[:, 0] == child_NxE[:, 5]).mean()
  assert abs(same - (1 / 3 + 2 / 3 / 2)) < 5 * np.sqrt(0.25 / 9000)


def parted(generation_NxE, parents_PxE, mutations, crossovers):
  """Asserts that each child of a generation can come from these parents."""
  either_NxPxPxE = (generation_NxE[:, None] == parents_PxE)[:, :, None] | (
    generation_NxE[:, None] == parents_PxE
  )[:, None]
  crossed_N = either_NxPxPxE.all(axis=-1).any(axis=(1, 2))
  assert crossed_N[mutations : mutations + crossovers].all()
  distance_N = (generation_NxE[:, None] != parents_PxE).sum(axis=-1).min(axis=1)
  # A tenth of 21 change; twelve of them once in ten million times.
  assert distance_N[:mutations].max() < 12
  assert distance_N[:mutations].mean() < 5
  return distance_N


def test_spos_breeds_half_and_half_from_the_ten_best():
  space = spaces.get('mobilenet')
  searcher = SEARCHERS.get('evolution')(space, Limits())
  score, states = planted(target('mobilenet')), []
  searchers.run(searcher, score, seed=0, save=states.append)
  assert len(states) == 20
  # Later ones are so alike that ten times as many tries breed too few.
  for before, after in itertools.pairwise(states[:6]):
    generation_NxE = after.archs_VxE[len(before.archs_VxE) :]
    assert len(generation_NxE) == 50
    top_P = np.argsort(-before.accuracy_V, kind='stable')[:10]
    parted(generation_NxE, before.archs_VxE[top_P], 25, 25)


def test_children_leave_the_rest_to_chance():
  space = spaces.get('mobilenet')
  searcher = SEARCHERS.get('evolution')(
    space, Limits(), mutations=5, crossovers=6, generations=2, parents=2
  )
  end = searchers.run(searcher, planted(target('mobilenet')), seed=0)
  top_P = np.argsort(-end.accuracy_V[:50], kind='stable')[:2]
  distance_N = parted(end.archs_VxE[50:], end.archs_VxE[top_P], 5, 6)
  assert len(distance_N) == 50
  assert distance_N[11:].min() >= 12


def test_shifting_meets_architectures_again_and_counts_their_last_score():
  heard = []

  def score(archs_NxE):
    """All get worse from the second generation to the third."""
    heard.append(archs_NxE)
    return planted(target('digits'))(archs_NxE) - 0.5 * (len(heard) == 3)

  searcher = SEARCHERS.get('shifting')(
    DIGITS, Limits(), population=20, generations=3, parents=3
  )
  end = searchers.run(searcher, score, seed=0)
  assert [len(archs_NxE) for archs_NxE in heard] == [20] * 3
  np.testing.assert_array_equal(end.archs_VxE, np.concatenate(heard))
  assert len(set(keys(end.archs_VxE))) < 60
  last = dict(zip(keys(end.archs_VxE), end.accuracy_V, strict=True))
  order = sorted(last.values(), reverse=True)
  top_N = searchers.best(end, DIGITS, Limits(), 81)
  assert len(top_N) == len(last)
  assert end.accuracy_V[top_N].tolist() == order
  assert searcher.pick(end).tolist() == end.archs_VxE[top_N[0]].tolist()
  # The best of all first scores is no longer the best.
  assert order[0] < end.accuracy_V.max()


def test_shifting_breeds_from_last_scores():
  """The best of the first generation has been scored again, and is bad."""
  archs_VxE = np.array([[0] * 4, [1] * 4, [2] * 4, [0] * 4], np.int32)
  state = State(
    archs_VxE,
    np.array([0.9, 0.8, 0.1, 0.2]),
    np.array([0, 0, 0, 1]),
    np.array(2),
  )
  searcher = SEARCHERS.get('shifting')(
    DIGITS, Limits(), population=4, mutations=0, crossovers=1, parents=1
  )
  children_NxE = searcher.propose(state, np.random.default_rng(0))
  assert children_NxE[0].tolist() == [1] * 4
  assert len(children_NxE) == 4


def test_best_breaks_ties_by_the_first_seen_and_keeps_to_limits():
  archs_VxE = DIGITS.enumerate()[[5, 80, 3, 9, 5]]
  state = base.record(
    base.empty(DIGITS), archs_VxE, np.array([0.5, 0.9, 0.5, 0.5, 0.5])
  )
  top_N = searchers.best(state, DIGITS, Limits(), 3)
  assert archs_VxE[top_N].tolist() == archs_VxE[[1, 0, 2]].tolist()
  dear = int(costs(DIGITS, archs_VxE)[1, 0])
  top_N = searchers.best(state, DIGITS, Limits(dear - 1), 9)
  assert archs_VxE[top_N].tolist() == archs_VxE[[0, 2, 3]].tolist()


def test_parents_by_hand():
  archs_VxE = np.array(
    [[0, 0, 0, 0], [0, 0, 0, 1], [2, 2, 0, 0], [2, 2, 2, 2], [1, 0, 0, 0]],
    np.int32,
  )
  accuracy_V = np.array([0.7, 0.9, 0.8, 0.2, 0.7])
  of = functools.partial(
    selection.parents, DIGITS, archs_VxE, accuracy_V, count=3, pool=4
  )
  assert of(select='accuracy').tolist() == [1, 2, 0]
  # The farthest from 1 that is among the best four is 2, then 4 and not 0.
  assert of(select='diverse').tolist() == [1, 2, 4]
  assert of(select='similar').tolist() == [1, 0, 4]
  # As far as another distance says.
  reverse = [[0, 9, 1, 1], [9, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
  near = of(select='similar', distance=lambda archs: np.array(reverse) * 1.0)
  assert near.tolist() == [1, 0, 4]


def test_parents_by_pareto_are_those_of_nsga():
  archs_VxE = DIGITS.enumerate()[::2]
  accuracy_V = planted(target('digits'))(archs_VxE)
  chosen_N = selection.parents(
    DIGITS, archs_VxE, accuracy_V, select='pareto', count=12, pool=0
  )
  params_A, macs_A = DIGITS.costs(archs_VxE)
  objectives_VxK = np.stack([accuracy_V, -1.0 * params_A, -1.0 * macs_A], 1)
  rank_V = pareto.fronts(objectives_VxK)
  assert len(chosen_N) == len(set(chosen_N.tolist())) == 12
  assert (np.diff(rank_V[chosen_N]) >= 0).all()
  left_V = np.setdiff1d(np.arange(len(rank_V)), chosen_N)
  assert rank_V[left_V].min() >= rank_V[chosen_N].max()
  # The cheapest and the most accurate are ends of the first front.
  assert {0, int(accuracy_V.argmax())} <= set(chosen_N.tolist())


def test_farthest_first_has_half_of_the_best_least_distance():
  archs_NxE = DIGITS.random(np.random.default_rng(0), 25)
  d_NxN = selection.hamming(archs_NxE)
  expected = [
    [sum(a != b for a, b in zip(x, y, strict=True)) for y in archs_NxE]
    for x in archs_NxE
  ]
  np.testing.assert_array_equal(d_NxN, expected)
  taken, left = [0], set(range(1, 25))
  while len(taken) < 6:
    far = max(sorted(left), key=lambda n: min(d_NxN[n, m] for m in taken))
    taken.append(far)
    left.remove(far)
  assert selection.farthest_first(d_NxN, 6).tolist() == taken
  # Copies are taken last, and all of them in the end.
  zeros_NxN = np.zeros((4, 4))
  assert selection.farthest_first(zeros_NxN, 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize('variant', ['default', 'prioritized'])
def test_the_tree_searcher_is_the_sampler_and_rewards_every_walk(variant):
  score = planted(target('digits', Limits()))
  searcher = SEARCHERS.get('tree')(
    DIGITS, Limits(), walks=20, generations=6, variant=variant
  )
  calls = []

  def heard(archs_NxE):
    calls.append(len(archs_NxE))
    return score(archs_NxE)

  end = searchers.run(searcher, heard, seed=5)
  assert sum(calls) == len(end.accuracy_V) < 120
  sampler = tree_sampler(DIGITS, paths=20, variant=variant)
  state, update = sampler.init(), jax.jit(sampler.update)
  for g in range(6):
    key = jax.random.key(int(generator(5, 'search', g).integers(2**31)))
    for arch_E in np.asarray(sampler.sample(state, key)):
      reward = jnp.float32(score(arch_E[None])[0])
      state = update(state, Feedback(jnp.asarray(arch_E), None, reward))
  for ours, theirs in zip(end.own, jax.tree.leaves(state), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  picked_E = searcher.pick(end)
  assert DIGITS.index(picked_E[None]).tolist() == [best_branches(state)]


def test_a_tree_of_one_architecture():
  least = costs(DIGITS, DIGITS.enumerate()).min(axis=0).tolist()
  searcher = SEARCHERS.get('tree')(
    DIGITS, Limits(*least), walks=3, generations=2
  )
  end = searchers.run(searcher, planted(np.array([1, 0, 0, 0])), seed=0)
  assert end.archs_VxE.tolist() == [[0, 0, 0, 0]]
  assert end.generation == 2
  assert searcher.pick(end).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize('name', ['random', 'evolution', 'tree'])
def test_patience_ends_a_search_where_it_would_have_ended(name):
  """Going on from any generation, too: it follows from what was scored."""
  options = {} if name == 'tree' else {'population': 10}
  searcher = SEARCHERS.get(name)(
    DIGITS, Limits(), **options, **{'walks': 10} if name == 'tree' else {}
  )
  score, states = planted(target('digits')), []
  end = searchers.run(
    searchers.patient(searcher, 2), score, seed=1, save=states.append
  )
  # By hand: the best of each generation, until two bring nothing new.
  best, last, g = -np.inf, 0, 0
  for g in range(int(end.generation)):
    of_generation = end.accuracy_V[end.generation_V == g]
    if of_generation.size and of_generation.max() > best:
      best, last = of_generation.max(), g
    assert g - last < 2 or g == end.generation - 1
  assert g - last == 2 == searchers.stale(end)
  for state in states[:-1]:
    again = searchers.run(
      searchers.patient(searcher, 2), score, seed=1, state=state
    )
    np.testing.assert_array_equal(again.archs_VxE, end.archs_VxE)
  assert searchers.stale(searcher.init()) == 0


def test_run_polls_before_each_generation_and_keeps_what_was_saved():
  polls, saved = [], []

  def poll():
    polls.append(len(saved))
    if len(polls) == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    searchers.run(
      make('exhaustive', 'digits', Limits())._replace(
        propose=lambda state, rng: DIGITS.enumerate()[
          len(state.accuracy_V) : len(state.accuracy_V) + 10
        ]
      ),
      planted(target('digits')),
      seed=0,
      save=saved.append,
      poll=poll,
    )
  assert polls == [0, 1, 2]
  assert [len(state.accuracy_V) for state in saved] == [10, 20]


@pytest.mark.parametrize(
  'score',
  [
    lambda archs_NxE: np.full(len(archs_NxE), np.nan),
    lambda archs_NxE: np.zeros(len(archs_NxE) + 1),
    lambda archs_NxE: np.zeros((len(archs_NxE), 1)),
  ],
)
def test_a_score_is_a_number_for_each(score):
  searcher = SEARCHERS.get('random')(DIGITS, Limits(), count=2)
  with pytest.raises(
    ValueError, match=r'^the score of 2 architectures is .* nu'
  ):
    searchers.run(searcher, score, seed=0)


def test_a_state_that_is_none(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'none\.npz does not exist'):
    searchers.load_state(tmp_path / 'none.npz')
  files.write_npz(tmp_path / 'other.npz', {'archs_VxE': np.zeros((0, 4))})
  with pytest.raises(ValueError, match=r'other\.npz lacks accuracy_V'):
    searchers.load_state(tmp_path / 'other.npz')


@pytest.mark.parametrize(
  ('name', 'on', 'options', 'says'),
  [
    (
      'random',
      'digits',
      {'count': 0},
      r'^count is 0; it must be at least 1\.$',
    ),
    ('random', 'digits', {'population': 0}, '^population is 0; it must'),
    ('exhaustive', 'digits', {'population': 0}, '^population is 0; it must'),
    ('exhaustive', 'mobilenet', {}, '^searchers exhaustive and tree need a'),
    ('tree', 'mobilenet', {}, '^searchers exhaustive and tree need a space'),
    ('tree', 'digits', {'walks': 0}, '^walks is 0; it must be at least 1'),
    ('tree', 'digits', {'generations': 0}, '^generations is 0; it must be'),
    ('tree', 'digits', {'temperature': 0.0}, '^temperature is 0.0; it must'),
    ('tree', 'digits', {'variant': 'defualt'}, 'Did you mean default'),
    ('evolution', 'digits', {'population': 0}, '^population is 0; it must'),
    ('evolution', 'digits', {'generations': 0}, '^generations is 0; it must'),
    ('evolution', 'digits', {'parents': 0}, '^parents is 0; it must be at'),
    ('evolution', 'digits', {'mutations': -1}, '^mutations is -1; it must'),
    ('evolution', 'digits', {'crossovers': -1}, '^crossovers is -1; it must'),
    ('evolution', 'digits', {'mutation': 1.5}, r'^mutation is 1.5; it must'),
    ('evolution', 'digits', {'select': 'parteo'}, 'Did you mean pareto'),
    (
      'evolution',
      'digits',
      {'population': 8, 'mutations': 6},
      '^mutations 6 and crossovers 4 are more than population 8: lower them',
    ),
  ],
)
def test_refusals_are_one_line(name, on, options, says):
  with pytest.raises(ValueError, match=says) as refusal:
    SEARCHERS.get(name)(spaces.get(on), Limits(), **options)
  assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('name', SEARCHERS)
def test_limits_that_none_meets_are_refused_at_once(name):
  with pytest.raises(ValueError, match=r'^no architecture of digits has at'):
    SEARCHERS.get(name)(DIGITS, Limits(max_params=10))


def test_unknown_searchers_name_the_nearest():
  with pytest.raises(ValueError, match='Did you mean evolution'):
    SEARCHERS.get('evoluton')
