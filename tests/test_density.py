"""Exact against definitions, on a small net whose twin is plain numpy."""

import ast
import doctest
import functools
import importlib
import types
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxnas
from jaxnas import density
from jaxnas.density import estimators, features, pairs, tensors

ARCHS_AxE = np.array([[i, j] for i in range(3) for j in range(3)], np.int32)
CLASSES = 4


def matrix_of(snapshot, measure):
  """Every distance between the subject's architectures."""
  features = density.gather(snapshot, measure)
  return density.matrix(measure.distance, features)


class Toy(nn.Module):
  """Two choices of three linear ops between a stem and a head."""

  tensor_sets: ClassVar = {'deep': ('head/kernel',), 'early': ('stem/kernel',)}
  default_tensors: ClassVar = 'deep'
  layers: ClassVar = ('position_1_op_0', 'head')
  space: ClassVar = types.SimpleNamespace(
    name='toy', classes=CLASSES, positions=ARCHS_AxE.shape[1], format=str
  )
  sequential: ClassVar = True

  def setup(self):
    self.stem_layer = nn.Dense(6, name='stem')
    self.ops = [
      [nn.Dense(6, name=f'position_{e}_op_{o}') for o in range(3)]
      for e in range(2)
    ]
    self.head_layer = nn.Dense(CLASSES, name='head')

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


class Whole(Toy):
  """Hides the parts of the toy net."""

  sequential: ClassVar = False


@functools.cache
def drawn():
  """Weights, images and labels."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(16, 1, 1, 5)), jnp.float32)
  y = jnp.asarray(rng.integers(0, CLASSES, 16), jnp.int32)
  params = Toy().init(jax.random.key(0), x, ARCHS_AxE[0], train=True)['params']
  return params, x, y


def subject_of(batches, net=None):
  """16 images in so many batches."""
  params, x, y = drawn()
  return density.Snapshot(
    net or Toy(),
    params,
    ARCHS_AxE,
    jnp.split(x, batches),
    jnp.split(y, batches),
  )


@pytest.fixture(scope='module')
def snapshot():
  return subject_of(batches=2)


def gradient(snapshot, **options):
  return density.gradient(
    snapshot.net, snapshot.params, snapshot.archs_AxE, **options
  )


# --- by hand


def forward_by_hand(snapshot, arch_E):
  """(inputs of the layers, log-probabilities), of all images at once."""
  weights = {
    name: np.asarray(leaf, np.float64)
    for name, leaf in flatten_dict(snapshot.params, sep='/').items()
  }
  x_BxD = np.concatenate([np.asarray(x, np.float64) for x in snapshot.images])
  inputs = {'stem': x_BxD.reshape(len(x_BxD), -1)}
  layers = [f'position_{e}_op_{op}' for e, op in enumerate(arch_E)]

  def linear(name):
    return inputs[name] @ weights[f'{name}/kernel'] + weights[f'{name}/bias']

  inputs[layers[0]] = linear('stem')
  inputs[layers[1]] = np.tanh(linear(layers[0]))
  inputs['head'] = np.tanh(linear(layers[1]))
  logits_BxK = linear('head')
  logp_BxK = logits_BxK - np.log(np.exp(logits_BxK).sum(axis=1, keepdims=True))
  return weights, layers, inputs, logp_BxK


def gradient_by_hand(snapshot, arch_E):
  """Flat gradients of the mean loss by kernel, backwards layer by layer."""
  weights, layers, inputs, logp_BxK = forward_by_hand(snapshot, arch_E)
  y_B = np.concatenate(snapshot.labels)
  delta_BxD = (np.exp(logp_BxK) - np.eye(CLASSES)[y_B]) / len(y_B)
  out = {
    name: np.zeros(leaf.size)
    for name, leaf in weights.items()
    if name.endswith('kernel')
  }
  after = {layers[0]: inputs[layers[1]], layers[1]: inputs['head']}
  for name in ('head', layers[1], layers[0], 'stem'):
    if name in after:
      delta_BxD = delta_BxD * (1 - after[name] ** 2)
    out[f'{name}/kernel'] = (inputs[name].T @ delta_BxD).ravel()
    delta_BxD = delta_BxD @ weights[f'{name}/kernel'].T
  return out


def pairwise(rows, distance):
  return np.array(
    [[0.0 if f is g else distance(f, g) for g in rows] for f in rows]
  )


def gradient_distances(snapshot, names, absent='zero', combine='mean'):
  """Equation 5 as it is written: all pairs, in float64."""
  rows = [gradient_by_hand(snapshot, arch_E) for arch_E in ARCHS_AxE]
  if combine == 'concatenate':
    rows = [{'all': np.concatenate([row[n] for n in names])} for row in rows]
    names = ['all']

  def distance(f, g):
    terms = []
    for name in names:
      norms = np.linalg.norm(f[name]), np.linalg.norm(g[name])
      if min(norms) > 0:
        terms.append(1 - f[name] @ g[name] / np.prod(norms))
      elif absent == 'zero':
        terms.append(1.0)
    return np.mean(terms) if terms else 1.0

  return pairwise(rows, distance)


def cka_distances(snapshot, layer):
  """Distances by the last layer's input, or by that of the second position."""

  def centred(arch_E):
    _, layers, inputs, _ = forward_by_hand(snapshot, arch_E)
    x_BxD = inputs['head' if layer == 'head' else layers[1]]
    return x_BxD - x_BxD.mean(axis=0)

  def distance(f, g):
    norm = np.linalg.norm
    return 1 - norm(g.T @ f) ** 2 / (norm(f.T @ f) * norm(g.T @ g))

  return pairwise([centred(arch_E) for arch_E in ARCHS_AxE], distance)


