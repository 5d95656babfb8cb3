import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import samplers, spaces
from jaxnas.runtime import rng

SPACES = ('digits', 'pooling', 'nas_bench_macro')


def density_of(count):
  return np.random.default_rng(0).uniform(1.0, 3.0, count)


@pytest.fixture(params=SPACES)
def space(request):
  return spaces.get(request.param)


@pytest.fixture(params=['uniform', 'zero density', 'debiased'])
def sampler_and_state(request, space):
  archs_AxE = space.enumerate()
  sampler = samplers.uniform(space, paths=3)
  if request.param == 'uniform':
    return sampler, sampler.init()
  sampler = samplers.debiased(sampler, archs_AxE, paths=3)
  state = sampler.init()
  if request.param == 'debiased':
    state = samplers.with_density(state, density_of(space.size), 0.7)
  return sampler, state


def test_samples_are_valid_and_follow_seed_and_step(space, sampler_and_state):
  sampler, state = sampler_and_state
  draws = [
    np.asarray(sampler.sample(state, rng.key(0, 'archs', step)))
    for step in (0, 0, 1)
  ]
  space.validate(draws[0])
  assert draws[0].shape == (3, space.positions)
  np.testing.assert_array_equal(draws[0], draws[1])
  assert (draws[0] != draws[2]).any()


def test_probabilities_sum_to_one(sampler_and_state):
  sampler, state = sampler_and_state
  p_A = np.exp(np.asarray(sampler.log_prob(state), np.float64))
  assert p_A.sum() == pytest.approx(1, abs=1e-5)


def test_frequencies_follow_the_probabilities():
  space = spaces.get('pooling')
  archs_AxE = space.enumerate()
  sampler = samplers.debiased(samplers.uniform(space), archs_AxE, paths=20_000)
  state = samplers.with_density(sampler.init(), density_of(36), 0.5)
  drawn_P = space.index(np.asarray(sampler.sample(state, jax.random.key(0))))
  share_A = np.bincount(drawn_P, minlength=36) / 20_000
  p_A = np.exp(np.asarray(sampler.log_prob(state)))
  # Five standard errors.
  assert (abs(share_A - p_A) < 5 * np.sqrt(p_A / 20_000)).all()


def test_debiased_is_the_softmax_of_equation_8():
  space = spaces.get('digits')
  archs_AxE = space.enumerate()
  alpha_A = density_of(81)
  sampler = samplers.debiased(samplers.uniform(space), archs_AxE)
  state = samplers.with_density(sampler.init(), alpha_A, 0.3)
  p_A = np.exp(-alpha_A / 0.3)
  np.testing.assert_allclose(
    np.exp(sampler.log_prob(state)), p_A / p_A.sum(), rtol=1e-5
  )


@pytest.mark.parametrize('alpha', [0.0, 4.2])
def test_equal_densities_are_the_proposal(alpha):
  space = spaces.get('digits')
  archs_AxE = space.enumerate()
  proposal = samplers.uniform(space, paths=50)
  sampler = samplers.debiased(proposal, archs_AxE, paths=50)
  state = samplers.with_density(sampler.init(), np.full(81, alpha), 0.5)
  np.testing.assert_array_equal(
    sampler.sample(state, jax.random.key(3)),
    proposal.sample(proposal.init(), jax.random.key(3)),
  )


def test_a_new_density_compiles_nothing():
  space = spaces.get('digits')
  archs_AxE = space.enumerate()
  sampler = samplers.debiased(samplers.uniform(space), archs_AxE)
  traces = []

  @jax.jit
  def sample(state, key):
    traces.append(1)
    return sampler.sample(state, key)

  state = sampler.init()
  sample(state, jax.random.key(0))
  sample(samplers.with_density(state, density_of(81), 2.0), jax.random.key(0))
  assert len(traces) == 1


@pytest.mark.parametrize('fraction', [0.9, 0.5, 0.1, 0.02])
def test_solved_temperature_leaves_the_share_asked_for(fraction):
  alpha_A = density_of(729)
  logp_A = np.full(729, -np.log(729))
  tau = samplers.solve_temperature(logp_A, alpha_A, fraction)
  number = samplers.effective_number(logp_A - alpha_A / tau)
  assert number / 729 == pytest.approx(fraction, rel=1e-6)


def test_effective_number_of_known_distributions():
  assert samplers.effective_number(np.log(np.full(10, 0.1))) == pytest.approx(
    10
  )
  with np.errstate(divide='ignore'):
    collapsed_A = np.log(np.eye(10)[3])
  assert samplers.effective_number(collapsed_A) == pytest.approx(1)


@pytest.mark.parametrize(
  ('alpha_A', 'fraction', 'says'),
  [(np.ones(10), 0.5, 'same density'), (np.arange(10.0), 0.05, 'below 0.1')],
)
def test_no_temperature(alpha_A, fraction, says):
  with pytest.raises(ArithmeticError, match=says):
    samplers.solve_temperature(np.zeros(10), alpha_A, fraction)


@pytest.mark.parametrize(
  ('tau', 'says'), [(50.0, 'nearly uniform'), (0.01, 'a few'), (1.0, None)]
)
def test_description_warns(tau, says):
  alpha_A = density_of(81)
  logp_A = jax.nn.log_softmax(jnp.asarray(-alpha_A / tau))
  text = samplers.describe(alpha_A, tau, logp_A)
  assert 'of 81 architectures' in text
  assert ('warning' in text) == (says is not None)
  assert says is None or says in text
