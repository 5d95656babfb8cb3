"""Samplers that a config can have on each space, and what wrappers keep."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import config, samplers, spaces
from jaxnas.config.registry import SAMPLERS
from jaxnas.experiment import sampling
from support import sampler_runs
from support.sampler_runs import GIVEN, REFUSED, UNLISTED, experiment

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()
STEPS = 10_000
# A step of `fair` is 00 and 11, or 01 and 10.
TINY = dataclasses.replace(DIGITS, ops=(('a', 'b'), ('a', 'b')))


def refused(label, on, **options):
  """Returns the refusal, one line with its remedy; None where it is built."""
  try:
    sampler_runs.build(experiment(label, **options), on)
  except ValueError as error:
    says = str(error)
    assert '\n' not in says and says.endswith('.')
    assert on in says or f'sampler {label.partition(",")[0]}' in says
    return says
  return None


def test_what_cannot_be_served_is_refused_and_all_else_is_made():
  pairs = itertools.product(GIVEN, spaces.SPACES)
  assert {pair for pair in pairs if refused(*pair, debias=False)} == REFUSED
  # All refuse something, but for those three.
  assert {*GIVEN} - {label for label, _ in REFUSED} == {
    'uniform', 'importance, data', 'novelty'
  }  # fmt: skip


@pytest.mark.parametrize('on', UNLISTED)
def test_debiasing_what_is_not_listed_needs_prototypes(on):
  for label in GIVEN:
    says = refused(label, on, debias=True, estimator='inverse_mean_distance')
    assert says is not None
    if (label, on) not in REFUSED:
      assert 'set density.estimator prototypes' in says


@pytest.mark.slow
@pytest.mark.parametrize('on', ['digits', *UNLISTED])
def test_prototypes_debias_all_that_are_not_refused(on):
  for label in GIVEN:
    for rule in sampler_runs.RULES:
      options = {'debias': True, 'rule': rule, 'prototypes': 2}
      if on not in UNLISTED:
        options['estimator'] = 'prototypes'
      says = refused(label, on, **options)
      assert (says is not None) == ((label, on) in REFUSED)
      if says is not None:
        continue
      sampler = sampler_runs.build(experiment(label, **options), on)
      state = samplers.archs_state(jax.eval_shape(sampler.init))
      among = on in UNLISTED or label == 'fair'
      kind = samplers.CandidatesState if among else samplers.DebiasedState
      assert isinstance(state, kind)
      logp_A = jax.eval_shape(lambda s=sampler: s.log_prob(s.init()))
      assert (logp_A is None) == among


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'name': 'fair', 'paths': 2}, 'sampler.paths 2: fair .* set 1 or 3'),
    ({'name': 'mixtur'}, 'Did you mean mixture'),
    ({'name': 'tree', 'variant': 'path'}, "tree has no variant 'path'"),
    ({'name': 'importance', 'variant': 'default'}, "no variant 'default'"),
  ],
)
def test_options_that_it_cannot_serve_are_refused(fields, says):
  given = config.Config(sampler=config.Sampler(**fields))
  with pytest.raises(ValueError, match=says) as raised:
    sampling.proposal(given, DIGITS, steps_per_epoch=5)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('label', GIVEN)
def test_says_what_it_reads_and_what_belongs_together(label):
  given = experiment(label, debias=True)
  sampler = sampler_runs.build(given, 'digits')
  name = given.sampler.name
  assert sampler.rewards == (name in ('boltzmann', 'tree', 'mixture'))
  assert sampler.together == (name == 'fair')
  rebuilt = label in ('tree, iterative', 'tree, hierarchical')
  assert (sampler.rebuild is not None) == rebuilt
  assert samplers.paths(sampler) == (3 if name == 'fair' else 2)
  seldom = dataclasses.replace(
    given, sampler=dataclasses.replace(given.sampler, reward_every=2)
  )
  if sampler.rewards:
    sampler_runs.build(seldom, 'digits')
  else:
    with pytest.raises(ValueError, match=f'reward_every .*; {name} reads none'):
      sampler_runs.build(seldom, 'digits')


told = {}


def nosy(
  space,
  *,
  paths,
  steps_per_epoch,
  epochs,
  warmup_steps,
  steps,
  clip_norm,
  members,
  variant='its own',
):
  told.update(locals())
  return samplers.uniform(space)


def test_is_told_of_the_run_what_it_names():
  SAMPLERS.add('nosy', f'{__name__}:nosy')
  given = config.Config(
    warmup_epochs=2,
    epochs=3,
    sampler=config.Sampler(name='nosy', paths=4, members=6),
    optimizer=config.Optimizer(clip_norm=5.0),
  )
  try:
    sampling.proposal(given, DIGITS, steps_per_epoch=7)
  finally:
    SAMPLERS.remove('nosy')
  assert told == {
    'space': DIGITS, 'paths': 4, 'steps_per_epoch': 7, 'epochs': 5,
    'warmup_steps': 14, 'steps': 35, 'clip_norm': 5.0, 'members': 6,
    'variant': 'its own',
  }  # fmt: skip


@pytest.mark.parametrize(
  ('label', 'budget', 'steps'),
  [
    ('uniform', 'steps', 15),
    ('uniform', 'paths', 8),
    ('fair', 'paths', 5),
    ('mixture', 'paths', 8),
  ],
)
def test_a_budget_of_paths_has_fewer_steps(label, budget, steps):
  given = experiment(label, debias=False)
  given = dataclasses.replace(
    given, sampler=dataclasses.replace(given.sampler, budget=budget)
  )
  assert sampling.steps_per_epoch(given, DIGITS, 15) == steps


@functools.cache
def debiased_fair(candidates):
  """The sampler, and what it draws in many steps from a state."""
  sampler = samplers.among_candidates(
    samplers.fair(TINY), samplers.listed_densities(TINY), candidates=candidates
  )
  keys_T = jax.random.split(jax.random.key(0), STEPS)

  @functools.partial(jax.jit, compiler_options=sampler_runs.QUICKLY)
  def drawn(state):
    return jax.vmap(lambda key: sampler.sample(state, key))(keys_T)

  return sampler, lambda state: np.asarray(drawn(state))


@pytest.mark.parametrize('candidates', [1, 3])
def test_steps_of_fair_are_weighed_as_a_whole(candidates):
  sampler, drawn = debiased_fair(candidates)
  alpha_A, tau = np.array([1.0, 1.2, 2.0, 1.1]), 0.5
  archs_TxPxE = drawn(
    sampler.init()._replace(
      density=jnp.asarray(alpha_A, jnp.float32), tau=jnp.float32(tau)
    )
  )
  # Of M candidates k are of the first kind with probability binom(k) / 2^M.
  first = math.exp(-(alpha_A[0] + alpha_A[3]) / tau)
  second = math.exp(-(alpha_A[1] + alpha_A[2]) / tau)
  expected = sum(
    math.comb(candidates, k)
    / 2**candidates
    * (k * first / (k * first + (candidates - k) * second))
    for k in range(candidates + 1)
  )
  share = (archs_TxPxE[..., 0] == archs_TxPxE[..., 1]).all(axis=1).mean()
  # Five standard errors.
  assert abs(share - expected) < 5 * math.sqrt(
    expected * (1 - expected) / STEPS
  )
  # Were each path to choose alone, steps would not stay fair.
  assert (np.sort(archs_TxPxE, axis=1) == np.arange(2)[:, None]).all()


def test_equal_densities_choose_as_the_warm_up_does():
  sampler, drawn = debiased_fair(3)
  warm = sampler.init()
  assert np.isinf(warm.tau)
  equal = warm._replace(density=jnp.full(4, 2.0), tau=jnp.float32(0.5))
  np.testing.assert_array_equal(drawn(warm), drawn(equal))


def not_asked():
  pytest.fail('measures what this variant does not need')


def measurements(variant):
  rng = np.random.default_rng(0)
  if variant == 'iterative':
    return samplers.Measurements(lambda: rng.uniform(size=81), not_asked)
  return samplers.Measurements(not_asked, lambda: rng.normal(size=(81, 3)))


WRAPPERS = {
  'debiased': lambda tree: samplers.debiased(tree, ARCHS_AxE),
  'candidates': lambda tree: samplers.among_candidates(
    tree, samplers.listed_densities(DIGITS), candidates=2
  ),
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('variant', ['iterative', 'hierarchical'])
def test_rebuilding_changes_the_tree_inside_alone(wrapper, variant):
  tree = samplers.tree(DIGITS, variant=variant)
  sampler = WRAPPERS[wrapper](tree)
  state = sampler.init()._replace(tau=jnp.float32(0.7))
  dense = 'alpha_A' if wrapper == 'debiased' else 'density'
  state = state._replace(**{dense: jnp.arange(81.0)})
  after = sampler.rebuild(state, measurements(variant))
  alone = tree.rebuild(state.proposal, measurements(variant))
  jax.tree.map(np.testing.assert_array_equal, after.proposal, alone)
  assert alone.built and not state.proposal.built
  jax.tree.map(
    np.testing.assert_array_equal,
    after._replace(proposal=()),
    state._replace(proposal=()),
  )


def test_candidates_are_refused_where_probabilities_are_exact():
  given = experiment('uniform', debias=True)
  several = dataclasses.replace(
    given, debias=config.Debias(temperature=1.0, candidates=3)
  )
  with pytest.raises(ValueError, match='has its exact probability'):
    sampler_runs.build(several, 'digits')
  fair = dataclasses.replace(several, sampler=config.Sampler(name='fair'))
  sampler_runs.build(fair, 'digits')
