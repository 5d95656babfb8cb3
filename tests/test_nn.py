"""Convolutions against autodiff of lax.conv, layers against PyTorch's rules."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.nn import convolutions, maps, pooling
from jaxnas.nn.blocks import InvertedResidual
from jaxnas.nn.choice import Choice, used_by_choices
from jaxnas.nn.initial import draw
from jaxnas.nn.layers import Conv, Depthwise, Groups, Linear, Norm, Pointwise

SIZES = [(8, 8), (7, 5), (6, 1)]


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def reference(x, kernel, stride, groups=1):
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def to_numpy(tree):
  """Returns numpy arrays, so that sums and maxima of them compile nothing."""
  return jax.tree.map(np.asarray, tree)


def same_value_and_gradients(ours, theirs, *args):
  """Both in float64, errors relative to each tensor's maximum."""
  g = normal(9, *jax.eval_shape(theirs, *args).shape)

  @jax.jit
  def both(g, *args):
    pairs = []
    for function in (ours, theirs):
      out, pull = jax.vjp(function, *args)
      pairs.append((out, *pull(g)))
    return pairs

  for a, b in zip(*map(to_numpy, both(g, *args)), strict=True):
    assert a.dtype == jnp.float64
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-8 * abs(b).max())


@pytest.mark.parametrize('k', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', SIZES)
def test_dense_and_its_gradients_equal_lax_conv(size, stride, k):
  with jax.enable_x64():
    same_value_and_gradients(
      lambda x, w: convolutions.dense(x, w, stride=stride),
      lambda x, w: reference(x, w, stride),
      normal(0, 3, *size, 2),
      normal(1, k, k, 2, 4),
    )


@pytest.mark.parametrize(
  'layout, largest', [('CHWN', 10**9), ('CHWN', 0), ('NHWC', 0)]
)
@pytest.mark.parametrize('k', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', SIZES)
def test_depthwise_and_its_gradients_equal_lax_conv(
  size, stride, k, layout, largest, monkeypatch
):
  monkeypatch.setattr(convolutions, 'LARGEST_TOEPLITZ', largest)
  monkeypatch.setattr(convolutions, 'SMALLEST_TOEPLITZ_KERNEL', 0)

  def ours(x, w):
    x = maps.relayout(x, 'NHWC', layout)
    x = convolutions.depthwise(x, w, stride=stride, layout=layout)
    return maps.relayout(x, layout, 'NHWC')

  with jax.enable_x64():
    same_value_and_gradients(
      ours,
      lambda x, w: reference(x, w[:, :, None], stride, groups=3),
      normal(0, 2, *size, 3),
      normal(1, k, k, 3),
    )


@pytest.mark.parametrize('layout', ['CHWN', 'NHWC'])
@pytest.mark.parametrize('stride', [1, 2])
def test_pointwise_and_its_gradients_equal_lax_conv(stride, layout):
  def ours(x, w):
    x = maps.relayout(x, 'NHWC', layout)
    x = convolutions.pointwise(x, w, stride=stride, layout=layout)
    return maps.relayout(x, layout, 'NHWC')

  with jax.enable_x64():
    same_value_and_gradients(
      ours,
      lambda x, w: reference(x, w[None, None], stride),
      normal(0, 2, 7, 5, 3),
      normal(1, 3, 4),
    )


@pytest.mark.parametrize('form', ['toeplitz', 'shifted', 'dense', 'pointwise'])
def test_bfloat16_convolutions_sum_in_float32(form, monkeypatch):
  """A kernel's gradient sums 16,384 products: bfloat16 stops at 256 ones."""
  largest = 10**9 if form == 'toeplitz' else 0
  monkeypatch.setattr(convolutions, 'LARGEST_TOEPLITZ', largest)
  monkeypatch.setattr(convolutions, 'SMALLEST_TOEPLITZ_KERNEL', 0)
  side, batch = (4, 1024) if form == 'toeplitz' else (16, 64)
  channels_last = form == 'dense'
  shape = (batch, side, side, 3) if channels_last else (3, side, side, batch)
  kernel = {
    'dense': (3, 3, 3, 4),
    'pointwise': (3, 4),
  }.get(form, (3, 3, 3))
  function = {
    'dense': convolutions.dense,
    'pointwise': functools.partial(
      convolutions.pointwise, stride=1, layout='CHWN'
    ),
  }.get(
    form, functools.partial(convolutions.depthwise, stride=1, layout='CHWN')
  )
  x = (0.5 + normal(0, *shape)).astype(jnp.bfloat16)
  w = normal(1, *kernel).astype(jnp.bfloat16)
  gradient = jax.jit(
    jax.grad(lambda w, x: function(x, w).sum(dtype=jnp.float32))
  )
  ours = np.asarray(gradient(w, x), np.float64)
  exact = np.asarray(gradient(w.astype(jnp.float32), x.astype(jnp.float32)))
  np.testing.assert_allclose(ours, exact, rtol=0, atol=0.02 * abs(exact).max())


def test_max_pool_and_its_gradient_equal_a_window_reduction():
  with jax.enable_x64():
    same_value_and_gradients(
      pooling.max_pool,
      lambda x: nn.max_pool(x, (2, 2), (2, 2)),
      normal(0, 2, 6, 4, 3),
    )


def test_no_grouped_or_gradient_convolution_in_a_cpu_program():
  """Grouped ones are 30 times slower there, transposed ones 55 in a switch."""
  layer = Depthwise(5, layout='CHWN')
  x = jnp.ones((3, 8, 8, 2))
  weights = layer.init(jax.random.key(0), x)
  grad = jax.grad(lambda w: layer.apply(w, x).sum())
  assert 'conv_general_dilated' not in str(jax.make_jaxpr(grad)(weights))

  layer = Conv(4, stride=2)
  x = jnp.ones((2, 8, 8, 3))
  weights = layer.init(jax.random.key(0), x)
  grad = jax.grad(lambda w, x: layer.apply(w, x).sum(), argnums=(0, 1))
  program = str(jax.make_jaxpr(grad)(weights, x))
  assert 'conv_general_dilated' in program
  for line in program.splitlines():
    if 'dilation=' in line:
      assert 'dilation=(1, 1)' in line


@pytest.mark.parametrize(
  'layer, shape, fan_in',
  [
    (Conv(16), (2, 4, 4, 10), 90),
    (Pointwise(16), (2, 4, 4, 100), 100),
    (Depthwise(5), (2, 4, 4, 100), 25),
    (Linear(16), (2, 400), 400),
  ],
)
def test_initial_weights_are_uniform_as_in_pytorch(layer, shape, fan_in):
  laws = jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros(shape)))
  drawn = draw(laws, 0)
  init = jax.jit(lambda key: layer.init(key, jnp.zeros(shape)))
  flax = nn.unbox(init(jax.random.key(0)))
  for params in (drawn['params'], flax['params']):
    check_uniform(layer, params, 1 / np.sqrt(fan_in))


