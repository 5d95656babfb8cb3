"""Draws of each strategy, exactly, and what all strategies have in common."""

import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.samplers.balanced import balanced, depth_tables
from jaxnas.samplers.base import Feedback, index_of
from jaxnas.samplers.boltzmann import BoltzmannState, boltzmann
from jaxnas.samplers.debiased import effective_number
from jaxnas.samplers.fair import fair
from jaxnas.samplers.novelty import NoveltyState, novelty
from jaxnas.samplers.uniform import uniform
from jaxnas.spaces.nas_bench_201 import EDGES, OPS

STEPS, DRAWS = 16, 20_001
MANY = ('digits', 'pooling', 'nas_bench_macro')
DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()

STRATEGIES = {
  'uniform': functools.partial(uniform, paths=3),
  'balanced': functools.partial(balanced, paths=3),
  'fair': fair,
  'boltzmann': functools.partial(
    boltzmann, paths=3, warmup_steps=STEPS // 2, steps=3 * STEPS
  ),
  'novelty': functools.partial(novelty, paths=3),
}
SUPPORTED = {
  'uniform': (*MANY, 'mobilenet'),
  'balanced': ('digits', 'nas_bench_macro', 'nas_bench_201', 'mobilenet'),
  'fair': ('digits', 'nas_bench_macro', 'mobilenet'),
  'boltzmann': MANY,
  'novelty': (*MANY, 'mobilenet'),
}
PAIRS = [(name, on) for name in STRATEGIES for on in SUPPORTED[name]]
LISTED = [(name, on) for name, on in PAIRS if on in ('digits', 'pooling')]


def heard(arch_E, reward=math.nan):
  return Feedback(jnp.asarray(arch_E), {}, jnp.float32(reward))


class Run(NamedTuple):
  """Record of a strategy's steps; every other one feeds back rewards."""

  sampler: Any
  step: Any
  """(state, key, whether it measures rewards) -> (state, archs_PxE, logp_A)."""
  state: Any
  archs_TxPxE: np.ndarray
  traces: list


@functools.cache
def ran(name, on):
  sampler, traces = STRATEGIES[name](spaces.get(on)), []

  @jax.jit
  def step(state, key, measured):
    traces.append(1)
    archs_PxE = sampler.sample(state, key)

    def path(state, arch_E):
      accuracy = (1 + arch_E[0]) / (1 + arch_E.sum())
      reward = jnp.where(measured, accuracy, jnp.nan).astype(jnp.float32)
      return sampler.update(state, Feedback(arch_E, {}, reward)), None

    logp_A = sampler.log_prob(state)
    return jax.lax.scan(path, state, archs_PxE)[0], archs_PxE, logp_A

  state, archs = sampler.init(), []
  for t in range(STEPS):
    state, archs_PxE, _ = step(state, jax.random.key(t), t % 2 == 0)
    archs.append(np.asarray(archs_PxE))
  return Run(sampler, step, state, np.stack(archs), traces)


@functools.cache
def draws_of(name, on):
  """(state, keys_T) -> archs_TxPxE; a loop compiles sooner than a vmap."""
  sample = ran(name, on).sampler.sample
  return jax.jit(
    lambda state, keys_T: jax.lax.map(lambda key: sample(state, key), keys_T)
  )


def log_prob(name, on, state):
  """Through the program of a step, which is compiled anyway."""
  return ran(name, on).step(state, jax.random.key(0), False)[2]


@pytest.mark.parametrize(('name', 'on'), PAIRS)
def test_runs_in_one_program_and_draws_valid_architectures(name, on):
  run, space = ran(name, on), spaces.get(on)
  paths = space.counts[0] if name == 'fair' else 3
  assert run.archs_TxPxE.shape == (STEPS, paths, space.positions)
  assert run.archs_TxPxE.dtype == np.int32
  space.validate(run.archs_TxPxE.reshape(-1, space.positions))
  assert len(run.traces) == 1