def output_distances(snapshot, outputs):
  rows = [forward_by_hand(snapshot, arch_E)[-1] for arch_E in ARCHS_AxE]

  def distance(f, g):
    p, q = np.exp(f), np.exp(g)
    if outputs == 'l2':
      return np.sqrt(((p - q) ** 2).sum(axis=1).mean())
    if outputs == 'kl':
      return ((p * (f - g)).sum() + (q * (g - f)).sum()) / 2 / len(p)
    norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    return np.mean(1 - (p * q).sum(axis=1) / norms)

  return pairwise(rows, distance)


def encoding_distances():
  return (ARCHS_AxE[:, None] != ARCHS_AxE).sum(axis=-1).astype(float)


def inverse_mean(distance_AxA):
  return (len(distance_AxA) - 1) / distance_AxA.sum(axis=1)


def kernels(squared_AxA, bandwidth=None):
  if bandwidth is None:
    upper = squared_AxA[np.triu_indices(len(squared_AxA), k=1)]
    bandwidth = np.sqrt(np.median(upper))
  return np.exp(-squared_AxA / 2 / bandwidth**2).mean(axis=1)


# --- gradients


def slowly(*names):
  return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize(
  'tensor_set',
  [None, 'all', *slowly('early', 'shared')],
)
@pytest.mark.parametrize(
  ('combine', 'absent', 'memory_gb'),
  [
    ('mean', 'zero', 0.0),
    ('mean', 'zero', 2.0),
    ('concatenate', 'zero', 2.0),
    ('mean', 'skip', 2.0),
  ],
)
def test_equals_the_definition(
  snapshot, tensor_set, combine, absent, memory_gb
):
  estimated = density.estimate(
    snapshot,
    gradient(snapshot, tensors=tensor_set, combine=combine, absent=absent),
    memory_gb=memory_gb,
  )
  names = tensors.select(snapshot.net, snapshot.params, ARCHS_AxE, tensor_set)
  expected_AxA = gradient_distances(snapshot, names, absent, combine)
  np.testing.assert_array_equal(estimated.archs_AxE, ARCHS_AxE)
  np.testing.assert_allclose(
    estimated.alpha_A, inverse_mean(expected_AxA), rtol=1e-5
  )


@pytest.mark.parametrize('absent', ['zero', 'skip'])
@pytest.mark.parametrize('estimator', ['inverse_mean_distance', 'kde'])
def test_features_at_hand_give_the_same_density(snapshot, absent, estimator):
  measure = gradient(snapshot, tensors='all', absent=absent)
  given = density.gather(snapshot, measure)
  unread = snapshot._replace(net=None, params=None, images=(), labels=())
  np.testing.assert_allclose(
    density.estimate(unread, measure, estimator, features=given).alpha_A,
    density.estimate(snapshot, measure, estimator).alpha_A,
    rtol=1e-5,
  )


