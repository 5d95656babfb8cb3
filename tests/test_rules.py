"""Rules of debiasing: fixed points against dense solves, and what they promise.

`support/pooling_distances.npz` holds the gradient distances of every two of
Pooling's 36 architectures, after five epochs on CIFAR-10.
"""

import dataclasses
import functools
import importlib
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

import jaxnas
from jaxnas import config, density, samplers, spaces, supernets
from jaxnas.config import registry, run_files, validation
from jaxnas.experiment import build, debias, densities, updates
from jaxnas.runtime import files
from jaxnas.samplers.rules import self_consistent as make
from jaxnas.samplers.rules.self_consistent import normalised, solve
from support import sampler_runs
from support.runs import flags_in

POOLING = Path(__file__).parent / 'support' / 'pooling_distances.npz'
STRENGTHS = 0.5, 5.0, 50.0
STRONG = 2000.0


def gram(seed, archs=30, dimension=12):
  """Unit vectors with something in common, in two tensors, and their Gram."""
  rng = np.random.default_rng(seed)
  units = {}
  for name in 'ab':
    u_AxD = 0.7 + rng.normal(size=(archs, dimension))
    u_AxD /= np.linalg.norm(u_AxD, axis=1, keepdims=True)
    units[name] = u_AxD.astype(np.float32)
  wide = [u_AxD.astype(float) for u_AxD in units.values()]
  gram_AxA = sum(u_AxD @ u_AxD.T for u_AxD in wide) / 2
  np.fill_diagonal(gram_AxA, 1)
  return units, gram_AxA


@functools.cache
def case(name):
  """Returns similarities, and the matrix that they are of."""
  if name == 'pooling':
    distance_P = np.load(POOLING)['distance_P']
    similarity = density.of_distances(distance_P, 36)
    return similarity, np.stack([*map(similarity.under, np.eye(36))])
  kind, _, seed = name.partition(' ')
  units, gram_AxA = gram(int(seed))
  if kind == 'vectors':
    return density.of_vectors(units), gram_AxA
  return density.of_matrix(gram_AxA), gram_AxA


CASES = 'pairs 0', 'pairs 1', 'vectors 0', 'vectors 1', 'pooling'
of_cases = pytest.mark.parametrize('name', CASES)


def proposals(count):
  """Uniform, one that is not, and one that leaves architectures out."""
  skewed_A = np.random.default_rng(3).uniform(0.1, 2, count)
  some_A = np.where(np.arange(count) % 5 == 2, 0, skewed_A)
  with np.errstate(divide='ignore'):
    return {
      name: np.log(q_A / q_A.sum())
      for name, q_A in (
        ('uniform', np.ones(count)),
        ('skewed', skewed_A),
        ('some', some_A),
      )
    }


def dense_solve(gram_AxA, logq_A, strength):
  """Newton's method on the same programme, from mild to strong."""
  drawn = np.flatnonzero(np.isfinite(logq_A))
  c_NxN, logq_N = gram_AxA[np.ix_(drawn, drawn)], logq_A[drawn]

  def gap(logp_N, at):
    return logp_N - normalised(logq_N - at * c_NxN @ np.exp(logp_N))

  logp_N, at = logq_N.copy(), 0.0
  while at < strength:
    # From one temperature to the next lower one.
    at = min(1.2 * at + 0.1, strength)
    for _ in range(50):
      residual_N, p_N = gap(logp_N, at), np.exp(logp_N)
      jacobian_NxN = np.eye(len(drawn)) + at * (c_NxN - p_N @ c_NxN) * p_N
      logp_N = normalised(logp_N - np.linalg.solve(jacobian_NxN, residual_N))
      if np.abs(residual_N).max() < 1e-12:
        break
  assert np.abs(gap(logp_N, strength)).max() < 1e-9
  p_A = np.zeros(len(logq_A))
  p_A[drawn] = np.exp(logp_N)
  return p_A


@of_cases
@pytest.mark.parametrize('strength', STRENGTHS)
def test_equals_a_dense_solve(name, strength):
  similarity, gram_AxA = case(name)
  for logq_A in proposals(len(gram_AxA)).values():
    found = solve(logq_A, similarity, strength)
    expected_A = dense_solve(gram_AxA, logq_A, strength)
    np.testing.assert_allclose(np.exp(found.logp_A), expected_A, atol=1e-6)
    update_A = gram_AxA @ expected_A
    np.testing.assert_allclose(found.update_A, update_A, atol=1e-6)


