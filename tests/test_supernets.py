"""Supernets: one program for all archs, and PyTorch networks as twins."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import spaces, supernets
from jaxnas.nn import convolutions

DIGITS = spaces.get('digits')
POOLING = spaces.get('pooling')
MACRO = spaces.get('nas_bench_macro')
# Four blocks on 16x16 images, to compile in less time.
SMALL_POOLING = dataclasses.replace(
  POOLING,
  name='small_pooling',
  ops=POOLING.ops[:4],
  image_shape=(16, 16, 3),
  channels=(4, 4, 8, 8),
  stem=4,
)


def images(space, count, seed=0):
  shape = (count, *space.image_shape)
  return jnp.asarray(
    np.random.default_rng(seed).normal(size=shape), jnp.float32
  )


@functools.cache
def compiled(space, dtype=jnp.float32):
  """((params, x, arch_E) -> loss and gradient, its traces), made once."""
  net, traces = supernets.build(space, dtype=dtype), []

  @jax.jit
  def of_any(params, x, arch_E):
    traces.append(arch_E)
    return jax.value_and_grad(functools.partial(loss, net))(params, x, arch_E)

  return of_any, traces


@functools.cache
def weights(space):
  net = supernets.build(space)
  x = images(space, 2)
  arch_E = jnp.asarray(space.enumerate()[0])
  init = jax.jit(lambda: net.init(jax.random.key(0), x, arch_E, train=True))
  return init()['params']


def loss_and_logits(net, params, x, arch):
  logits = net.apply({'params': params}, x, arch, train=True)
  y = jnp.arange(len(x)) % logits.shape[1]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
  return losses.mean(), logits


def loss(*args):
  return loss_and_logits(*args)[0]


def paths(params):
  flat, _ = jax.tree_util.tree_flatten_with_path(params)
  return {'/'.join(key.key for key in path): leaf for path, leaf in flat}


def assert_close(a, b, tolerance):
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * abs(b).max())


def static(arch_E):
  return tuple(int(op) for op in arch_E)


def count(params):
  return sum(p.size for p in jax.tree.leaves(params))


def shapes(space, arch, **kwargs):
  net = supernets.build(space, **kwargs)
  x = jax.ShapeDtypeStruct((2, *space.image_shape), jnp.float32)
  return jax.eval_shape(
    lambda x: net.init(jax.random.key(0), x, arch, train=True), x
  )


def test_counts_of_parameters():
  arch_E = jnp.asarray(POOLING.enumerate()[0])
  assert count(shapes(POOLING, arch_E)['params']) == 270_906
  arch_E = jnp.zeros(8, jnp.int32)
  assert count(shapes(MACRO, arch_E, affine=True)['params']) == 4_221_386


@pytest.mark.parametrize(
  'space', [DIGITS, MACRO, POOLING], ids=lambda s: s.name
)
def test_stand_alone_counts_are_the_costs_of_the_space(space):
  archs_AxE = space.random(np.random.default_rng(0), 3)
  for arch_E, expected in zip(
    archs_AxE, space.costs(archs_AxE).params_A, strict=True
  ):
    made = shapes(space, static(arch_E), affine=True, running=True)
    assert count(made['params']) == expected


@pytest.mark.parametrize('space', [DIGITS, SMALL_POOLING], ids=lambda s: s.name)
def test_one_program_for_all_archs_equals_each_static_one(space):
  net, params = supernets.build(space), weights(space)
  x = images(space, 8)
  of_any, traces = compiled(space)

  @functools.partial(jax.jit, static_argnums=1)
  def of_one(params, arch):
    return jax.value_and_grad(functools.partial(loss, net))(params, x, arch)

  archs_AxE = space.enumerate()
  rows = [len(archs_AxE) // 2, -1] if space == SMALL_POOLING else [47]
  for arch_E in archs_AxE[rows]:
    value, gradient = of_any(params, x, arch_E)
    expected, expected_gradient = of_one(params, static(arch_E))
    assert value == pytest.approx(float(expected), rel=1e-5)
    for name, leaf in paths(expected_gradient).items():
      assert_close(paths(gradient)[name], leaf, 1e-4)
  for arch_E in archs_AxE:
    of_any(params, x, arch_E)
  assert len(traces) == 1


def test_unused_leaves_get_no_gradient_and_used_ones_do():
  net, params = supernets.build(DIGITS), weights(DIGITS)
  x = images(DIGITS, 8)
  of_any, _ = compiled(DIGITS)
  for arch_E in np.array([[o] * DIGITS.positions for o in range(3)]):
    arch_E = jnp.asarray(np.roll(arch_E + np.arange(4), 1) % 3, jnp.int32)
    gradient = paths(of_any(params, x, arch_E)[1])
    used = paths(net.used(params, arch_E))
    for name, leaf in gradient.items():
      match = re.match(r'position_(\d)/op_(\d)/', name)
      expected = not match or int(arch_E[int(match[1])]) == int(match[2])
      assert bool(used[name]) == expected == bool((leaf != 0).any()), name


def test_every_pooling_arch_uses_every_leaf():
  net, params = supernets.build(SMALL_POOLING), weights(SMALL_POOLING)
  arch_E = jnp.asarray(SMALL_POOLING.enumerate()[2])
  assert all(paths(net.used(params, arch_E)).values())
  _, gradient = compiled(SMALL_POOLING)[0](
    params, images(SMALL_POOLING, 8), arch_E
  )
  assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


def test_stem_positions_and_head_compose_to_the_whole_bit_for_bit():
  net, variables = supernets.build(DIGITS), {'params': weights(DIGITS)}
  x = images(DIGITS, 5)
  arch = (0, 1, 2, 0)
  parts = net.apply(variables, x, method='stem')
  for e, op in enumerate(arch):
    parts = net.apply(variables, e, parts, op, method='position')
  parts = net.apply(variables, parts, method='head')
  whole = net.apply(variables, x, arch, train=False)
  assert whole.dtype == jnp.float32
  np.testing.assert_array_equal(parts, whole)


def test_a_traced_arch_moves_only_its_running_statistics():
  net = supernets.build(DIGITS, affine=True, running=True)
  x, arch_E = images(DIGITS, 6), jnp.array([2, 0, 1, 0])
  state = jax.jit(lambda: net.init(jax.random.key(0), x, arch_E, train=True))()
  step = jax.jit(
    lambda arch: net.apply(state, x, arch, train=True, mutable='batch_stats')[1]
  )
  before, after = (
    paths(state['batch_stats']),
    paths(step(arch_E)['batch_stats']),
  )
  for name in before:
    match = re.match(r'position_(\d)/op_(\d)/', name)
    used = not match or int(arch_E[int(match[1])]) == int(match[2])
    assert bool((before[name] != after[name]).any()) == used, name
  evaluate = jax.jit(lambda x, arch: net.apply(state, x, arch, train=False))
  others = x.at[3:].set(images(DIGITS, 3, seed=1))
  assert_close(evaluate(others, arch_E)[:3], evaluate(x, arch_E)[:3], 1e-5)


# Rounding weights and images alone turns the gradient of Pooling to 0.96.
@pytest.mark.parametrize(
  'space, agreement', [(DIGITS, 0.99), (SMALL_POOLING, 0.9)]
)
def test_bfloat16_is_close_to_float32(space, agreement):
  params, x = weights(space), images(space, 8)
  arch = static(space.enumerate()[4])
  logits, gradients = [], []
  for dtype in (jnp.bfloat16, jnp.float32):
    net = supernets.build(space, dtype=dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def of_one(net, params):
      return jax.grad(
        lambda params: loss_and_logits(net, params, x, arch), has_aux=True
      )(params)

    gradient, values = of_one(net, params)
    leaves = jax.tree.leaves(gradient)
    assert {leaf.dtype for leaf in (values, *leaves)} == {
      jnp.dtype(jnp.float32)
    }
    logits.append(values)
    gradients.append(jnp.concatenate([leaf.ravel() for leaf in leaves]))
  assert_close(*logits, 0.05)
  ours, theirs = gradients
  cosine = ours @ theirs / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs)
  assert cosine > agreement


def test_accelerators_run_the_same_network(monkeypatch):
  """The NHWC formulation, on the same weights."""
  params, x, arch = weights(DIGITS), images(DIGITS, 4), (1, 2, 0, 2)

  def gradient():
    net = supernets.build(DIGITS)
    return jax.jit(jax.grad(lambda p: loss(net, p, x, arch)))(params)

  cpu = gradient()
  monkeypatch.setattr(convolutions, 'trunk_layout', lambda: 'NHWC')
  other = gradient()
  for name, leaf in paths(cpu).items():
    if (leaf != 0).any():
      assert_close(paths(other)[name], leaf, 1e-4)


def test_tensor_sets_name_kernels():
  expected = {
    MACRO.name: ('deep', {'deep': 2, 'early': 1}),
    DIGITS.name: ('deep', {'deep': 2, 'early': 1}),
    POOLING.name: ('authors', {'authors': 11, 'early': 3, 'deep': 6}),
  }
  for name, (default, sizes) in expected.items():
    space = spaces.get(name)
    net = supernets.build(space)
    assert net.default_tensors == default
    names = paths(shapes(space, jnp.asarray(space.enumerate()[0]))['params'])
    found = {
      key: [n for n in names if any(re.fullmatch(p, n) for p in patterns)]
      for key, patterns in net.tensor_sets.items()
    }
    assert {key: len(members) for key, members in found.items()} == sizes
    assert all(n.endswith('kernel') for ns in found.values() for n in ns)


# Twins, written from the papers' descriptions.


def oihw(kernel):
  return np.transpose(np.asarray(kernel), (3, 2, 0, 1))


def twin_norm(torch, x):
  return torch.nn.functional.batch_norm(x, None, None, training=True)


def twin_conv(torch, x, kernel, stride=1):
  """The kernel KxK as HWIO, 1x1 as IO."""
  kernel = np.asarray(kernel)
  if kernel.ndim == 2:
    kernel = kernel[None, None]
  weight = torch.tensor(oihw(kernel))
  return torch.nn.functional.conv2d(
    x, weight, stride=stride, padding=weight.shape[-1] // 2
  )


def twin_macro(torch, space, params, x, arch):
  relu = torch.relu
  x = twin_conv(torch, x, params['stem']['conv']['kernel'])
  x = relu(twin_norm(torch, x))
  channels = space.stem
  e = 0
  for positions, outputs in space.stages:
    for first in [True] + [False] * (positions - 1):
      stride = 2 if first else 1
      p = params[f'position_{e}'].get(f'op_{arch[e]}')
      if arch[e] == 0:
        if first:
          x = twin_conv(torch, x, p['project']['kernel'], stride)
          x = twin_norm(torch, x)
      else:
        expansion, k = {1: (3, 3), 2: (6, 5)}[arch[e]]
        y = twin_conv(torch, x, p['expand']['kernel'])
        assert y.shape[1] == channels * expansion
        y = relu(twin_norm(torch, y))
        kernel = np.asarray(p['depthwise']['kernel'])
        weight = torch.tensor(np.transpose(kernel, (2, 0, 1))[:, None])
        y = torch.nn.functional.conv2d(
          y, weight, stride=stride, padding=k // 2, groups=len(weight)
        )
        y = relu(twin_norm(torch, y))
        y = twin_norm(torch, twin_conv(torch, y, p['project']['kernel']))
        x = y if first else x + y
      channels = outputs
      e += 1
  x = twin_conv(torch, x, params['head']['conv']['kernel'])
  x = relu(twin_norm(torch, x)).mean((2, 3))
  linear = jax.tree.map(np.asarray, params['head']['linear'])
  return x @ torch.tensor(linear['kernel']) + torch.tensor(linear['bias'])


def twin_pooling(torch, space, params, x, arch):
  relu = torch.relu
  x = relu(twin_norm(torch, twin_conv(torch, x, params['stem']['kernel'])))
  for e in range(9):
    if arch[e]:
      x = torch.nn.functional.max_pool2d(x, 2)
    p = params[f'block_{e + 1}']
    y = relu(twin_norm(torch, twin_conv(torch, x, p['conv1']['kernel'])))
    y = twin_norm(torch, twin_conv(torch, y, p['conv2']['kernel']))
    if e in (3, 6):
      x = twin_conv(torch, x, p['shortcut']['project']['kernel'])
      x = twin_norm(torch, x)
    x = relu(x + y)
  linear = jax.tree.map(np.asarray, params['linear'])
  x = x.mean((2, 3))
  return x @ torch.tensor(linear['kernel']) + torch.tensor(linear['bias'])


@pytest.mark.parametrize(
  'space, twin', [(MACRO, twin_macro), (POOLING, twin_pooling)]
)
def test_equals_pytorch(space, twin):
  torch = pytest.importorskip('torch')
  net, params = supernets.build(space), weights(space)
  x = images(space, 4)
  forward = jax.jit(functools.partial(net.apply, train=False))
  archs_AxE = space.random(np.random.default_rng(0), 3)
  for arch_E in archs_AxE:
    theirs = twin(
      torch,
      space,
      params,
      torch.tensor(np.asarray(x)).permute(0, 3, 1, 2),
      static(arch_E),
    )
    assert_close(forward({'params': params}, x, arch_E), theirs, 1e-4)
