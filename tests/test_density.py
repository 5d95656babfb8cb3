"""Exact against definitions, on a small net with known gradients."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxnas import density
from jaxnas.density import features
from jaxnas.density.distances import mean_cosine_distance

ARCHS_AxE = np.array([[i, j] for i in range(3) for j in range(3)], np.int32)


class Toy(nn.Module):
  """Two choices of three linear ops between a stem and a head."""

  tensor_sets: ClassVar = {'deep': ('head/kernel',), 'early': ('stem/kernel',)}
  default_tensors = 'deep'
  sequential = True

  def setup(self):
    self.stem_layer = nn.Dense(6, name='stem')
    self.ops = [
      [nn.Dense(6, name=f'position_{e}_op_{o}') for o in range(3)]
      for e in range(2)
    ]
    self.head_layer = nn.Dense(4, name='head')

  def stem(self, x):
    return self.stem_layer(x.reshape(len(x), -1))

  def position(self, e, x, op):
    outs = jnp.stack([jnp.tanh(layer(x)) for layer in self.ops[e]])
    return outs[op]

  def head(self, x):
    return self.head_layer(x)

  def __call__(self, x, arch, *, train):
    x = self.stem(x)
    for e in range(2):
      x = self.position(e, x, arch[e])
    return self.head(x)

  def used(self, params, arch_E):
    def used(path, leaf):
      name = path[0].key
      if not name.startswith('position'):
        return jnp.bool_(True)
      _, e, _, op = name.split('_')
      return jnp.asarray(arch_E[int(e)] == int(op))

    return jax.tree_util.tree_map_with_path(used, params)


@pytest.fixture(scope='module')
def toy():
  net = Toy()
  rng = np.random.default_rng(0)
  images = [
    jnp.asarray(rng.normal(size=(8, 1, 1, 5)), jnp.float32) for _ in 'ab'
  ]
  labels = [jnp.asarray(rng.integers(0, 4, 8), jnp.int32) for _ in 'ab']
  params = net.init(jax.random.key(0), images[0], ARCHS_AxE[0], train=True)
  return net, params['params'], images, labels


def gradients_by_hand(toy):
  """Rows of flat gradients per tensor, from autodiff of the whole net."""
  net, params, images, labels = toy

  def loss(params, arch_E):
    total = 0.0
    for x, y in zip(images, labels, strict=True):
      logp = jax.nn.log_softmax(
        net.apply({'params': params}, x, arch_E, train=True)
      )
      total -= jnp.take_along_axis(logp, y[:, None], 1).mean() / len(images)
    return total

  return [
    {
      name: np.asarray(leaf, np.float64).ravel()
      for name, leaf in flatten_dict(
        jax.grad(loss)(params, arch_E), sep='/'
      ).items()
    }
    for arch_E in ARCHS_AxE
  ]


def alpha_by_definition(rows, names, absent='zero', combine='mean'):
  """Equations 5 and 6 as written: all pairs, in float64."""
  if combine == 'concatenate':
    rows = [{'all': np.concatenate([row[n] for n in names])} for row in rows]
    names = ['all']
  alpha = []
  for a, row in enumerate(rows):
    distances = []
    for i, other in enumerate(rows):
      if i == a:
        continue
      terms = []
      for name in names:
        norms = np.linalg.norm(row[name]), np.linalg.norm(other[name])
        if min(norms) > 0:
          terms.append(1 - row[name] @ other[name] / np.prod(norms))
        elif absent == 'zero':
          terms.append(1.0)
      distances.append(np.mean(terms) if terms else 1.0)
    alpha.append(1 / np.mean(distances))
  return np.array(alpha)


@pytest.mark.parametrize('tensors', [None, 'early', 'shared', 'all'])
@pytest.mark.parametrize('memory_gb', [0.0, 2.0])
@pytest.mark.parametrize(
  ('combine', 'absent'),
  [('mean', 'zero'), ('concatenate', 'zero'), ('mean', 'skip')],
)
def test_equals_the_definition(toy, tensors, memory_gb, combine, absent):
  if absent == 'skip' and memory_gb == 0:
    memory_gb = 1.0
  net, params, images, labels = toy
  estimated = density.gradient_density(
    net,
    params,
    ARCHS_AxE,
    images,
    labels,
    tensors=tensors,
    combine=combine,
    absent=absent,
    memory_gb=memory_gb,
  )
  expected_A = alpha_by_definition(
    gradients_by_hand(toy),
    features.select(net, params, ARCHS_AxE, tensors),
    absent,
    combine,
  )
  np.testing.assert_allclose(estimated.alpha_A, expected_A, rtol=1e-5)


@pytest.mark.parametrize(
  ('tensors', 'expected'),
  [
    (None, {'head/kernel'}),
    ('early', {'stem/kernel'}),
    ('shared', {'stem/kernel', 'head/kernel'}),
    (
      'stem/.*,position_1_op_2/kernel',
      {'stem/kernel', 'position_1_op_2/kernel'},
    ),
    (
      'all',
      {'stem/kernel', 'head/kernel'}
      | {f'position_{e}_op_{o}/kernel' for e in range(2) for o in range(3)},
    ),
  ],
)
def test_named_sets(toy, tensors, expected):
  net, params, _, _ = toy
  assert {*features.select(net, params, ARCHS_AxE, tensors)} == expected


@pytest.mark.parametrize('tensors', ['authors', 'nothing/.*', '('])
def test_a_set_of_nothing_is_refused(toy, tensors):
  net, params, _, _ = toy
  with pytest.raises(ValueError, match=r'density\.tensors'):
    features.select(net, params, ARCHS_AxE, tensors)


def test_extremes_use_every_op():
  few_MxE = features.extremes(ARCHS_AxE)
  assert all(set(few_MxE[:, e]) == {0, 1, 2} for e in range(2))


def rows_of(features_AxD):
  return lambda: [
    (i, {'f': jnp.asarray(f)}) for i, f in enumerate(features_AxD)
  ]


def test_identical_and_zero_gradients_are_defined():
  same_AxD = np.ones((4, 3))
  np.testing.assert_allclose(
    density.inverse_mean_distance(same_AxD), 1e6, rtol=1e-3
  )
  zero_AxD = np.zeros((4, 3))
  np.testing.assert_array_equal(density.inverse_mean_distance(zero_AxD), 1.0)


@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30])
def test_only_directions_count(scale):
  features_AxD = np.random.default_rng(1).normal(size=(6, 9))
  scale_Ax1 = np.where(np.arange(6)[:, None] % 2, scale, 1.0)
  np.testing.assert_allclose(
    density.inverse_mean_distance(features_AxD * scale_Ax1),
    density.inverse_mean_distance(features_AxD),
    rtol=1e-5,
  )


def test_a_gradient_that_is_not_finite_stops():
  features_AxD = np.ones((3, 2))
  features_AxD[1, 0] = np.nan
  with pytest.raises(FloatingPointError, match='not finite'):
    mean_cosine_distance(rows_of(features_AxD), 3)


@pytest.mark.parametrize(('memory_bytes', 'times'), [(24.0, 1), (23.0, 2)])
def test_gradients_beyond_the_memory_are_asked_for_again(memory_bytes, times):
  rows, asked = rows_of(np.eye(3, 2))(), []

  def gradients():
    asked.append(1)
    return rows

  mean_cosine_distance(gradients, 3, memory_bytes=memory_bytes)
  assert len(asked) == times


def test_skip_beyond_the_memory_is_refused():
  with pytest.raises(ValueError, match='memory_gb'):
    mean_cosine_distance(
      rows_of(np.ones((3, 2))), 3, absent='skip', memory_bytes=8.0
    )


def test_a_saved_density_is_read_back_or_refused(tmp_path):
  saved = density.Density(ARCHS_AxE, np.linspace(1, 2, 9))
  density.save(saved, tmp_path / 'density.npz')
  read = density.load(tmp_path / 'density.npz', ARCHS_AxE)
  np.testing.assert_array_equal(read.alpha_A, saved.alpha_A)
  with pytest.raises(ValueError, match='of 9 architectures'):
    density.load(tmp_path / 'density.npz', ARCHS_AxE[::-1])
  np.savez(tmp_path / 'other.npz', x=np.ones(2))
  with pytest.raises(ValueError, match='lacks alpha_A'):
    density.load(tmp_path / 'other.npz', ARCHS_AxE)
  with pytest.raises(FileNotFoundError, match='missing'):
    density.load(tmp_path / 'missing.npz', ARCHS_AxE)