@pytest.mark.parametrize('name', ['pairs 0', 'pooling'])
def test_is_the_minimum_of_its_programme(name):
  """F, by another's method, is nowhere smaller."""
  similarity, gram_AxA = case(name)

  def programme(logits_A):
    logp_A = normalised(logits_A)
    p_A = np.exp(logp_A)
    return 10 * p_A @ gram_AxA @ p_A + p_A @ logp_A

  logq_A = proposals(len(gram_AxA))['uniform']
  found = solve(logq_A, similarity, 20.0)
  best = scipy.optimize.minimize(programme, logq_A, method='L-BFGS-B')
  assert programme(found.logp_A) <= best.fun + 1e-9


@of_cases
def test_the_first_undamped_step_is_softmax_of_mean_similarity(name):
  """A temperature so high that the density hardly moves: equation 8."""
  similarity, gram_AxA = case(name)
  count = len(gram_AxA)
  logq_A = proposals(count)['uniform']
  first_A = similarity.under(np.exp(logq_A))
  np.testing.assert_allclose(first_A, gram_AxA.mean(axis=1), atol=1e-6)
  expected_A = normalised(-1e-3 * gram_AxA.mean(axis=1))
  found = solve(logq_A, similarity, 1e-3)
  # Later steps are of the second order in lambda.
  np.testing.assert_allclose(found.logp_A, expected_A, atol=2e-6)
  assert np.abs(found.logp_A - logq_A).max() > 1e-5


@pytest.mark.parametrize('name', ['pairs 0', 'pairs 1', 'pooling'])
def test_its_limit_serves_the_worst_off_as_well_as_any_direction(name):
  similarity, gram_AxA = case(name)
  count = len(gram_AxA)
  found = solve(proposals(count)['uniform'], similarity, STRONG)
  p_A, update_A = np.exp(found.logp_A), found.update_A
  square = p_A @ update_A
  # The conditions of Karush, Kuhn and Tucker: mu on the support, above it
  # elsewhere, up to what log P / lambda still is.
  support_A = p_A > 1e-3
  near = -np.log(1e-3) / STRONG
  np.testing.assert_allclose(update_A[support_A], square, atol=near)
  assert update_A.min() > square - near
  # The shortest mean: non-negative least squares on the simplex.
  values_A, vectors_AxA = np.linalg.eigh(gram_AxA)
  root_AxA = np.sqrt(np.maximum(values_A, 0))[:, None] * vectors_AxA.T
  rows = np.vstack([root_AxA, np.full(count, 1e3)])
  least_A, _ = scipy.optimize.nnls(rows, np.append(np.zeros(count), 1e3))
  least_A /= least_A.sum()
  assert square <= least_A @ gram_AxA @ least_A + near
  # No other mixture moves so far along every gradient for its own length.
  worst = update_A.min() / np.sqrt(square)
  rng = np.random.default_rng(0)
  others = [np.full(count, 1 / count), *rng.dirichlet(np.ones(count), 200)]
  for other_A in [*others, *rng.dirichlet(np.full(count, 0.1), 200)]:
    length = np.sqrt(other_A @ gram_AxA @ other_A)
    assert (gram_AxA @ other_A).min() / length <= worst + near


@pytest.mark.parametrize(
  ('name', 'fraction'),
  [
    *((name, fraction) for name in CASES[:-1] for fraction in (0.9, 0.5)),
    *(('pooling', fraction) for fraction in updates.FRACTIONS),
  ],
)
def test_a_fraction_is_met_and_reported_beside_the_others(name, fraction):
  similarity, gram_AxA = case(name)
  count = len(gram_AxA)
  for logq_A in proposals(count).values():
    rule = make(effective_fraction=fraction)
    evidence = samplers.Evidence(
      np.zeros((count, 1)), np.ones(count), similarity
    )
    factor = rule.weigh(logq_A, evidence)
    logp_A = normalised(logq_A - factor.alpha_A / factor.tau)
    share = samplers.effective_number(logp_A) / samplers.effective_number(
      logq_A
    )
    assert share == pytest.approx(fraction, rel=1e-3)
    # Its density is the one under what is drawn in the end.
    np.testing.assert_allclose(
      factor.alpha_A, gram_AxA @ np.exp(logp_A), atol=1e-6
    )
  logq_A = proposals(count)['uniform']
  alpha_A = (count - 1) / (count - gram_AxA.sum(axis=1))
  evidence = samplers.Evidence(np.zeros((count, 1)), alpha_A, similarity)
  rows = {
    row.rule: row for row in updates.compare(logq_A, evidence, [fraction])
  }
  assert [*rows] == ['proposal', 'eq8', 'self_consistent']
  # What is drawn has less in common than under the proposal.
  square = {rule: row.p_A @ row.update_A for rule, row in rows.items()}
  assert square['self_consistent'] < square['proposal']
  if name == 'pooling':
    smallest = {rule: row.update_A.min() for rule, row in rows.items()}
    assert smallest['self_consistent'] > smallest['proposal']
    # Equation 8 overshoots where it is strong.
    strong = fraction in (0.5, 0.3)
    assert (smallest['self_consistent'] > smallest['eq8']) == strong


