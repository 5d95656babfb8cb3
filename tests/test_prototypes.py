"""Prototypes against the exact density, their predictions, and their limit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import config, density, samplers, spaces
from jaxnas.density import predictions, prototypes
from jaxnas.experiment import build, cost, debias, densities, online, schedule
from jaxnas.truth import correlation
from support.runs import flags_in

DIGITS, POOLING = spaces.get('digits'), spaces.get('pooling')
ARCHS_AxE = DIGITS.enumerate()


def units(space, dimension=40, seed=0, interactions=0.2):
  """Unit vectors of all archs: a sum over positions, and of some pairs."""
  generator = np.random.default_rng(seed)
  archs_AxE = space.enumerate()
  u_AxD = 1 + np.zeros((len(archs_AxE), dimension))
  for e in range(space.positions):
    of_op_OxD = generator.normal(size=(space.counts[e], dimension))
    u_AxD += of_op_OxD[archs_AxE[:, e]] / (1 + e)
    pair_A = archs_AxE[:, e] * archs_AxE[:, e - 1]
    of_pair_OxD = generator.normal(size=(pair_A.max() + 1, dimension))
    u_AxD += interactions * of_pair_OxD[pair_A]
  return u_AxD / np.linalg.norm(u_AxD, axis=1, keepdims=True)


def test_gram_is_the_mean_of_tensors_and_one_with_itself():
  features = {
    name: units(DIGITS, seed=seed).astype(np.float32)
    for seed, name in enumerate('ab')
  }
  features['b'][5] = 0
  expected_AxA = sum(f.astype(float) @ f.T for f in features.values()) / 2
  np.fill_diagonal(expected_AxA, 1)
  np.testing.assert_allclose(prototypes.gram(features), expected_AxA, atol=1e-6)


def by_hand(u_MxD, cluster_M, share_M):
  """Twin in loops: unit centroids from which the own part is taken."""
  out = []
  for a, u_D in enumerate(u_MxD):
    total = 0.0
    for k in range(cluster_M.max() + 1):
      of_k = [m for m in np.flatnonzero(cluster_M == k) if m != a]
      centroid_D = sum((share_M[m] * u_MxD[m] for m in of_k), 0 * u_D)
      length = np.linalg.norm(centroid_D)
      distance = 1 - u_D @ centroid_D / length if length > 1e-9 else 0
      total += share_M[cluster_M == k].sum() * distance
    out.append(total)
  return out


@pytest.mark.parametrize('count', [1, 5, 30, 100])
def test_distances_equal_the_loop_in_numpy(count):
  u_MxD = units(DIGITS)[::3]
  gram_MxM = u_MxD @ u_MxD.T
  generator = np.random.default_rng(1)
  cluster_M = prototypes.cluster(gram_MxM, count, generator)
  share_M = generator.dirichlet(np.ones(27))
  np.testing.assert_allclose(
    prototypes.distances(gram_MxM, cluster_M, share_M),
    by_hand(u_MxD, cluster_M, share_M),
    atol=1e-9,
  )


def test_a_prototype_each_of_all_is_the_exact_density():
  u_AxD = units(DIGITS)
  gram_AxA = u_AxD @ u_AxD.T
  cluster_A = prototypes.cluster(gram_AxA, 81, np.random.default_rng(0))
  distance_A = prototypes.distances(gram_AxA, cluster_A, np.full(81, 1 / 81))
  np.testing.assert_allclose(
    1 / (distance_A * 81 / 80), density.inverse_mean_distance(u_AxD), rtol=1e-5
  )


def test_clusters_gather_what_is_alike():
  generator = np.random.default_rng(0)
  centre_KxD = np.eye(4, 12)
  of_M = np.repeat(np.arange(4), 15)
  u_MxD = centre_KxD[of_M] + 0.1 * generator.normal(size=(60, 12))
  u_MxD /= np.linalg.norm(u_MxD, axis=1, keepdims=True)
  cluster_M = prototypes.cluster(u_MxD @ u_MxD.T, 4, generator)
  assert len({*zip(of_M, cluster_M, strict=True)}) == 4


def test_predicts_what_is_left_out_as_it_is_left_out():
  """The closed form, against a regression without the one architecture."""
  u_MxD = units(DIGITS)[::2]
  smoother = predictions.choose(ARCHS_AxE[::2], u_MxD @ u_MxD.T)
  value_M = u_MxD[:, 0]
  found_M = predictions.left_out(smoother, value_M)
  kernel_MxM = np.linalg.inv(smoother.inverse_MxM)
  for m in (0, 17, 40):
    rest = np.arange(len(value_M)) != m
    centred_M = value_M - value_M.mean()
    dual = np.linalg.solve(kernel_MxM[np.ix_(rest, rest)], centred_M[rest])
    expected = value_M.mean() + kernel_MxM[m, rest] @ dual
    assert found_M[m] == pytest.approx(expected, abs=1e-8)


def test_weights_and_the_jitted_lookup_say_the_same():
  u_MxD = units(DIGITS)[::2]
  smoother = predictions.choose(ARCHS_AxE[::2], u_MxD @ u_MxD.T)
  weight_AxM = predictions.weights(smoother, ARCHS_AxE)
  np.testing.assert_allclose(weight_AxM.sum(axis=1), 1, atol=1e-9)
  value_M = u_MxD[:, 1]
  found_A = jax.jit(predictions.predict)(
    predictions.predictor(smoother, value_M), jnp.asarray(ARCHS_AxE)
  )
  np.testing.assert_allclose(found_A, weight_AxM @ value_M, atol=1e-4)
  blank = predictions.blank(*ARCHS_AxE[::2].shape)
  np.testing.assert_array_equal(
    predictions.predict(blank, jnp.asarray(ARCHS_AxE)), 0
  )


@pytest.mark.parametrize(
  ('space', 'few', 'least'), [(DIGITS, 40, 0.9), (POOLING, 18, 0.9)]
)
def test_half_of_a_space_orders_all_of_it(space, few, least):
  u_AxD = units(space, interactions=0.05)
  if space is POOLING:
    # What a block sees decides, as in its gradients.
    of_size_BxSxD = np.random.default_rng(0).normal(size=(9, 3, 40))
    size_AxB = space.codes(space.enumerate())
    u_AxD = 1 + of_size_BxSxD[np.arange(9), size_AxB].mean(axis=1)
    u_AxD /= np.linalg.norm(u_AxD, axis=1, keepdims=True)
  exact_A = density.inverse_mean_distance(u_AxD)
  generator = np.random.default_rng(0)
  rows = np.sort(generator.choice(space.size, few, replace=False))
  gram_MxM = u_AxD[rows] @ u_AxD[rows].T
  codes_AxF = space.codes(space.enumerate())
  smoother = predictions.choose(codes_AxF[rows], gram_MxM)
  weight_AxM = predictions.weights(smoother, codes_AxF)
  weight_AxM[rows] = np.eye(few)
  share_M = online.shares(weight_AxM, np.full(space.size, 1 / space.size))
  cluster_M = prototypes.cluster(gram_MxM, 64, generator)
  distance_M = prototypes.distances(gram_MxM, cluster_M, share_M)
  found_A = 1 / (weight_AxM @ distance_M)
  assert correlation.spearman(found_A, exact_A) > least


def given(folder, rule='eq8', space=None, **density_fields):
  flags_in(folder)
  tiny = config.load(str(folder / 'tiny.py'))
  fields = {'batch_size': 50, 'estimator': 'prototypes', 'archs': 30}
  return dataclasses.replace(
    tiny,
    space=space or tiny.space,
    debias=config.Debias(effective_fraction=0.5, rule=rule),
    density=config.Density(**{**fields, **density_fields}),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('rule', 'fraction'), [('eq8', 0.5), ('self_consistent', 0.9)]
)
def test_a_run_is_debiased_by_what_few_architectures_predict(
  tmp_path, rule, fraction, capsys
):
  # So few steps teach a supernet little that encodings could predict.
  asked = given(tmp_path, rule, archs=60)
  experiment = build.experiment(
    dataclasses.replace(
      asked,
      debias=dataclasses.replace(asked.debias, effective_fraction=fraction),
    )
  )
  state, rows = experiment.init_state(), []
  debiased = debias.debias(experiment, state, 1, tmp_path, record=rows.append)
  assert '60 of 81 architectures in 60 prototypes' in capsys.readouterr().out
  assert 0 < rows[0]['density_spearman'] <= 1
  saved = density.load(tmp_path / 'density.npz', ARCHS_AxE)
  snapshot = densities.snapshot(experiment, state)
  exact = densities.estimate(config.Density(batch_size=50), snapshot)
  assert correlation.spearman(saved.alpha_A, exact.alpha_A) > 0.7
  logp_A = experiment.sampler.log_prob(debiased.sampler)
  share = samplers.effective_number(np.asarray(logp_A)) / 81
  assert share == pytest.approx(fraction, abs=5e-3)
  # The denser ones are drawn less often.
  assert correlation.spearman(np.asarray(logp_A), exact.alpha_A) < -0.5


@pytest.mark.slow
def test_measuring_all_of_a_space_is_the_exact_density(tmp_path):
  experiment = build.experiment(
    given(tmp_path, archs=81, prototypes=81, memory_gb=1e-6)
  )
  state = experiment.init_state()
  measured = online.measure(experiment, state, tmp_path)
  snapshot = densities.snapshot(experiment, state)
  exact = densities.estimate(config.Density(batch_size=50), snapshot)
  np.testing.assert_allclose(online.of_all(measured), exact.alpha_A, rtol=1e-4)


def predicted(paths):
  """A sampler that looks densities up, and a state in which these differ."""
  proposal = samplers.uniform(DIGITS, paths=paths)
  sampler = samplers.among_candidates(
    proposal, samplers.predicted_densities(DIGITS, 40), candidates=32
  )
  u_MxD = units(DIGITS)[:80:2]
  smoother = predictions.choose(ARCHS_AxE[:80:2], u_MxD @ u_MxD.T)
  value_M = 2 + 5 * u_MxD[:, 0]
  evidence = samplers.Evidence(
    ARCHS_AxE,
    predictions.weights(smoother, ARCHS_AxE) @ value_M,
    predictor=predictions.predictor(smoother, value_M),
  )
  return sampler, evidence


@pytest.mark.parametrize('tau', [np.inf, 1.0])
def test_frequencies_follow_the_densities_that_are_looked_up(tau):
  sampler, evidence = predicted(paths=1000)
  state = sampler.init()
  assert float(state.tau) == np.inf
  if np.isfinite(tau):
    state = sampler.apply_density(
      state, evidence, samplers.rules.eq8(temperature=tau).weigh
    ).state
  drawn_P = DIGITS.index(
    np.asarray(jax.jit(sampler.sample)(state, jax.random.key(0)))
  )
  p_A = np.exp(-(evidence.alpha_A - evidence.alpha_A.min()) / tau)
  p_A /= p_A.sum()
  share_A = np.bincount(drawn_P, minlength=81) / len(drawn_P)
  # Five standard errors, and what 32 candidates leave of the softmax.
  assert (
    abs(share_A - p_A) < 5 * np.sqrt(p_A / len(drawn_P)) + 2 * p_A / 32
  ).all()


def test_prototypes_are_the_default_where_a_space_is_not_listed():
  assert online.used(config.Density(), spaces.get('mobilenet'))
  assert not online.used(config.Density(), DIGITS)
  assert online.used(config.Density(estimator='prototypes'), DIGITS)
  kde = config.Density(estimator='kde')
  assert not online.used(kde, spaces.get('mobilenet'))


def test_what_prototypes_cannot_serve_is_refused(tmp_path):
  for fields, says in (
    ({'measure': 'functional'}, 'clusters unit vectors'),
    ({'estimator': None}, 'digits is listed: set that'),
  ):
    with pytest.raises(ValueError, match=says) as raised:
      build.experiment(given(tmp_path, **fields))
    assert '\n' not in str(raised.value)


def test_a_dear_density_names_what_is_cheaper(tmp_path, monkeypatch):
  exact = given(tmp_path, space='nas_bench_macro', estimator=None, archs=500)
  experiment = build.experiment(exact)
  assert schedule.estimates_density(exact)
  epochs = cost.of_run(experiment)['epochs']['density']
  monkeypatch.setattr(cost, 'DEAR', epochs * 2)
  assert cost.advise(experiment) is None
  monkeypatch.setattr(cost, 'DEAR', epochs / 2)
  says = cost.advise(experiment)
  assert says is not None and f'costs {epochs:.3g} epochs of training' in says
  assert '--density.estimator prototypes' in says
  few = build.experiment(given(tmp_path))
  assert cost.advise(few) is None
  # Prototypes would measure every architecture of a small space.
  monkeypatch.setattr(cost, 'DEAR', 0)
  small = given(tmp_path, estimator=None, archs=500)
  assert cost.advise(build.experiment(small)) is None
  # The same images of each, but of fewer.
  assert cost.of_run(few)['extra_gradients']['density'] == 30 * 50
