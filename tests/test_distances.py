"""Distances and estimators against loops over pairs in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import density
from jaxnas.density import distances, estimators, measures, pairs, streaming
from jaxnas.runtime.devices import Chunk
from jaxnas.truth import correlation

COUNT = 10


@pytest.fixture(scope='module')
def units():
  """Unit vectors of two tensors; some archs lack one, one lacks both."""
  rng = np.random.default_rng(0)
  units = {
    'a': rng.normal(size=(COUNT, 5)) + 1,
    'b': rng.normal(size=(COUNT, 9)),
  }
  for name, absent in (('a', [2, 5]), ('b', [3, 4, 5])):
    units[name] /= np.linalg.norm(units[name], axis=1, keepdims=True)
    units[name][absent] = 0
  return {name: u_AxD.astype(np.float32) for name, u_AxD in units.items()}


def cosine_by_hand(f, g, skip=False):
  terms = []
  for name in f:
    both = np.any(f[name]) and np.any(g[name])
    if both or not skip:
      terms.append(1 - np.dot(np.float64(f[name]), np.float64(g[name])))
  return np.mean(terms) if terms else 1.0


def matrix_by_hand(distance, features, **options):
  """Every distance, one pair after the other."""
  count = len(next(iter(features.values())))
  points = [
    {n: np.asarray(f[i]) for n, f in features.items()} for i in range(count)
  ]
  return np.array(
    [
      [
        0.0 if i == j else distance(points[i], points[j], **options)
        for j in range(count)
      ]
      for i in range(count)
    ]
  )


def chunks_of(units, length):
  """Yields chunks of a length, the last one padded as `devices.chunks` does."""
  count = len(next(iter(units.values())))
  for start in range(0, count, length):
    all_C = np.arange(start, start + length)
    indices_C = np.minimum(all_C, count - 1)
    values = {name: jnp.asarray(u[indices_C]) for name, u in units.items()}
    yield Chunk(indices_C, all_C < count, values)


@pytest.mark.parametrize('length', [1, 4, COUNT, COUNT + 3])
@pytest.mark.parametrize('memory_bytes', [0.0, 1e9])
@pytest.mark.parametrize('order', [1, -1])
def test_the_streamed_mean_distance_is_that_of_pairs(
  units, length, memory_bytes, order
):
  chunks = list(chunks_of(units, length))[::order]
  distance_A = streaming.mean_cosine_distance(
    lambda: chunks, COUNT, memory_bytes=memory_bytes
  )
  expected_AxA = matrix_by_hand(cosine_by_hand, units)
  np.testing.assert_allclose(
    distance_A, expected_AxA.sum(axis=1) / (COUNT - 1), atol=1e-5, rtol=0
  )
  np.testing.assert_allclose(
    estimators.inverse_of(distance_A),
    estimators.inverse_mean_of_pairs(distances.cosine, units),
    rtol=1e-5,
  )


def alike(spread, count=600, dimension=50):
  """Rows around one direction, some of them farther out than others."""
  rng = np.random.default_rng(5)
  rows_AxD = rng.normal(size=(count, dimension))
  rows_AxD *= spread * rng.uniform(0.5, 1, (count, 1))
  return (rows_AxD + rng.normal(size=dimension)).astype(np.float32)


def mean_in_float64(rows_AxD):
  units_AxD = np.float64(rows_AxD)
  units_AxD /= np.linalg.norm(units_AxD, axis=1, keepdims=True)
  mean_D = units_AxD.mean(axis=0)
  square_A = np.square(units_AxD - mean_D).sum(axis=1)
  return (len(rows_AxD) * square_A + square_A.sum()) / 2 / (len(rows_AxD) - 1)


@pytest.mark.parametrize(
  ('spread', 'about', 'rtol'),
  [
    (1, 0.4, 1e-6), (1e-2, 6e-5, 1e-5), (4e-3, 1e-5, 1e-5), (1e-3, 6e-7, 1e-4),
    (1e-4, 6e-9, 1e-3),
  ],
)  # fmt: skip
def test_architectures_that_are_nearly_alike_are_told_apart(
  spread, about, rtol
):
  """A mean distance of 1e-5 was 8% off, and at 1e-6 their order was lost."""
  rows_AxD = alike(spread)
  expected_A = mean_in_float64(rows_AxD)
  np.testing.assert_allclose(expected_A.mean(), about, rtol=0.5)
  found_A = 1 / density.inverse_mean_distance(rows_AxD)
  np.testing.assert_allclose(found_A, expected_A, rtol=rtol)
  assert correlation.kendall(found_A, expected_A) > 0.999
  units = {'f': estimators._unit_rows(rows_AxD)['f']}
  by_tensor = streaming.distance_by_tensor(lambda: chunks_of(units, 7))
  np.testing.assert_allclose(by_tensor['f'], expected_A.mean(), rtol=rtol)


@pytest.mark.parametrize(
  ('spread', 'warns'), [(1e-1, False), (1e-2, False), (1e-3, True)]
)
@pytest.mark.parametrize('estimator', ['kde', 'pairs'])
def test_pairs_warn_where_rounding_counts(capsys, spread, warns, estimator):
  units = estimators._unit_rows(alike(spread, count=20))
  if estimator == 'kde':
    estimators.kernel_density(distances.cosine, measures.twice, units)
  else:
    estimators.inverse_mean_of_pairs(distances.cosine_of_both, units)
  assert ('warning: cosine distances' in capsys.readouterr().out) == warns


@pytest.mark.parametrize(('memory_bytes', 'times'), [(24.0, 1), (23.0, 2)])
def test_vectors_beyond_the_memory_are_asked_for_again(memory_bytes, times):
  asked = []

  def vectors():
    asked.append(1)
    return chunks_of({'f': np.eye(3, 2, dtype=np.float32)}, 2)

  streaming.mean_cosine_distance(vectors, 3, memory_bytes=memory_bytes)
  assert len(asked) == times


@pytest.mark.parametrize('rows', [1, 3, 5, COUNT, COUNT + 3])
def test_vectors_in_memory_come_in_equal_chunks(units, rows):
  chunks = [*streaming.in_memory(units, rows)]
  assert {len(chunk.real_C) for chunk in chunks} == {min(rows, COUNT)}
  for name, u_AxD in units.items():
    found = [chunk.values[name][chunk.real_C] for chunk in chunks]
    np.testing.assert_array_equal(np.concatenate(found), u_AxD)
  np.testing.assert_array_equal(
    np.concatenate([chunk.indices_C[chunk.real_C] for chunk in chunks]),
    np.arange(COUNT),
  )


@pytest.mark.parametrize('count', [2, 15, 16, 17, 32, 50])
def test_the_density_of_rows_is_that_of_pairs(count):
  f_AxD = np.random.default_rng(3).normal(size=(count, 7))
  units_AxD = f_AxD / np.linalg.norm(f_AxD, axis=1, keepdims=True)
  f_AxD[1] = units_AxD[1] = 0
  expected_AxA = matrix_by_hand(cosine_by_hand, {'f': units_AxD})
  np.testing.assert_allclose(
    1 / density.inverse_mean_distance(f_AxD),
    expected_AxA.sum(axis=1) / (count - 1),
    atol=1e-6,
    rtol=0,
  )


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(value):
  f_AxD = np.ones((20, 3))
  f_AxD[17, 1] = value
  with pytest.raises(streaming.NotFinite, match='architecture 17 are not'):
    density.inverse_mean_distance(f_AxD)


def test_a_unit_vector_needs_no_length_that_float32_holds():
  f_D = jnp.full(100, 5e37)
  np.testing.assert_allclose(distances.unit(f_D), 0.1, rtol=1e-6)


def test_a_mean_over_no_others_is_refused():
  with pytest.raises(ValueError, match='needs 2 archs, not 1'):
    density.inverse_mean_distance(np.ones((1, 3)))


def test_the_distance_by_tensor_is_of_those_that_have_it(units):
  lonely_Ax1 = np.zeros((COUNT, 1), np.float32)
  lonely_Ax1[4] = 1
  units = {**units, 'lonely': lonely_Ax1}
  found = streaming.distance_by_tensor(lambda: chunks_of(units, 4))
  for name in ('a', 'b'):
    have = {name: units[name][units[name].any(axis=1)]}
    expected_MxM = matrix_by_hand(cosine_by_hand, have)
    off = ~np.eye(len(expected_MxM), dtype=bool)
    assert found[name] == pytest.approx(expected_MxM[off].mean(), abs=1e-5)
  assert np.isnan(found['lonely'])


def test_identical_and_zero_gradients_are_defined():
  np.testing.assert_allclose(
    density.inverse_mean_distance(np.ones((4, 3))), 1e12, rtol=1e-3
  )
  np.testing.assert_array_equal(
    density.inverse_mean_distance(np.zeros((4, 3))), 1.0
  )
  # Half of the others are alike, half are zero: mean distances 2/3 and 1.
  mixed = density.inverse_mean_distance(np.eye(4, 3)[[0, 0, 3, 3]])
  np.testing.assert_allclose(mixed, [1.5, 1.5, 1, 1], rtol=1e-6)
  for features_AxD in (np.ones((4, 3)), np.zeros((4, 3))):
    for estimator in (density.inverse_mean_distance, density.kde):
      alpha_A = estimator(features_AxD)
      assert np.isfinite(alpha_A).all() and np.ptp(alpha_A) < 1e-9


@pytest.mark.parametrize(
  'estimator', [density.inverse_mean_distance, density.kde]
)
@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_only_directions_count(estimator, scale):
  features_AxD = np.random.default_rng(1).normal(size=(36, 9))
  scale_Ax1 = np.where(np.arange(36)[:, None] % 2, scale, 1.0)
  np.testing.assert_allclose(
    estimator(features_AxD * scale_Ax1), estimator(features_AxD), rtol=1e-5
  )


# --- pairs


def probabilities(count, images=7, classes=4):
  logits = 2 * np.random.default_rng(2).normal(size=(count, images, classes))
  return {'outputs': np.asarray(jax.nn.log_softmax(jnp.float32(logits)))}


def archs(count, positions=6):
  archs_AxE = np.random.default_rng(3).integers(0, 3, (count, positions))
  return {'arch': archs_AxE.astype(np.int32)}


def images_of(f, g):
  return zip(np.float64(f['outputs']), np.float64(g['outputs']), strict=True)


def euclidean_by_hand(f, g):
  return np.sqrt(np.sum([sum((x - y) ** 2) for x, y in images_of(f, g)]))


def divergence_by_hand(f, g):
  total = []
  for logp_K, logq_K in images_of(f, g):
    forth = sum(
      np.exp(p) * (p - q) for p, q in zip(logp_K, logq_K, strict=True)
    )
    back = sum(np.exp(q) * (q - p) for p, q in zip(logp_K, logq_K, strict=True))
    total.append((forth + back) / 2)
  return np.mean(total)


def hamming_by_hand(f, g):
  return sum(x != y for x, y in zip(f['arch'], g['arch'], strict=True))


def skip_by_hand(f, g):
  return cosine_by_hand(f, g, skip=True)


DISTANCES = {
  'cosine': (distances.cosine, cosine_by_hand),
  'skip': (distances.cosine_of_both, skip_by_hand),
  'euclidean': (distances.euclidean, euclidean_by_hand),
  'divergence': (distances.divergence, divergence_by_hand),
  'hamming': (distances.hamming, hamming_by_hand),
}


@pytest.fixture(params=DISTANCES)
def compared(request, units):
  """(distance, its twin, features)."""
  name = request.param
  features = {'cosine': units, 'skip': units, 'hamming': archs(COUNT)}
  return *DISTANCES[name], features.get(name, probabilities(COUNT))


@pytest.mark.parametrize('block', [1, 3, 5, COUNT, 128])
def test_pairs_are_those_of_the_definition_in_blocks_of_any_size(
  compared, block
):
  distance, by_hand, features = compared
  expected_AxA = matrix_by_hand(by_hand, features)
  matrix_AxA = pairs.matrix(distance, features, block=block)
  np.testing.assert_allclose(matrix_AxA, expected_AxA, atol=1e-5, rtol=1e-5)
  np.testing.assert_array_equal(np.diag(matrix_AxA), 0)
  np.testing.assert_allclose(
    pairs.sums(distance, features, block=block),
    expected_AxA.sum(axis=1),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    pairs.sums(distance, features, lambda d: np.exp(-d), block=block),
    np.exp(-expected_AxA).sum(axis=1),
    rtol=1e-5,
  )


def test_skipping_is_no_other_distance_where_all_tensors_are_present(units):
  whole = {name: u_AxD[[0, 1, 6, 7, 8, 9]] for name, u_AxD in units.items()}
  np.testing.assert_allclose(
    pairs.matrix(distances.cosine_of_both, whole),
    pairs.matrix(distances.cosine, whole),
    atol=1e-6,
  )
  # Here it is.
  assert (
    pairs.matrix(distances.cosine_of_both, units)
    < pairs.matrix(distances.cosine, units) - 0.1
  ).any()


@pytest.mark.parametrize('name', DISTANCES)
def test_a_block_of_pairs_takes_no_more_memory_than_its_features(name):
  """No array of 128 x 128 pairs times the length of a feature is made."""
  shapes = {
    'hamming': {'arch': ((8,), jnp.int32)},
    'cosine': {'a': ((2570,), jnp.float32), 'b': ((1000,), jnp.float32)},
  }
  shapes['skip'] = shapes['cosine']
  block = {
    key: jax.ShapeDtypeStruct((pairs.BLOCK, *shape), dtype)
    for key, (shape, dtype) in shapes.get(
      name, {'outputs': ((256, 10), jnp.float32)}
    ).items()
  }
  memory = (
    pairs._of_block.lower(DISTANCES[name][0], block, block)
    .compile()
    .memory_analysis()
  )
  assert memory.output_size_in_bytes == 4 * pairs.BLOCK**2
  two_blocks = 2 * sum(4 * b.size for b in block.values())
  assert (
    memory.temp_size_in_bytes <= two_blocks + 2 * memory.output_size_in_bytes
  )


def test_the_device_sees_two_blocks_at_a_time(monkeypatch):
  seen, of_block = [], pairs._of_block

  def watched(distance, rows, columns):
    seen.append((len(rows['arch']), len(columns['arch'])))
    return of_block(distance, rows, columns)

  monkeypatch.setattr(pairs, '_of_block', watched)
  pairs.sums(distances.hamming, archs(300))
  full, rest = 128, 300 - 256
  assert seen == [
    (full, full), (full, full), (full, rest), (full, full), (full, rest),
    (rest, rest),
  ]  # fmt: skip


# --- representations


def cka_of(gram, x, y):
  """Returns the CKA distance as the library does: cosine of two grams."""
  read = jax.jit(lambda z: {'layer': distances.unit(jnp.ravel(gram(z)))})
  f, g = (read(jnp.float32(z)) for z in (x, y))
  return 1 - float(distances.cosine(f, g))


def cka_by_hand(x_BxD, y_BxD):
  x_BxD, y_BxD = x_BxD - x_BxD.mean(axis=0), y_BxD - y_BxD.mean(axis=0)
  between = np.linalg.norm(y_BxD.T @ x_BxD) ** 2
  within = np.linalg.norm(x_BxD.T @ x_BxD) * np.linalg.norm(y_BxD.T @ y_BxD)
  return between / within


@pytest.fixture(scope='module')
def representations():
  """Representations of 16 images in two widths, with something in common."""
  rng = np.random.default_rng(4)
  x_BxD = rng.normal(size=(16, 5)) + 3
  return x_BxD, x_BxD @ rng.normal(size=(5, 9)) + rng.normal(size=(16, 9))


def test_the_cosine_of_centred_grams_is_linear_cka(representations):
  x_BxD, y_BxD = representations
  expected = cka_by_hand(x_BxD, y_BxD)
  assert 0.1 < expected < 0.9
  cka = cka_of(distances.centred_gram, x_BxD, y_BxD)
  assert cka == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
  'gram', [distances.centred_gram, distances.u_centred_gram]
)
def test_cka_ignores_rotation_scale_and_origin(representations, gram):
  x_BxD, y_BxD = representations
  rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(9, 9)))[0]
  moved_BxD = 7 * y_BxD @ rotation + 2
  assert cka_of(gram, y_BxD, moved_BxD) == pytest.approx(1, abs=1e-5)
  assert cka_of(gram, x_BxD, moved_BxD) == pytest.approx(
    cka_of(gram, x_BxD, y_BxD), abs=1e-5
  )


def hsic_by_hand(x_BxD, y_BxD):
  """HSIC_1 of Song et al. (2012), equation 5, with linear kernels."""
  n, one_B = len(x_BxD), np.ones(len(x_BxD))
  k_BxB, l_BxB = x_BxD @ x_BxD.T, y_BxD @ y_BxD.T
  np.fill_diagonal(k_BxB, 0)
  np.fill_diagonal(l_BxB, 0)
  kl_BxB = k_BxB @ l_BxB
  product = (one_B @ k_BxB @ one_B) * (one_B @ l_BxB @ one_B)
  total = (
    np.trace(kl_BxB)
    + product / ((n - 1) * (n - 2))
    - 2 / (n - 2) * (one_B @ kl_BxB @ one_B)
  )
  return total / (n * (n - 3))


@pytest.mark.parametrize('batches', [1, 2, 4])
def test_u_centred_grams_are_minibatch_cka(representations, batches):
  x_NxBxD, y_NxBxD = (np.split(z_BxD, batches) for z_BxD in representations)

  def of(first, second):
    return sum(map(hsic_by_hand, first, second))

  def grams(x_BxD):
    return jax.vmap(distances.u_centred_gram)(
      x_BxD.reshape(batches, -1, x_BxD.shape[-1])
    )

  cka = cka_of(grams, *representations)
  expected = of(x_NxBxD, y_NxBxD) / np.sqrt(
    of(x_NxBxD, x_NxBxD) * of(y_NxBxD, y_NxBxD)
  )
  assert cka == pytest.approx(expected, abs=1e-5)


def test_u_centred_grams_are_unbiased_where_centred_ones_are_not():
  """HSIC of independent Gaussians is zero."""
  rng, batch, draws = np.random.default_rng(6), 8, 4000
  x_RxBxD = jnp.float32(rng.normal(size=(draws, batch, 6)))
  y_RxBxD = jnp.float32(rng.normal(size=(draws, batch, 4)))

  def in_standard_errors(gram):
    grams = jax.vmap(gram)(x_RxBxD), jax.vmap(gram)(y_RxBxD)
    hsic_R = np.asarray((grams[0] * grams[1]).sum(axis=(1, 2)), np.float64)
    return hsic_R.mean() / (hsic_R.std() / np.sqrt(draws))

  assert abs(in_standard_errors(distances.u_centred_gram)) < 4
  assert in_standard_errors(distances.centred_gram) > 50


# --- kernel densities


def kde_by_hand(squared_AxA, bandwidth):
  return np.exp(-squared_AxA / (2 * bandwidth**2)).mean(axis=1)


def median_by_hand(squared_AxA):
  pairs = itertools.combinations(range(len(squared_AxA)), 2)
  return np.median([np.sqrt(squared_AxA[i, j]) for i, j in pairs])


@pytest.fixture(scope='module')
def points():
  """Rows, and squared distances between their directions."""
  points_AxD = np.random.default_rng(7).normal(size=(9, 4)) + 1
  units_AxD = points_AxD / np.linalg.norm(points_AxD, axis=1, keepdims=True)
  difference = units_AxD[:, None] - units_AxD
  return points_AxD, np.square(difference).sum(axis=-1)


@pytest.mark.parametrize('bandwidth', [0.3, 1.0, None])
def test_kde_is_the_mean_of_kernels(points, bandwidth):
  points_AxD, squared_AxA = points
  used = median_by_hand(squared_AxA) if bandwidth is None else bandwidth
  np.testing.assert_allclose(
    density.kde(points_AxD, bandwidth),
    kde_by_hand(squared_AxA, used),
    rtol=1e-5,
  )


def test_the_median_rule_may_look_at_some_architectures(points, monkeypatch):
  points_AxD, squared_AxA = points
  monkeypatch.setattr(estimators, 'MEDIAN_OF', 8)
  alpha_A = density.kde(points_AxD)
  np.testing.assert_array_equal(alpha_A, density.kde(points_AxD))
  bandwidths = [
    median_by_hand(squared_AxA[np.ix_(few, few)])
    for few in itertools.combinations(range(9), 8)
  ]
  assert any(
    np.allclose(alpha_A, kde_by_hand(squared_AxA, bandwidth), rtol=1e-5)
    for bandwidth in bandwidths
  )
  monkeypatch.undo()
  assert not np.allclose(alpha_A, density.kde(points_AxD), rtol=1e-3)


def test_kde_of_identical_points_is_one():
  np.testing.assert_allclose(density.kde(np.ones((4, 3))), 1.0, rtol=1e-5)


def test_hand_computed_densities_of_encodings():
  """00, 01, 11: Hamming distances 1, 2, 1; squared ones are twice that."""
  features = {'arch': np.array([[0, 0], [0, 1], [1, 1]], np.int32)}
  np.testing.assert_allclose(
    estimators.inverse_mean_of_pairs(distances.hamming, features),
    [2 / 3, 1, 2 / 3],
  )
  one, two = np.exp(-1), np.exp(-2)
  near, middle = (1 + one + two) / 3, (1 + 2 * one) / 3
  np.testing.assert_allclose(
    estimators.kernel_density(
      distances.hamming, measures.twice, features, bandwidth=1.0
    ),
    [near, middle, near],
  )