def test_scales_change_the_unit_and_not_the_rule():
  similarity, gram_AxA = case('pairs 0')
  logq_A = proposals(len(gram_AxA))['uniform']
  evidence = samplers.Evidence(
    np.zeros((30, 1)), gram_AxA.mean(axis=1), similarity
  )
  unit = similarity.under(np.exp(logq_A)).std()
  by_std = make(temperature=0.5, scale='std').weigh(logq_A, evidence)
  raw = make(temperature=0.5 * unit).weigh(logq_A, evidence)
  assert by_std.tau == pytest.approx(0.5)
  np.testing.assert_allclose(
    by_std.alpha_A / by_std.tau, raw.alpha_A / raw.tau, rtol=1e-6
  )


def test_claims_no_convergence_that_it_did_not_reach(monkeypatch):
  module = importlib.import_module(solve.__module__)
  monkeypatch.setattr(module, 'MOST_ITERATIONS', 3)
  similarity, gram_AxA = case('pairs 0')
  with pytest.raises(
    ArithmeticError, match=r'not converged in 3 .*still moves'
  ):
    solve(proposals(len(gram_AxA))['uniform'], similarity, 50.0)


def test_a_fraction_out_of_reach_is_refused():
  """The shortest mean of orthogonal units is uniform."""
  similarity = density.of_matrix(np.eye(6) + 0.1 * np.diag(np.arange(6)))
  evidence = samplers.Evidence(np.zeros((6, 1)), np.ones(6), similarity)
  uniform_A = np.full(6, -np.log(6))
  with pytest.raises(ArithmeticError, match=r'fraction 0.2 is below 0.9'):
    make(effective_fraction=0.2).weigh(uniform_A, evidence)
  alike = evidence._replace(similarity=density.of_matrix(np.ones((6, 6))))
  with pytest.raises(ArithmeticError, match='the same density'):
    make(effective_fraction=0.5).weigh(uniform_A, alike)


def test_vectors_keep_what_little_differs_and_count_absent_tensors():
  """Gradients 1e-4 apart, and one that has none of a tensor."""
  rng = np.random.default_rng(0)
  common_D = rng.normal(size=40)
  units = {}
  for name in 'ab':
    u_AxD = common_D + 1e-4 * rng.normal(size=(20, 40))
    u_AxD /= np.linalg.norm(u_AxD, axis=1, keepdims=True)
    units[name] = u_AxD.astype(np.float32)
  wide = {name: u_AxD.astype(float) for name, u_AxD in units.items()}
  p_A = rng.dirichlet(np.ones(20))
  expected_A = sum(u @ (u.T @ p_A) for u in wide.values()) / 2
  found_A = density.of_vectors(units).under(p_A)
  differ_A = expected_A - expected_A.mean()
  np.testing.assert_allclose(
    found_A - found_A.mean(), differ_A, atol=1e-3 * np.ptp(differ_A)
  )
  units['a'][3] = 0
  wide['a'][3] = 0
  gram_AxA = sum(u @ u.T for u in wide.values()) / 2
  gram_AxA[3, 3] = 1
  found_A = density.of_vectors(units).under(p_A)
  np.testing.assert_allclose(found_A, gram_AxA @ p_A, atol=1e-6)


def test_blocks_of_any_size_say_the_same(monkeypatch):
  units, gram_AxA = gram(2)
  p_A = np.random.default_rng(0).dirichlet(np.ones(30))
  for numbers in (1, 24 * 7, 10**6):
    monkeypatch.setattr('jaxnas.density.similarity.BLOCK', numbers)
    found_A = density.of_vectors(units).under(p_A)
    np.testing.assert_allclose(found_A, gram_AxA @ p_A, atol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'estimator': 'kde'}, 'use density.estimator inverse_mean_distance'),
    ({'measure': 'encoding'}, 'at most 1000 architectures'),
    ({'absent': 'skip'}, 'at most 1000 architectures'),
  ],
)
def test_what_no_rule_can_know_is_refused_before_any_work(fields, says):
  space = spaces.get('nas_bench_macro')
  given = config.Config(
    space=space.name,
    debias=config.Debias(effective_fraction=0.5, rule='self_consistent'),
    density=config.Density(**fields),
  )
  validation.validate(given)
  with pytest.raises(ValueError, match=says) as raised:
    debias.check(given, space, supernets.build(space))
  assert '\n' not in str(raised.value)


