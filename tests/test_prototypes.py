"""Online prototypes against a loop in numpy, and their limit of one each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import density, samplers, spaces, supernets
from jaxnas.density import prototypes
from jaxnas.density.features import Gradients, read

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()
LINEAR = functools.partial(prototypes.linear, ops=3)


def stream(count, dimension, seed=0):
  """Visits to a few archs, with noisy directions of their own."""
  rng = np.random.default_rng(seed)
  own_AxD = rng.normal(size=(9, dimension))
  visited_T = rng.integers(0, 9, count)
  points_TxD = own_AxD[visited_T] + rng.normal(size=(count, dimension))
  points_TxD /= np.linalg.norm(points_TxD, axis=1, keepdims=True)
  return ARCHS_AxE[visited_T], points_TxD.astype(np.float32)


@jax.jit
def after(state, archs_TxE, points_TxD):
  return jax.lax.scan(
    lambda state, visit: (prototypes.update(state, *visit), None),
    state,
    (archs_TxE, points_TxD),
  )[0]


def distances_by_hand(archs_TxE, points_TxD, clusters):
  """The same clustering and archive, with dicts and loops."""
  means, taken, archive = [], [], {}
  for arch_E, point_D in zip(archs_TxE, points_TxD.astype(float), strict=True):
    key = tuple(arch_E.tolist())
    if key not in archive and len(means) < clusters:
      archive[key] = len(means)
      means.append(np.zeros_like(point_D))
      taken.append(0)
    elif key not in archive:
      archive[key] = int(
        np.argmax([m_D @ point_D / np.linalg.norm(m_D) for m_D in means])
      )
    k = archive[key]
    taken[k] += 1
    rate = max(1 / taken[k], prototypes.SMALLEST_RATE)
    means[k] = (1 - rate) * means[k] + rate * point_D
  centroids = [m_D / np.linalg.norm(m_D) for m_D in means]
  return {
    key: np.mean(
      [
        1 - centroids[k] @ centroids[other]
        for name, other in archive.items()
        if name != key
      ]
    )
    for key, k in archive.items()
  }


@pytest.mark.parametrize('clusters', [2, 5, 30])
def test_equals_the_loop_in_numpy(clusters):
  archs_TxE, points_TxD = stream(60, 12)
  state = after(prototypes.init(clusters, 12, 4), archs_TxE, points_TxD)
  expected = distances_by_hand(archs_TxE, points_TxD, clusters)
  visited_V = np.asarray(state.visit_V) > 0
  rows = np.asarray(state.archs_VxE)[visited_V].tolist()
  assert {tuple(row) for row in rows} == {*expected}
  distance_V = np.asarray(prototypes.distances(state))[visited_V]
  np.testing.assert_allclose(
    distance_V, [expected[tuple(row)] for row in rows], atol=1e-5
  )


def test_the_oldest_gives_way_and_a_visit_renews():
  archs_TxE, points_TxD = ARCHS_AxE[:6], np.eye(6, dtype=np.float32)
  state = prototypes.init(2, 6, 4, archive=3)
  for t in (0, 1, 2, 0, 3, 4):
    state = prototypes.update(
      state, jnp.asarray(archs_TxE[t]), jnp.asarray(points_TxD[t])
    )
  kept = {tuple(row) for row in np.asarray(state.archs_VxE).tolist()}
  assert kept == {tuple(archs_TxE[t].tolist()) for t in (0, 3, 4)}


@pytest.fixture(scope='module')
def points_AxD():
  """Gradients of all digits archs on one batch, at frozen weights."""
  net = supernets.build(DIGITS)
  params = supernets.init(net, ARCHS_AxE[0], 0)['params']
  rng = np.random.default_rng(0)
  images = [jnp.asarray(rng.normal(size=(32, 8, 8, 1)), jnp.float32)]
  labels = [jnp.asarray(rng.integers(0, 10, 32), jnp.int32)]
  names = density.gradient(net, params, ARCHS_AxE).read.tensors
  out = {}
  for block in read(net, params, ARCHS_AxE, images, labels, Gradients(names)):
    rows = jnp.concatenate([block.values[name] for name in names], axis=1)
    out |= dict(zip(block.indices_C, np.asarray(rows), strict=True))
  return np.stack([out[a] for a in range(81)]) / np.sqrt(len(names))


def test_tends_to_the_fine_grained_density(points_AxD):
  """Nearest visited architectures, which here are the architectures."""
  fine_A = density.inverse_mean_distance(points_AxD)
  error = []
  for clusters in (3, 27, 81):
    state = prototypes.init(clusters, points_AxD.shape[1], 4, archive=81)
    for _ in range(2):
      state = after(state, ARCHS_AxE, points_AxD)
    alpha_A = np.asarray(prototypes.nearest(state, jnp.asarray(ARCHS_AxE)))
    error.append(abs(alpha_A / fine_A - 1).mean())
  assert error == sorted(error, reverse=True)
  assert error[0] > 0.01
  assert error[-1] < 1e-5


def visited(visited_A):
  """A state in which some of the archs were visited, each one's own slot."""
  state = prototypes.init(2, 2, 4, archive=81)
  return state._replace(
    archs_VxE=jnp.asarray(ARCHS_AxE),
    visit_V=jnp.where(visited_A, jnp.arange(1, 82), 0),
  )