@pytest.mark.parametrize(('name', 'on'), PAIRS)
def test_state_is_arrays_and_all_follows_from_it_and_the_key(name, on):
  run = ran(name, on)
  leaves, fresh = map(jax.tree.leaves, (run.state, run.sampler.init()))
  assert all(isinstance(leaf, jax.Array) for leaf in fresh)
  assert [(leaf.shape, leaf.dtype) for leaf in leaves] == [
    (leaf.shape, leaf.dtype) for leaf in fresh
  ]
  stored = jax.tree.map(np.asarray, run.state)
  after = run.step(run.state, jax.random.key(99), True)
  again = run.step(stored, jax.random.key(99), True)
  jax.tree.map(np.testing.assert_array_equal, after, again)
  assert len({archs_PxE.tobytes() for archs_PxE in run.archs_TxPxE}) > STEPS / 2


@pytest.mark.parametrize(('name', 'on'), PAIRS)
def test_probabilities_are_those_of_the_listed_space(name, on):
  run = ran(name, on)
  for state in (run.sampler.init(), run.state):
    logp_A = log_prob(name, on, state)
    if on == 'mobilenet':
      assert logp_A is None
      continue
    assert logp_A.shape == (spaces.get(on).size,)
    assert logp_A.dtype == jnp.float32
    p_A = np.exp(np.asarray(logp_A, np.float64))
    assert p_A.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(('name', 'on'), LISTED)