def test_a_file_without_distances_is_refused(tmp_path):
  space = spaces.get('digits')
  file = tmp_path / 'd.npz'
  alpha_A = sampler_runs.alpha_of(81)
  given = config.Config(
    debias=config.Debias(effective_fraction=0.5, rule='self_consistent'),
    density=config.Density(file=str(file)),
  )
  density.save(density.Density(space.enumerate(), alpha_A), file)
  with pytest.raises(ValueError, match='no distances of every two'):
    debias.check(given, space, supernets.build(space))
  distance_P = np.random.default_rng(0).uniform(0.1, 0.3, 81 * 40)
  density.save(density.Density(space.enumerate(), alpha_A, distance_P), file)
  debias.check(given, space, supernets.build(space))


def test_a_rule_without_debiasing_is_refused():
  given = config.Config(debias=config.Debias(rule='self_consistent'))
  with pytest.raises(ValueError, match='needs debiasing'):
    validation.validate(given)
  with pytest.raises(ValueError, match='Did you mean self_consistent'):
    validation.validate(
      config.Config(debias=config.Debias(temperature=1.0, rule='self_consist'))
    )


@dataclasses.dataclass(frozen=True)
class Power:
  exponent: float = 1.0


def powered(temperature, options):
  """A rule from outside: a power of the density."""

  def weigh(logp_A, evidence):
    return samplers.Factor(evidence.alpha_A**options.exponent, temperature)

  return samplers.Rule(weigh)


def test_a_rule_of_ones_own_is_a_function_and_a_line():
  jaxnas.register_rule('powered', powered, Power)
  try:
    given = config.Config(
      debias=config.Debias(
        temperature=0.7, rule='powered', options={'exponent': 2.0}
      )
    )
    validation.validate(given)
    evidence = samplers.Evidence(np.zeros((3, 1)), np.array([1.0, 2.0, 3.0]))
    factor = updates.of_uniform(given, evidence)
  finally:
    registry.RULES.remove('powered')
  assert (factor.alpha_A.tolist(), factor.tau) == ([1.0, 4.0, 9.0], 0.7)


@pytest.mark.slow
def test_a_run_writes_its_updates_wherever_its_gradients_lie(
  tmp_path, monkeypatch
):
  """In memory, on the disk, or with distances of every two."""
  flags_in(tmp_path)
  tiny = dataclasses.replace(
    config.load(str(tmp_path / 'tiny.py')),
    debias=config.Debias(effective_fraction=0.5, rule='self_consistent'),
  )
  experiment = build.experiment(tiny)
  state = experiment.init_state()
  found = {}
  for where, pairs, memory_gb in (
    ('pairs', densities.PAIRS_KEPT, 2.0),
    ('memory', 2, 2.0),
    ('disk', 2, 1e-6),
  ):
    monkeypatch.setattr(densities, 'PAIRS_KEPT', pairs)
    given = dataclasses.replace(tiny.density, memory_gb=memory_gb)
    there = dataclasses.replace(
      experiment, config=dataclasses.replace(tiny, density=given)
    )
    folder = tmp_path / where
    folder.mkdir()
    for again in range(2):
      # The second time the density is read, and features are not at hand.
      debiased = debias.debias(there, state, 1, folder)
      facts = {'config': there.run_digest}
      found[where, again], _ = files.read_arrays(
        folder / updates.FILE, run_files.UPDATES, facts
      )
      logp_A = experiment.sampler.log_prob(debiased.sampler)
      np.testing.assert_allclose(
        np.exp(logp_A), found[where, again]['probability_RxA'][-1], rtol=1e-4
      )
    assert sorted(file.name for file in folder.iterdir()) == [
      'debiasing.json', 'density.npz', 'updates.npz',
    ]  # fmt: skip
  first, *others = found.values()
  assert [*first['rule_R']] == ['proposal', 'eq8', 'self_consistent']
  np.testing.assert_allclose(first['fraction_R'], [1, 0.5, 0.5], rtol=1e-3)
  for other in others:
    for name in ('probability_RxA', 'update_RxA'):
      np.testing.assert_allclose(other[name], first[name], atol=1e-4)