def check_uniform(layer, params, bound):
  kernel = np.asarray(params['kernel'])
  assert kernel.dtype == np.float32
  assert 0.98 * bound < abs(kernel).max() <= bound
  assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
  assert ('bias' in params) == isinstance(layer, Linear)
  for bias in params.get('bias', ()):
    assert 0 < abs(bias) <= bound


@pytest.mark.parametrize('layout', ['NHWC', 'CHWN'])
def test_norm_without_running_is_a_pure_function_of_the_batch(layout):
  x = 3 + 2 * normal(0, 4, 5, 6, 7).astype(jnp.float32)
  norm = Norm(layout=layout)
  assert norm.init(jax.random.key(0), x, True) == {}
  axis = layout.index('C')
  others = tuple({0, 1, 2, 3} - {axis})
  for train in (True, False):
    out = np.asarray(norm.apply({}, x, train))
    np.testing.assert_allclose(out.mean(others), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(others), 1, atol=1e-4)


def test_norm_of_bfloat16_has_float32_statistics():
  """A mean of 300 over 4,096 values is far beyond bfloat16's sums."""
  x = (300 + 20 * normal(0, 64, 8, 8, 2)).astype(jnp.bfloat16)
  out = Norm(dtype=jnp.bfloat16).apply({}, x, True)
  assert out.dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64)
  exact = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
  np.testing.assert_allclose(np.asarray(out, np.float64), exact, atol=0.02)


def test_running_norm_equals_pytorch():
  torch = pytest.importorskip('torch')
  theirs = torch.nn.BatchNorm2d(3)
  ours = Norm(affine=True, momentum=0.1)
  images = np.random.default_rng(0).normal(2, 3, (3, 4, 5, 6, 3))
  images = jnp.asarray(images, jnp.float32)
  scale, bias = np.array([1, 2, 3.0]), np.array([0, 1, -1.0])
  state = nn.unbox(ours.init(jax.random.key(0), images[0], True))
  state = {
    'params': {'scale': jnp.float32(scale), 'bias': jnp.float32(bias)},
    'batch_stats': state['batch_stats'],
  }
  with torch.no_grad():
    theirs.weight.copy_(torch.tensor(scale))
    theirs.bias.copy_(torch.tensor(bias))

  def torch_norm(x):
    x = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    return theirs(x).detach().permute(0, 2, 3, 1).numpy()

  train = jax.jit(lambda *of: ours.apply(*of, True, mutable='batch_stats'))
  for x in images:
    out, new = train(state, x)
    np.testing.assert_allclose(out, torch_norm(x), atol=1e-5)
    state = {**state, **new}
  stats = state['batch_stats']
  np.testing.assert_allclose(stats['mean'], theirs.running_mean, rtol=1e-5)
  np.testing.assert_allclose(stats['var'], theirs.running_var, rtol=1e-5)
  theirs.eval()
  np.testing.assert_allclose(
    ours.apply(state, images[0], False), torch_norm(images[0]), atol=1e-5
  )


def candidates(**norm):
  def make(expansion, kernel):
    return lambda: InvertedResidual(
      4, expansion, kernel, 1, lambda **k: Norm(**norm, **k)
    )

  return make(1, 3), make(2, 3), make(2, 5)


