"""Every sampler on every space, built from a config, and what holds of all."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxnas import samplers, spaces, train
from jaxnas.config import run_folder
from jaxnas.experiment import build
from jaxnas.runtime import files
from jaxnas.samplers.mixture import route as routes
from jaxnas.training.checkpoint import Checkpoints
from support import sampler_runs
from support.many_devices import found_by
from support.runs import final_state, flags_in, metrics
from support.sampler_runs import (
  DISTINCT,
  DUE,
  GIVEN,
  MEMBERS,
  PAIRS,
  TAU,
  UNLISTED,
  ran,
)

DRAWS = 10_000
# Run by default; the others have as many programs to compile again.
FAST = {'digits', 'mobilenet'}
FAST_TOO = {(label, 'pooling') for label in ('uniform', 'tree', 'mixture')}


def marked(label, on, *, fast=True):
  fast = fast and (on in FAST or (label, on) in FAST_TOO)
  return pytest.param(label, on, marks=[] if fast else [pytest.mark.slow])


def of(pairs):
  return pytest.mark.parametrize(
    ('label', 'on'), [marked(label, on) for label, on in pairs]
  )


of_every = of(PAIRS)
# Those that say how likely each architecture is.
EXACT = [
  (label, on) for label, on in PAIRS if on not in UNLISTED and label != 'fair'
]
of_exact = of(EXACT)


@of_every
def test_draws_valid_architectures(label, on):
  space, archs_TxPxF = spaces.get(on), ran(label, on).archs_TxPxF
  paths = space.counts[0] if label == 'fair' else 2
  columns = space.positions + (label == 'mixture')
  assert archs_TxPxF.shape == (sampler_runs.STEPS, paths, columns)
  assert archs_TxPxF.dtype == np.int32
  space.validate(
    archs_TxPxF[..., : space.positions].reshape(-1, space.positions)
  )
  if label == 'mixture':
    assert {*archs_TxPxF[..., -1].ravel()} == {*range(MEMBERS)}
  # Each step its own.
  assert len({archs_PxF.tobytes() for archs_PxF in archs_TxPxF}) > 1


@of_every
def test_runs_in_one_program(label, on):
  """Warm-up, debiasing, trees built anew: all of it is data."""
  run = ran(label, on)
  assert len(run.traces) == 1
  if run.sampler.rebuild is not None:
    assert not samplers.archs_state(run.warm).proposal.built
    assert samplers.archs_state(run.state).proposal.built


@of_every
def test_a_step_changes_no_shape_of_the_state(label, on):
  run = ran(label, on)
  first = run.sampler.init()
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first))
  kinds = lambda state: jax.tree.map(  # noqa: E731
    lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), state
  )
  assert kinds(first) == kinds(run.warm) == kinds(run.state)
  # Those that listen have heard something.
  heard = label.partition(',')[0] not in ('uniform', 'balanced', 'fair')
  if heard and label != 'importance, data':
    assert changed(first, run.warm) and changed(run.warm, run.state)


def changed(one, other):
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return any((np.asarray(a) != np.asarray(b)).any() for a, b in leaves)


@of_every
def test_probabilities_sum_to_one(label, on):
  run = ran(label, on)
  for state in (run.warm, run.state):
    logp_A = run.log_probs(state)[0]
    if (label, on) not in EXACT:
      assert logp_A is None
      continue
    assert logp_A.shape == (spaces.get(on).size,)
    assert logp_A.dtype == jnp.float32
    # Also that each is a number or -inf.
    total = np.logaddexp.reduce(np.asarray(logp_A, np.float64))
    assert total == pytest.approx(0, abs=1e-5)


def close(logp_A, expected_A):
  expected_A = np.asarray(expected_A, np.float64)
  expected_A -= np.logaddexp.reduce(expected_A)
  np.testing.assert_allclose(logp_A, expected_A, atol=2e-5)


@of_exact
def test_is_its_proposal_times_a_factor_of_the_density(label, on):
  run = ran(label, on)
  within = samplers.archs_state(run.state)
  alpha_A = sampler_runs.alpha_of(spaces.get(on).size)
  np.testing.assert_allclose(within.alpha_A, alpha_A, rtol=1e-6)
  assert float(within.tau) == TAU
  logp_A, proposal_A = map(np.asarray, run.log_probs(run.state))
  close(logp_A, proposal_A - alpha_A / TAU)
  # The warm-up is not debiased, and neither are equal densities.
  close(*run.log_probs(run.warm))
  equal = samplers.with_density(within, np.full(len(alpha_A), 4.2), TAU)
  state = run.state
  state = state._replace(archs=equal) if state is not within else equal
  close(run.log_probs(state)[0], proposal_A)


@of([(label, on) for label, on in PAIRS if on not in UNLISTED])
def test_is_its_proposal_times_the_density_under_itself(label, on):
  """The self-consistent rule, in the program that has run already."""
  run, space = ran(label, on), spaces.get(on)
  given = sampler_runs.experiment(label, debias=True, rule='self_consistent')
  state = sampler_runs.after_warmup(given, space, run.sampler, run.warm)
  units_AxD = sampler_runs.units_of(space.size)
  logp_A, proposal_A = run.log_probs(state)
  within = samplers.archs_state(state)
  if (label, on) in EXACT:
    dense_A = within.alpha_A
  else:
    dense_A, proposal_A = within.density, np.zeros(space.size)
    logp_A = jax.nn.log_softmax(-dense_A / within.tau)
  p_A = np.exp(np.asarray(logp_A, np.float64))
  expected_A = units_AxD @ (units_AxD.T @ p_A)
  np.testing.assert_allclose(dense_A, expected_A, atol=1e-5)
  close(logp_A, np.asarray(proposal_A) - expected_A / TAU)
  # It is another one than equation 8 makes.
  assert changed(state, run.state)
  run.step(state, DUE)
  assert len(run.traces) == 1


@functools.cache
def drawn(label, on):
  """Architectures of the last state, in many steps."""
  run = ran(label, on)

  @functools.partial(jax.jit, compiler_options=sampler_runs.QUICKLY)
  def draws(state, keys_T):
    return jax.vmap(lambda key: run.sampler.sample(state, key))(keys_T)

  keys_T = jax.random.split(jax.random.key(0), DRAWS)
  return np.asarray(draws(run.state, keys_T))


@pytest.mark.parametrize(
  ('label', 'on'),
  [
    marked(label, on, fast=on == 'digits' and label in DISTINCT)
    for label, on in EXACT
    if on in ('digits', 'pooling')
  ],
)
def test_frequencies_follow_the_probabilities(label, on):
  run, space = ran(label, on), spaces.get(on)
  archs_NxE = drawn(label, on)[..., : space.positions]
  rows_N = space.index(archs_NxE.reshape(-1, space.positions))
  share_A = np.bincount(rows_N, minlength=space.size) / len(rows_N)
  p_A = np.exp(np.asarray(run.log_probs(run.state)[0], np.float64))
  # Five standard errors; what has no probability is never drawn.
  assert (abs(share_A - p_A) <= 5 * np.sqrt(p_A / len(rows_N))).all()
  # The paths of a step are independent of each other.
  p_AxA = np.outer(p_A, p_A)
  first_T, second_T = rows_N.reshape(-1, 2).T
  share_AxA = np.zeros_like(p_AxA)
  np.add.at(share_AxA, (first_T, second_T), 1 / len(first_T))
  assert abs(share_AxA - p_AxA).sum() < 2 * np.sqrt(p_AxA / DRAWS).sum()


@of([pair for pair in PAIRS if pair[0] == 'fair'])
def test_fair_trains_every_op_once_in_every_step(label, on):
  """Debiased or not, in orders that are drawn anew."""
  ops_P = np.arange(spaces.get(on).counts[0])
  archs_TxPxE = ran(label, on).archs_TxPxF
  assert (np.sort(archs_TxPxE, axis=1) == ops_P[:, None]).all()
  orders_TxExP = archs_TxPxE.swapaxes(1, 2)
  different = {
    order_P.tobytes() for order_P in orders_TxExP.reshape(-1, len(ops_P))
  }
  # Three ops have six; of more, hardly an order comes twice.
  possible = min(math.factorial(len(ops_P)), orders_TxExP[..., 0].size)
  assert len(different) > 0.6 * possible


def test_members_of_a_mixture_are_drawn_by_their_routes():
  run, archs_TxPxF = ran('mixture', 'digits'), drawn('mixture', 'digits')
  rows_N = spaces.get('digits').index(archs_TxPxF[..., :-1].reshape(-1, 4))
  share_AxM = np.zeros((81, MEMBERS))
  members_N = archs_TxPxF[..., -1].ravel()
  np.add.at(share_AxM, (rows_N, members_N), 1 / len(rows_N))
  p_A = np.exp(np.asarray(run.log_probs(run.state)[0], np.float64))
  route = jax.jit(routes, compiler_options=sampler_runs.QUICKLY)
  p_AxM = p_A[:, None] * np.asarray(route(run.state))
  assert np.ptp(p_AxM / p_A[:, None]) > 0.5
  # Five standard errors.
  assert (abs(share_AxM - p_AxM) <= 5 * np.sqrt(p_AxM / len(rows_N))).all()


@struct.dataclass
class Checkpointed:
  step: Any
  samplers: Any


@pytest.mark.parametrize(
  'on',
  [
    pytest.param(on, marks=[] if on in FAST else [pytest.mark.slow])
    for on in spaces.SPACES
  ],
)
def test_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path, on):
  of = {label: ran(label, on) for label in GIVEN if (label, on) in PAIRS}
  kept = Checkpointed(
    jnp.int32(sampler_runs.STEPS),
    {label: run.state for label, run in of.items()},
  )
  like = Checkpointed(
    jnp.int32(0), {label: run.sampler.init() for label, run in of.items()}
  )
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(kept, {})
  with Checkpoints(tmp_path) as checkpoints:
    restored, _ = checkpoints.restore(sampler_runs.STEPS, like)
  same(restored, kept)
  # Where it lies would be a reason to compile anew.
  restored = jax.tree.map(np.asarray, restored)
  for label, run in of.items():
    state, number = restored.samplers[label], sampler_runs.STEPS
    same(run.step(state, number), run.step(run.state, number))
    assert len(run.traces) == 1


def same(one, other):
  """Bit for bit, and of the same kind."""

  def check(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)

  jax.tree.map(check, one, other)


@pytest.fixture(scope='module')
def of_four(request, tmp_path_factory):
  """Architectures drawn by a process with four devices, by some samplers."""
  file = tmp_path_factory.mktemp('devices') / 'drawn.npz'
  return found_by(4, 'support.sampler_runs', file, *request.param)


# The other process compiles all programs once more; variants place their state
# as the plain samplers do.
PLAIN = [label for label in DISTINCT if ',' not in label]
VARIANTS = sorted({*DISTINCT} - {*PLAIN})


@pytest.mark.parametrize(
  'of_four',
  [
    pytest.param(PLAIN, id='plain'),
    pytest.param(VARIANTS, id='variants', marks=pytest.mark.slow),
  ],
  indirect=True,
)
def test_four_devices_draw_what_one_draws(of_four):
  """The state lies on all of them."""
  assert of_four
  for label, archs_TxPxF in of_four.items():
    expected = ran(label, 'digits').archs_TxPxF
    np.testing.assert_array_equal(archs_TxPxF, expected, label)


@pytest.mark.slow
@pytest.mark.parametrize('label', GIVEN)
def test_trains_and_is_debiased(tmp_path, label):
  flags, run = flags_in(tmp_path)
  for name, value in sampler_runs.fields(label).items():
    flags += [f'--sampler.{name}', str(value)]
  train.main(flags)
  experiment = build.experiment(run_folder.read_config(run))
  paths = 3 if label == 'fair' else 2
  assert experiment.paths == paths
  assert files.read_npz(run / 'samples.npz')['samples_A'].sum() == 15 * paths
  state = samplers.archs_state(final_state(run).sampler)
  assert float(state.tau) == pytest.approx(0.1)
  if experiment.sampler.rewards and label != 'mixture':
    of_rewards = {'boltzmann': 'rewards_A'}.get(label, 'value_N')
    assert (np.asarray(getattr(state.proposal, of_rewards)) > 0).any()
  if experiment.sampler.rebuild is not None:
    assert state.proposal.built
  assert len(metrics(run)) == 8
