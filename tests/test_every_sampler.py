"""Every sampler in a run: refused, or trained with and debiased."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import final_state, flags_in, metrics

from jaxnas import (
  build,
  config,
  runs,
  sampler_config,
  samplers,
  spaces,
  train,
)

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()


@pytest.mark.slow
@pytest.mark.parametrize('name', samplers.PROPOSALS)
def test_trains_and_is_debiased(tmp_path, name):
  flags, run = flags_in(tmp_path)
  flags += ['--sampler.name', name]
  if name == 'novelty':
    # Its ten nearest want a few visits.
    flags += ['--sampler.paths', '2']
  train.main(flags)
  experiment = build.experiment(runs.read_config(run))
  paths = {'fair': 3, 'novelty': 2}.get(name, 1)
  assert experiment.paths == paths
  assert runs.read_npz(run / 'samples.npz')['samples_A'].sum() == 15 * paths
  state = final_state(run).sampler
  assert float(state.tau) == pytest.approx(0.1)
  of_rewards = {
    'boltzmann': lambda proposal: proposal.rewards_A,
    'tree': lambda proposal: proposal.value_N,
  }
  if name in of_rewards:
    assert (np.asarray(of_rewards[name](state.proposal)) > 0).any()
  assert len(metrics(run)) == 8


def test_debiased_fair_steps_are_fair_and_prefer_sparse_ones():
  fair = samplers.fair(DIGITS)
  sampler = samplers.among_candidates(
    fair, samplers.listed(DIGITS), candidates=64
  )
  alpha_A = np.random.default_rng(0).uniform(1, 3, 81)
  state = sampler.init()._replace(
    density=jnp.asarray(alpha_A, jnp.float32), tau=jnp.float32(0.2)
  )
  keys = jax.random.split(jax.random.key(0), 200)
  debiased_SxPxE = np.asarray(
    jax.vmap(lambda key: sampler.sample(state, key))(keys)
  )
  plain_SxPxE = np.asarray(jax.vmap(lambda key: fair.sample((), key))(keys))
  assert (np.sort(debiased_SxPxE, axis=1) == np.arange(3)[:, None]).all()
  mean = [
    alpha_A[DIGITS.index(archs.reshape(-1, 4))].mean()
    for archs in (debiased_SxPxE, plain_SxPxE)
  ]
  assert mean[0] < mean[1] - 0.2


def test_debiasing_keeps_what_a_proposal_says_of_itself():
  tree = samplers.tree(DIGITS)
  assert samplers.debiased(tree, ARCHS_AxE).rewards
  fair = samplers.fair(DIGITS)
  wrapped = samplers.among_candidates(
    fair, samplers.listed(DIGITS), candidates=2
  )
  assert wrapped.together and not wrapped.rewards


@pytest.mark.parametrize('name', samplers.PROPOSALS)
def test_is_made_from_the_config_alone(name):
  given = config.Config(sampler=config.Sampler(name=name))
  sampler = sampler_config.proposal(given, DIGITS, steps_per_epoch=5)
  archs_PxE = np.asarray(sampler.sample(sampler.init(), jax.random.key(0)))
  DIGITS.validate(archs_PxE)
  assert sampler.rewards == (name in ('boltzmann', 'tree'))


@pytest.mark.parametrize(
  ('space', 'fields', 'says'),
  [
    ('pooling', {'name': 'fair'}, 'sampler fair'),
    ('pooling', {'name': 'importance'}, 'sampler importance draws'),
    ('mobilenet', {'name': 'boltzmann'}, 'sampler boltzmann needs'),
    ('mobilenet', {'name': 'tree'}, 'sampler tree needs'),
    ('mobilenet', {'name': 'uniform', 'cost_bins': 5}, 'sampler.cost_bins'),
    ('digits', {'name': 'fair', 'paths': 2}, 'fair'),
    ('digits', {'name': 'mixtur'}, 'Did you mean mixture'),
  ],
)
def test_what_a_sampler_cannot_serve_is_refused(space, fields, says):
  given = config.Config(sampler=config.Sampler(**fields))
  with pytest.raises(ValueError, match=says) as raised:
    sampler_config.proposal(given, spaces.get(space), steps_per_epoch=5)
  assert '\n' not in str(raised.value)


def test_candidates_are_refused_where_probabilities_are_exact():
  given = config.Config(debias=config.Debias(temperature=1.0, candidates=3))
  with pytest.raises(ValueError, match='has its exact probability'):
    build.experiment(given)
  fair = dataclasses.replace(given, sampler=config.Sampler(name='fair'))
  build.experiment(fair)