def test_a_static_op_creates_only_its_candidate():
  choice = Choice(candidates())
  x = jnp.ones((2, 4, 4, 4))
  key = jax.random.key(0)

  def made(op):
    state = jax.eval_shape(lambda: choice.init(key, x, op, True))
    return set(state['params'])

  assert made(1) == made(np.int32(1)) == {'op_1'}
  assert made(jnp.int32(1)) == {'op_0', 'op_1', 'op_2'}


def test_a_traced_op_updates_only_its_running_statistics():
  choice = Choice(candidates(affine=True, momentum=0.1))
  x = normal(0, 8, 4, 4, 4).astype(jnp.float32)
  init = jax.jit(lambda key: choice.init(key, x, jnp.int32(0), True))
  start = init(jax.random.key(0))
  params, before = start['params'], start['batch_stats']

  def loss(params, op):
    out, new = choice.apply(
      {'params': params, 'batch_stats': before},
      x,
      op,
      True,
      mutable='batch_stats',
    )
    return (out**2).sum(), new['batch_stats']

  of_any = jax.jit(jax.grad(loss, has_aux=True))
  of_one = jax.jit(
    lambda op: choice.apply(start, x, op, True, mutable='batch_stats')[1],
    static_argnums=0,
  )
  for op in range(3):
    gradient, after = to_numpy(of_any(params, jnp.int32(op)))
    for other in range(3):
      name = f'op_{other}'
      moved = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != b).any()), before[name], after[name]
      )
      assert set(jax.tree.leaves(moved)) == {other == op}
      nonzero = [bool((g != 0).any()) for g in jax.tree.leaves(gradient[name])]
      assert set(nonzero) == {other == op}
    static = of_one(op)
    for a, b in zip(
      jax.tree.leaves(after[f'op_{op}']),
      jax.tree.leaves(static['batch_stats'][f'op_{op}']),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_choice_over_seeds_stays_a_switch():
  """A select instead would run every branch for every seed."""
  choice = Choice(candidates())
  x = normal(0, 2, 4, 4, 4).astype(jnp.float32)
  keys = jax.random.split(jax.random.key(0), 3)
  params_S = jax.vmap(lambda key: choice.init(key, x, jnp.int32(0), True))(keys)

  def loss(params, op):
    return (choice.apply(params, x, op, True) ** 2 * x).sum()

  grads_S = jax.vmap(jax.grad(loss), in_axes=(0, None))
  program = str(jax.make_jaxpr(grads_S)(params_S, jnp.int32(1)))
  assert 'cond[' in program
  together, alone = jax.jit(grads_S), jax.jit(jax.grad(loss))
  for op in map(jnp.int32, range(3)):
    for seed in range(3):
      params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params_S)
      for a, b in zip(
        jax.tree.leaves(together(params_S, op)),
        jax.tree.leaves(alone(params, op)),
        strict=True,
      ):
        np.testing.assert_allclose(a[seed], b, atol=1e-4 * abs(b).max())


def test_used_reads_position_and_op_from_the_path():
  params = {
    'stem': {'kernel': 0},
    'position_0': {'op_0': 0, 'op_1': {'deep': 0}},
    'position_10': {'op_2': 0},
  }
  arch_E = np.zeros(11, np.int32)
  arch_E[[0, 10]] = 1, 2
  expected = {
    'stem': {'kernel': True},
    'position_0': {'op_0': False, 'op_1': {'deep': True}},
    'position_10': {'op_2': True},
  }
  for used in (used_by_choices, jax.jit(used_by_choices)):
    assert jax.tree.map(bool, used(params, arch_E)) == expected


@pytest.mark.parametrize('layout', ['NHWC', 'CHWN'])
@pytest.mark.parametrize('affine', [False, True])
def test_groups_of_a_batch_are_normalised_alone(layout, affine):
  """And running statistics are the mean of what each would have moved."""
  x = 2 * normal(0, 6, 4, 5, 3).astype(jnp.float32) + 1
  variables = {
    'params': {'scale': jnp.arange(3.0), 'bias': jnp.ones(3)},
    'batch_stats': {'mean': jnp.ones(3), 'var': jnp.full(3, 2.0)},
  }
  if not affine:
    del variables['params']

  @functools.partial(jax.jit, static_argnums=(0, 2))
  def normalised(groups, x, layout='NHWC'):
    module = Norm(affine, 0.1, layout, groups=Groups(groups))
    return module.apply(
      variables,
      maps.relayout(x, 'NHWC', layout),
      True,
      mutable=['batch_stats'],
    )

  parts = [normalised(1, part) for part in np.split(np.asarray(x), 3)]
  out, changed = normalised(3, x, layout)
  np.testing.assert_allclose(
    maps.relayout(out, layout, 'NHWC'),
    np.concatenate([part for part, _ in parts]),
    atol=1e-5,
  )
  mean = jax.tree.map(
    lambda *each: np.mean(each, axis=0), *(of_part for _, of_part in parts)
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5), changed, mean
  )
  alone = normalised(1, x, layout)[0]
  assert abs(np.asarray(out) - np.asarray(alone)).max() > 0.1