def test_frequencies_follow_the_probabilities(name, on):
  run, space = ran(name, on), spaces.get(on)
  keys_T = jax.random.split(jax.random.key(0), DRAWS // 3)
  # Before the first step, and after the last.
  for state in (run.sampler.init(), run.state):
    archs_TxPxE = np.asarray(draws_of(name, on)(state, keys_T))
    drawn_N = space.index(archs_TxPxE.reshape(-1, space.positions))
    share_A = np.bincount(drawn_N, minlength=space.size) / len(drawn_N)
    p_A = np.exp(np.asarray(log_prob(name, on, state)))
    # Five standard errors.
    assert (abs(share_A - p_A) <= 5 * np.sqrt(p_A / len(drawn_N))).all()


def test_only_some_need_rewards_or_all_their_paths():
  samplers = {name: make(DIGITS) for name, make in STRATEGIES.items()}
  assert [n for n, s in samplers.items() if s.rewards] == ['boltzmann']
  assert [n for n, s in samplers.items() if s.together] == ['fair']


@pytest.mark.parametrize(
  ('make', 'on', 'says'),
  [
    (balanced, 'pooling', 'pooling has no levels of complexity: .* Choose'),
    (fair, 'mobilenet_strict', 'needs as many ops .* has 12 to 13: choose'),
    (fair, 'pooling', 'fair combines .* pooling allows only 36 of 512'),
    (functools.partial(fair, paths=2), 'digits', 'paths 2: .* set 1 or 3'),
    (
      functools.partial(boltzmann, warmup_steps=0, steps=2),
      'mobilenet',
      r'boltzmann needs .* listed; mobilenet has 2.5e\+23 .*: choose',
    ),
    (
      functools.partial(
        boltzmann, warmup_steps=0, steps=2, last_temperature=0.0
      ),
      'digits',
      'last_temperature 0.0 must',
    ),
    (functools.partial(novelty, archive=0), 'digits', 'archive 0 must'),
    (functools.partial(novelty, nearest=0), 'digits', 'nearest 0 must'),
    (functools.partial(novelty, candidates=0), 'digits', 'candidates 0 must'),
  ],
)
def test_refusals_are_one_line(make, on, says):
  with pytest.raises(ValueError, match=says) as refusal:
    make(spaces.get(on))
  assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('on', MANY)
def test_index_is_the_row_in_the_list(on):
  archs_AxE = spaces.get(on).enumerate()
  some_P = np.random.default_rng(0).integers(0, len(archs_AxE), 20)
  index = jax.jit(index_of(spaces.get(on)))
  np.testing.assert_array_equal(index(jnp.asarray(archs_AxE[some_P])), some_P)


def most_convolutions(arch_E):
  """On any path of a cell, by walking all of them; None where there is none."""

  def walk(node, so_far):
    if node == 0:
      yield so_far
    for op, (source, target) in zip(arch_E, EDGES, strict=True):
      if target == node and OPS[op] != 'none':
        yield from walk(source, so_far + OPS[op].startswith('nor_conv'))

  return max(walk(3, 0), default=None)


def test_levels_of_cells_are_the_convolutions_on_their_longest_path():
  space = spaces.get('nas_bench_201')
  archs_AxE = space.enumerate()
  level_A = space.complexity(archs_AxE)
  assert np.bincount(level_A + 1).tolist() == [
    15_625 - 15_284,
    8764,
    5520,
    1000,
  ]
  np.testing.assert_array_equal(level_A >= 0, space.connected(archs_AxE))
  for a in np.random.default_rng(0).integers(0, len(archs_AxE), 300):
    most = most_convolutions(archs_AxE[a])
    assert level_A[a] == (-1 if most is None else max(most - 1, 0))


@pytest.mark.parametrize(
  ('on', 'levels', 'fraction'),
  [
    # The fraction of NAS-Bench-201 is known from elsewhere.
    ('nas_bench_201', 3, 0.445),
    ('nas_bench_macro', 5, 0.578),
    ('digits', 3, 0.896),
  ],
)
def test_every_level_is_as_likely(on, levels, fraction):
  space = spaces.get(on)
  level_A = space.complexity(space.enumerate())
  p_A = np.exp(np.asarray(balanced(space).log_prob(()), np.float64))
  for level in range(levels):
    of_level = p_A[level_A == level]
    np.testing.assert_allclose(of_level, 1 / levels / len(of_level), rtol=1e-5)
  assert not p_A[level_A < 0].any()
  assert effective_number(np.log(p_A + 1e-300)) / space.size == pytest.approx(
    fraction, abs=5e-4
  )


def test_other_spaces_have_fifths_by_multiply_adds():
  space = spaces.get('digits')
  level_A = spaces.Space.complexity(space, space.enumerate())
  macs_A = space.costs(space.enumerate()).macs_A
  assert abs(np.bincount(level_A, minlength=5) - 81 / 5).max() < 3
  for level in range(4):
    assert macs_A[level_A == level].max() < macs_A[level_A == level + 1].min()


@pytest.mark.parametrize('on', ['digits', 'nas_bench_macro', 'strict'])
def test_counting_gives_the_probabilities_of_the_list(on):
  """Also where some positions lack the identity, and some have several."""
  if on == 'strict':
    ops = DIGITS.candidates[0]
    space = dataclasses.replace(
      DIGITS, candidates=(ops[1:], (*ops, None), ops, ops)
    )
    space = dataclasses.replace(
      space,
      ops=tuple(tuple(map(str, range(len(o)))) for o in space.candidates),
    )
  else:
    space = spaces.get(on)
  depth_p_K, block_p_ExK = depth_tables(space)
  archs_AxE = space.enumerate()
  left_A = space.depth(archs_AxE)
  p_A = depth_p_K[left_A]
  for e, (blocks, others) in enumerate(space.kinds):
    is_block_A = np.isin(archs_AxE[:, e], blocks)
    chance_A = block_p_ExK[e, left_A]
    p_A = p_A * np.where(
      is_block_A,
      chance_A / len(blocks),
      (1 - chance_A) / max(len(others), 1),
    )
    left_A = left_A - is_block_A
  listed_A = np.exp(np.asarray(balanced(space).log_prob(()), np.float64))
  np.testing.assert_allclose(p_A, listed_A, rtol=1e-5)


def test_what_is_counted_is_drawn_so(monkeypatch):
  listed_A = np.exp(np.asarray(balanced(DIGITS).log_prob(()), np.float64))
  monkeypatch.setattr(type(DIGITS), 'enumerable', False)
  sampler = balanced(DIGITS, paths=DRAWS)
  monkeypatch.undo()
  assert sampler.log_prob(()) is None
  archs_PxE = np.asarray(sampler.sample((), jax.random.key(0)))
  share_A = np.bincount(DIGITS.index(archs_PxE), minlength=81) / DRAWS
  assert (abs(share_A - listed_A) <= 5 * np.sqrt(listed_A / DRAWS)).all()


def test_of_the_largest_space_every_level_is_drawn_as_often():
  space = spaces.get('mobilenet')
  archs_PxE = np.asarray(
    balanced(space, paths=DRAWS).sample((), jax.random.key(0))
  )
  share = np.bincount(space.complexity(archs_PxE)) / DRAWS
  assert len(share) == 12
  assert (abs(share - 1 / 12) < 5 * math.sqrt(1 / 12 / DRAWS)).all()


def test_a_space_that_is_neither_listed_nor_a_chain_is_refused():
  space = spaces.Space('huge', (('a', 'b'),) * 30, (8, 8, 1), 10)
  with pytest.raises(ValueError, match=r'huge has .* arch.*: choose'):
    balanced(space)


@pytest.mark.parametrize('on', SUPPORTED['fair'])
def test_fair_trains_every_op_once_in_every_step(on):
  space = spaces.get(on)
  ops_P = np.arange(space.counts[0])
  for archs_PxE in ran('fair', on).archs_TxPxE:
    for ops in archs_PxE.T:
      np.testing.assert_array_equal(np.sort(ops), ops_P)


def test_fair_permutes_anew_in_every_step_and_position():
  keys_T = jax.random.split(jax.random.key(0), DRAWS // 3)
  archs_TxPxE = np.asarray(draws_of('fair', 'digits')((), keys_T))
  which_TxE = np.argmax(
    [
      (archs_TxPxE == np.array(order)[:, None]).all(axis=1)
      for order in itertools.permutations(range(3))
    ],
    axis=0,
  )
  # Every pair of permutations of two positions, or of two steps, as often.
  pairs = [6 * which_TxE[:, d] + which_TxE[:, e] for d, e in ((0, 1), (1, 3))]
  pairs += [6 * which_TxE[:-1, e] + which_TxE[1:, e] for e in range(4)]
  for pair_T in pairs:
    share = np.bincount(pair_T, minlength=36) / len(pair_T)
    assert (abs(share - 1 / 36) < 5 * math.sqrt(1 / 36 / len(pair_T))).all()


def odds(exponent):
  """P of one of 81 whose R / T is that, the others' 0."""
  return math.exp(exponent) / (math.exp(exponent) + 80)


def test_boltzmann_by_hand():
  sampler = boltzmann(DIGITS, warmup_steps=1, steps=4)
  state = sampler.init()
  np.testing.assert_allclose(np.exp(sampler.log_prob(state)), 1 / 81, rtol=1e-6)
  # (arch, reward), then R of arch 5 and T in the step that follows.
  trace = [
    ((5, 0.8), 0.04, 1.0),
    ((7, math.nan), 0.04, 0.505),
    ((5, 0.6), 0.068, 0.01),
  ]
  for t, ((a, reward), rewards, temperature) in enumerate(trace):
    state = sampler.update(state, heard(ARCHS_AxE[a], reward))
    assert int(state.trained) == t + 1
    expected_A = np.zeros(81)
    expected_A[5] = rewards
    np.testing.assert_allclose(state.rewards_A, expected_A, rtol=1e-5)
    p_A = np.exp(np.asarray(sampler.log_prob(state), np.float64))
    assert p_A[5] == pytest.approx(odds(rewards / temperature), rel=1e-4)


@pytest.mark.parametrize(
  ('trained', 'temperature'),
  [(0, 1), (9, 1), (11, 1), (12, 0.67), (13, 0.67), (16, 0.01), (99, 0.01)],
)
def test_boltzmann_cools_after_the_warm_up_once_a_step(trained, temperature):
  sampler = boltzmann(DIGITS, paths=2, warmup_steps=5, steps=9)
  rewards_A = jnp.zeros(81).at[3].set(0.02)
  logp_A = sampler.log_prob(BoltzmannState(rewards_A, jnp.int32(trained)))
  assert np.exp(logp_A[3]) == pytest.approx(odds(0.02 / temperature), rel=1e-4)


@pytest.mark.parametrize('steps', [3, 4])
def test_boltzmann_has_no_slope_to_fall_along(steps):
  sampler = boltzmann(DIGITS, warmup_steps=3, steps=steps)
  rewards_A = jnp.zeros(81).at[3].set(0.02)
  logp_A = sampler.log_prob(BoltzmannState(rewards_A, jnp.int32(3)))
  assert np.exp(logp_A[3]) == pytest.approx(odds(0.02), rel=1e-4)


def novelty_by_hand(arch_E, visits, nearest):
  """Novelty of one arch, by sorting; `visits` holds the oldest first."""
  distances = sorted(
    sum(a != b for a, b in zip(arch_E, other_E, strict=True))
    for other_E in visits
  )[:nearest]
  return sum(distances) / len(distances)


@pytest.mark.parametrize('on', ['digits', 'pooling'])
def test_novelty_equals_the_loop(on):
  """With fewer visits than neighbours, than room, and with more than both."""
  space = spaces.get(on)
  archs_AxE = space.enumerate()
  sampler = novelty(space, archive=20)
  update, logp_of = jax.jit(sampler.update), jax.jit(sampler.log_prob)
  state = sampler.init()
  visits_VxE = space.random(np.random.default_rng(0), 30)
  for v, arch_E in enumerate(visits_VxE, start=1):
    state = update(state, heard(arch_E))
    if v not in (1, 4, 12, 30):
      continue
    kept = visits_VxE[max(v - 20, 0) : v].tolist()
    expected_A = [novelty_by_hand(row, kept, 10) for row in archs_AxE.tolist()]
    np.testing.assert_allclose(
      np.exp(logp_of(state)),
      np.array(expected_A) / np.sum(expected_A),
      atol=1e-6,
    )


def test_novelty_keeps_every_visit_and_the_last_ones():
  sampler = novelty(DIGITS, archive=3)
  state = sampler.init()
  update = jax.jit(sampler.update)
  for a in (0, 1, 2, 2, 4):
    state = update(state, heard(ARCHS_AxE[a]))
  np.testing.assert_array_equal(state.archs_VxE, ARCHS_AxE[[2, 4, 2]])


def test_without_novelty_all_are_alike():
  sampler = novelty(DIGITS, archive=810)
  logp_of = jax.jit(sampler.log_prob)
  full = NoveltyState(jnp.asarray(np.tile(ARCHS_AxE, (10, 1))), jnp.int32(0))
  for state in (sampler.init(), full):
    np.testing.assert_allclose(logp_of(state), -math.log(81), rtol=1e-5)


def test_candidates_of_an_unlisted_space_are_drawn_by_novelty(monkeypatch):
  listed = novelty(DIGITS, archive=5)
  archs_VxE = ARCHS_AxE[[0, 0, 1, 80, 0]]
  archs_VxE[4] = -1
  state = NoveltyState(jnp.asarray(archs_VxE), jnp.int32(4))
  p_A = np.exp(np.asarray(jax.jit(listed.log_prob)(state)))
  assert p_A.max() > 1.5 * p_A[p_A > 0].min()

  monkeypatch.setattr(spaces.base, 'LARGEST_ENUMERATION', 10)
  sampler = novelty(DIGITS, archive=5, paths=6000)
  assert sampler.log_prob(state) is None
  drawn_PxE = np.asarray(jax.jit(sampler.sample)(state, jax.random.key(0)))
  drawn_P = drawn_PxE @ [27, 9, 3, 1]
  share_A = np.bincount(drawn_P, minlength=81) / 6000
  # Five standard errors, and what 64 candidates leave of the proportion.
  assert (abs(share_A - p_A) <= 5 * np.sqrt(p_A / 6000) + 2 * p_A / 64).all()