def test_cosines_of_features_at_hand_take_no_pairs(snapshot, monkeypatch):
  measure = gradient(snapshot, tensors='all')
  given = density.gather(snapshot, measure)
  expected_A = estimators.inverse_mean_of_pairs(measure.distance, given)
  monkeypatch.setattr(pairs, 'blocks', None)
  polled = []
  estimated = density.estimate(
    snapshot, measure, features=given, poll=lambda: polled.append(1)
  )
  assert polled
  np.testing.assert_allclose(estimated.alpha_A, expected_A, rtol=1e-5)


@pytest.mark.parametrize('absent', ['zero', 'skip'])
def test_kernels_of_gradients(snapshot, absent):
  names = tensors.select(snapshot.net, snapshot.params, ARCHS_AxE, 'all')
  measure = gradient(snapshot, tensors='all', absent=absent)
  expected_AxA = gradient_distances(snapshot, names, absent)
  for bandwidth in (None, 0.7):
    np.testing.assert_allclose(
      density.estimate(snapshot, measure, 'kde', bandwidth=bandwidth).alpha_A,
      kernels(2 * expected_AxA, bandwidth),
      rtol=1e-5,
    )
  np.testing.assert_allclose(
    matrix_of(snapshot, measure), expected_AxA, atol=1e-5
  )


@pytest.mark.parametrize(
  'measure',
  [
    gradient,
    lambda snapshot: density.representational(snapshot.net),
    lambda snapshot: density.functional(),
  ],
)
def test_images_are_the_same_in_any_number_of_batches(measure):
  one, two = (
    density.estimate(snapshot, measure(snapshot)).alpha_A
    for snapshot in map(subject_of, (1, 2))
  )
  np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.parametrize(
  ('measure', 'alone'),
  [
    (gradient, True),
    (functools.partial(gradient, tensors='early'), False),
    (lambda snapshot: density.representational(snapshot.net), True),
    (lambda snapshot: density.functional(), True),
  ],
)
def test_the_head_alone_says_what_the_whole_net_says(snapshot, measure, alone):
  whole = snapshot._replace(net=Whole())
  np.testing.assert_allclose(
    density.estimate(snapshot, measure(snapshot)).alpha_A,
    density.estimate(whole, measure(snapshot)).alpha_A,
    rtol=1e-5,
  )
  # Only the whole net takes many architectures in a call.
  lengths = [
    len(next(features.read(*of, measure(snapshot).read)).real_C)
    for of in (snapshot, whole)
  ]
  assert lengths == [1 if alone else 9, 9]