def test_unseen_architectures_take_the_nearest_or_the_fit(monkeypatch):
  # Distances that are a sum over positions.
  of_op_ExO = np.random.default_rng(0).uniform(0.05, 0.2, (4, 3))
  distance_A = of_op_ExO[np.arange(4), ARCHS_AxE].sum(axis=1)
  monkeypatch.setattr(
    prototypes, 'distances', lambda state: jnp.asarray(distance_A, jnp.float32)
  )
  seen_A = np.random.default_rng(1).random(81) < 0.5
  state, unseen_MxE = visited(seen_A), ARCHS_AxE[~seen_A]

  differ_MxV = (unseen_MxE[:, None] != ARCHS_AxE[seen_A]).sum(axis=2)
  nearest_MxV = differ_MxV == differ_MxV.min(axis=1, keepdims=True)
  expected_M = [distance_A[seen_A][row].mean() for row in nearest_MxV]
  found_M = prototypes.nearest(state, jnp.asarray(unseen_MxE))
  np.testing.assert_allclose(1 / found_M, expected_M, rtol=1e-5)

  fitted_M = 1 / np.asarray(LINEAR(state, jnp.asarray(unseen_MxE)))
  # The ridge pulls 40 rows a little towards their mean.
  np.testing.assert_allclose(fitted_M, distance_A[~seen_A], rtol=0.06)
  assert np.corrcoef(fitted_M, distance_A[~seen_A])[0, 1] > 0.999


@pytest.mark.parametrize('lookup', [LINEAR, prototypes.nearest])
def test_before_the_first_visit_all_are_alike(lookup):
  state = prototypes.init(3, 5, 4)
  alpha_A = np.asarray(lookup(state, jnp.asarray(ARCHS_AxE)))
  np.testing.assert_array_equal(alpha_A, 1)


ALPHA_A = np.random.default_rng(2).uniform(1.0, 3.0, 81)


def online(paths):
  """A sampler whose lookup knows the density of every arch, 1 to 3."""

  def lookup(state, archs_MxE):
    del state
    weights_E = jnp.array([27, 9, 3, 1])
    return jnp.asarray(ALPHA_A, jnp.float32)[archs_MxE @ weights_E]

  densities = samplers.clustered(
    functools.partial(prototypes.init, 2, 2, 4), lookup, ('head/kernel',)
  )
  proposal = samplers.uniform(DIGITS, paths=paths)
  return samplers.among_candidates(proposal, densities, candidates=32)


@pytest.mark.parametrize('tau', [np.inf, 1.0])
def test_frequencies_follow_the_densities(tau):
  sampler = online(paths=4000)
  state = sampler.init()
  assert float(state.tau) == np.inf
  state = state._replace(tau=jnp.float32(tau))
  drawn_P = DIGITS.index(np.asarray(sampler.sample(state, jax.random.key(0))))
  p_A = np.exp(-ALPHA_A / tau)
  p_A /= p_A.sum()
  share_A = np.bincount(drawn_P, minlength=81) / len(drawn_P)
  # Five standard errors, and what 32 candidates leave of the softmax.
  assert (
    abs(share_A - p_A) < 5 * np.sqrt(p_A / len(drawn_P)) + 2 * p_A / 32
  ).all()


def test_only_the_named_tensors_are_clustered():
  sampler = online(paths=1)
  gradient = {
    'head': {'kernel': jnp.array([3.0, 4.0]), 'bias': jnp.array([7.0])},
    'stem': {'kernel': jnp.array([9.0])},
  }
  arch_E = jnp.asarray(ARCHS_AxE[5])
  heard = samplers.Feedback(arch_E, gradient, jnp.float32(jnp.nan))
  state = sampler.update(sampler.init(), heard)
  np.testing.assert_allclose(
    state.density.means_KxD, [[0.6, 0.8], [0, 0]], rtol=1e-6
  )
  np.testing.assert_array_equal(state.density.archs_VxE[0], arch_E)


def test_tensors_are_normalised_one_by_one():
  point_D = prototypes.point({'a': jnp.array([3.0, 4.0]), 'b': jnp.ones(1)})
  np.testing.assert_allclose(
    point_D, np.array([0.6, 0.8, 1.0]) / np.sqrt(2), rtol=1e-6
  )