@pytest.mark.parametrize(
  ('tensor_set', 'expected'),
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
def test_named_sets(snapshot, tensor_set, expected):
  names = tensors.select(snapshot.net, snapshot.params, ARCHS_AxE, tensor_set)
  assert {*names} == expected


@pytest.mark.parametrize('tensor_set', ['authors', 'nothing/.*', '('])
def test_a_set_of_nothing_is_refused(snapshot, tensor_set):
  with pytest.raises(ValueError, match=r'density\.tensors'):
    gradient(snapshot, tensors=tensor_set)


def test_extremes_use_every_op():
  few_MxE = tensors.extremes(ARCHS_AxE)
  assert all(set(few_MxE[:, e]) == {0, 1, 2} for e in range(2))
  assert len(few_MxE) < len(ARCHS_AxE)


# --- representations, outputs, encodings


@pytest.mark.parametrize(
  ('layers', 'expected'),
  [
    (None, ['head']),
    ('head', ['head']),
    ('position_1_op_0', ['position_1_op_0']),
    ('position_1_op_0,head', ['position_1_op_0', 'head']),
  ],
)
def test_representations_are_compared_by_cka(snapshot, layers, expected):
  measure = density.representational(snapshot.net, layers=layers)
  expected_AxA = np.mean(
    [cka_distances(snapshot, layer) for layer in expected], axis=0
  )
  np.testing.assert_allclose(
    density.estimate(snapshot, measure).alpha_A,
    inverse_mean(expected_AxA),
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    matrix_of(snapshot, measure), expected_AxA, atol=1e-5
  )


@pytest.mark.parametrize('batches', [1, 2])
def test_unbiased_representations_are_compared_batch_by_batch(batches):
  snapshot = subject_of(batches)

  def hsic(x_BxD, y_BxD):
    """HSIC_1 of Song et al. (2012), equation 5, times n (n - 3)."""
    k_BxB, l_BxB = x_BxD @ x_BxD.T, y_BxD @ y_BxD.T
    np.fill_diagonal(k_BxB, 0)
    np.fill_diagonal(l_BxB, 0)
    n, kl_BxB = len(k_BxB), k_BxB @ l_BxB
    return (
      np.trace(kl_BxB)
      + k_BxB.sum() * l_BxB.sum() / (n - 1) / (n - 2)
      - 2 / (n - 2) * kl_BxB.sum()
    )

  def of(f, g):
    return sum(map(hsic, np.split(f, batches), np.split(g, batches)))

  expected_AxA = pairwise(
    [forward_by_hand(snapshot, arch_E)[2]['head'] for arch_E in ARCHS_AxE],
    lambda f, g: 1 - of(f, g) / np.sqrt(of(f, f) * of(g, g)),
  )
  measure = density.representational(snapshot.net, unbiased=True)
  np.testing.assert_allclose(
    matrix_of(snapshot, measure), expected_AxA, atol=1e-5
  )


@pytest.mark.parametrize('layers', ['stem', 'head,tail'])
def test_a_layer_that_cannot_be_read_is_refused(snapshot, layers):
  with pytest.raises(
    ValueError, match=rf"'{layers[-4:]}'.*toy has position_1_op_0, head"
  ):
    density.representational(snapshot.net, layers=layers)


@pytest.mark.parametrize('outputs', ['l2', 'kl', 'cosine'])
def test_outputs_are_compared_by_their_probabilities(snapshot, outputs):
  expected_AxA = output_distances(snapshot, outputs)
  squared = expected_AxA**2 if outputs == 'l2' else 2 * expected_AxA
  measure = density.functional(outputs)
  np.testing.assert_allclose(
    matrix_of(snapshot, measure), expected_AxA, atol=1e-6
  )
  np.testing.assert_allclose(
    density.estimate(snapshot, measure).alpha_A,
    inverse_mean(expected_AxA),
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    density.estimate(snapshot, measure, 'kde').alpha_A,
    kernels(squared),
    rtol=1e-4,
  )


def test_encodings_are_compared_by_hamming_distance(snapshot):
  expected_AxA = encoding_distances()
  # No features are kept.
  estimate = functools.partial(
    density.estimate, snapshot, density.encoding(), memory_gb=0.0
  )
  np.testing.assert_allclose(
    estimate().alpha_A, inverse_mean(expected_AxA), rtol=1e-6
  )
  np.testing.assert_allclose(
    estimate('kde').alpha_A, kernels(2 * expected_AxA), rtol=1e-6
  )
  np.testing.assert_array_equal(
    matrix_of(snapshot, density.encoding()), expected_AxA
  )


# --- refusals


@pytest.mark.parametrize(
  ('measure', 'estimator'),
  [
    (functools.partial(gradient, absent='skip'), 'inverse_mean_distance'),
    (gradient, 'kde'),
    (lambda snapshot: density.functional(), 'inverse_mean_distance'),
    (lambda snapshot: density.representational(snapshot.net), 'kde'),
  ],
)
def test_pairs_beyond_the_memory_are_refused(snapshot, measure, estimator):
  floats = measure(snapshot).read.floats(snapshot.params, 2, 8, CLASSES)
  needed_gb = 9 * 4 * floats / 1e9
  estimate = functools.partial(
    density.estimate, snapshot, measure(snapshot), estimator
  )
  estimate(memory_gb=needed_gb)
  with pytest.raises(
    ValueError, match=rf'{needed_gb:.3g} GB .*density\.memory_gb'
  ):
    estimate(memory_gb=needed_gb * 0.99)


@pytest.mark.parametrize(
  ('options', 'estimator'),
  [({}, 'inverse_mean_distance'), ({}, 'kde'), ({'absent': 'skip'}, 'kde')],
)
def test_a_gradient_that_is_not_finite_names_its_arch(
  snapshot, options, estimator
):
  params = jax.tree.map(jnp.array, snapshot.params)
  params['position_1_op_2']['bias'] = jnp.full(6, jnp.nan)
  broken = snapshot._replace(params=params)
  # The first of the walk.
  with pytest.raises(
    FloatingPointError, match=r'architecture \[0 2\] .*not finite'
  ):
    density.estimate(broken, gradient(snapshot, **options), estimator)


@pytest.mark.parametrize('per_block', [1, 4, 9])
def test_blocks_are_as_small_as_memory_wants(snapshot, per_block):
  readout = features.Gradients(('stem/kernel',))
  size = 4 * readout.floats(snapshot.params, 2, 8, CLASSES)
  lengths = [
    len(block.real_C)
    for block in features.read(
      *snapshot, readout, chunk_bytes=size * (per_block + 0.5)
    )
  ]
  assert lengths == [per_block] * -(-9 // per_block)


@pytest.mark.parametrize('tensor_set', [None, 'all'])
@pytest.mark.parametrize('estimator', ['inverse_mean_distance', 'kde'])
def test_a_poll_before_each_block_may_stop_it(snapshot, tensor_set, estimator):
  measure, polled = gradient(snapshot, tensors=tensor_set), []
  density.estimate(snapshot, measure, estimator, poll=lambda: polled.append(1))
  assert polled

  def stop():
    raise InterruptedError

  with pytest.raises(InterruptedError):
    density.estimate(snapshot, measure, estimator, poll=stop)


# --- files


def test_a_saved_density_is_read_back_or_refused(tmp_path):
  saved = density.Density(ARCHS_AxE, np.linspace(1, 2, 9))
  file = tmp_path / 'density.npz'
  density.save(saved, file)
  for read in (density.load(file, ARCHS_AxE), density.read_file(file)[0]):
    for array, expected in zip(read, saved, strict=True):
      np.testing.assert_array_equal(array, expected)
  with pytest.raises(ValueError, match=r'of 9 architectures.*; 8 are needed'):
    density.load(file, ARCHS_AxE[:8])
  with pytest.raises(ValueError, match='of another space or order'):
    density.load(file, ARCHS_AxE[::-1])
  density.save(saved, file, {'step': 3})
  assert density.read_file(file)[1] == {'step': 3}


@pytest.mark.parametrize(('spread', 'varies'), [(1e-15, False), (1e-6, True)])
def test_densities_that_differ_by_rounding_are_equal(spread, varies):
  alpha_A = 0.65 * (1 + spread * np.arange(9))
  assert np.ptp(alpha_A) > 0
  level_A = density.estimators.level(alpha_A)
  assert (np.ptp(level_A) > 0) == varies
  np.testing.assert_allclose(level_A, alpha_A, rtol=1e-12)


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'x': np.ones(2)}, 'lacks archs_AxE, alpha_A'),
    ({'alpha_A': np.ones(9)}, 'lacks archs_AxE'),
    ({'archs_AxE': ARCHS_AxE, 'alpha_A': np.ones(8)}, 'floats of shape .9.'),
    ({'archs_AxE': ARCHS_AxE, 'alpha_A': np.full(9, np.nan)}, 'one finite'),
  ],
)
def test_a_file_that_holds_no_density_is_refused(tmp_path, arrays, message):
  np.savez(tmp_path / 'other.npz', **arrays)
  with pytest.raises(ValueError, match=message):
    density.read_file(tmp_path / 'other.npz')


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='missing'):
    density.load(tmp_path / 'missing.npz', ARCHS_AxE)


# --- examples


def examples():
  """(module, line, docstring) of every example in a docstring."""
  root = Path(jaxnas.__file__).parent
  for file in sorted(root.rglob('*.py')):
    text = file.read_text()
    if '>>> ' not in text:
      continue
    name = '.'.join(file.relative_to(root.parent).with_suffix('').parts)
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        docstring = ast.get_docstring(node)
        if docstring and '>>> ' in docstring:
          label = f'{name}.{getattr(node, "name", "")}'
          yield pytest.param(name, docstring, id=label)


@pytest.mark.parametrize(('name', 'docstring'), examples())
def test_the_examples_of_docstrings_are_true(name, docstring):
  # Not by testmod, which does not see functions that are wrapped.
  names = dict(vars(importlib.import_module(name)))
  example = doctest.DocTestParser().get_doctest(docstring, names, name, None, 0)
  assert example.examples
  said: list[str] = []
  assert not doctest.DocTestRunner().run(example, out=said.append).failed, said
