"""Supernets: one program for all archs."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import spaces, supernets
from jaxnas.nn import maps
from support.small_spaces import SMALL_CELLS, SMALL_MOBILENET, SMALL_POOLING

DIGITS = spaces.get('digits')
POOLING = spaces.get('pooling')
MACRO = spaces.get('nas_bench_macro')
CELLS = spaces.get('nas_bench_201')


def images(space, count, seed=0):
  shape = (count, *space.image_shape)
  return jnp.asarray(
    np.random.default_rng(seed).normal(size=shape), jnp.float32
  )


@functools.cache
def compiled(space):
  """The program of every arch, compiled once, and a list of its traces.

  It maps (params, x, arch_E) to ((loss, logits), gradient).
  """
  net, traces = supernets.build(space), []

  @jax.jit
  def of_any(params, x, arch_E):
    traces.append(arch_E)
    of_net = functools.partial(loss_and_logits, net)
    return jax.value_and_grad(of_net, has_aux=True)(params, x, arch_E)

  return of_any, traces


def static_program(space, arch_E, dtype=jnp.float32):
  """(params, x) -> ((loss, logits), gradient), for one architecture."""
  net = supernets.build(space, dtype=dtype)

  @jax.jit
  def of_one(params, x):
    of_net = functools.partial(loss_and_logits, net)
    return jax.value_and_grad(of_net, has_aux=True)(params, x, static(arch_E))

  return of_one


@functools.cache
def weights(space):
  some_arch_E = np.zeros(space.positions, np.int32)
  return supernets.init(supernets.build(space), some_arch_E, 0)['params']


def loss_and_logits(net, params, x, arch):
  logits = net.apply({'params': params}, x, arch, train=True)
  y = jnp.arange(len(x)) % logits.shape[1]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
  return losses.mean(), logits


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
  'space',
  [
    DIGITS,
    MACRO,
    POOLING,
    CELLS,
    spaces.get('mobilenet'),
    spaces.get('mobilenet_strict'),
  ],
  ids=lambda s: s.name,
)
def test_stand_alone_counts_are_the_costs_of_the_space(space):
  # One of twenty positions has nearly every block.
  count_of = 1 if space.name.startswith('mobilenet') else 3
  archs_AxE = space.random(np.random.default_rng(0), count_of)
  for arch_E, expected in zip(
    archs_AxE, space.costs(archs_AxE).params_A, strict=True
  ):
    made = shapes(space, static(arch_E), affine=True, momentum=0.1)
    assert count(made['params']) == expected


@pytest.mark.parametrize(
  'space',
  [
    DIGITS,
    *(
      pytest.param(space, marks=pytest.mark.slow)
      for space in (SMALL_POOLING, SMALL_CELLS, SMALL_MOBILENET)
    ),
  ],
  ids=lambda s: s.name,
)
def test_one_program_for_all_archs_equals_each_static_one(space):
  params, x = weights(space), images(space, 8)
  of_any, traces = compiled(space)
  archs_AxE = space.enumerate()
  archs_AxE = archs_AxE[:: max(1, len(archs_AxE) // 40)]
  rows = [len(archs_AxE) // 2, -1] if space == SMALL_POOLING else [17]
  for arch_E in archs_AxE[rows]:
    (value, _), gradient = of_any(params, x, arch_E)
    (expected, _), expected_gradient = static_program(space, arch_E)(params, x)
    assert value == pytest.approx(float(expected), rel=1e-5)
    for name, leaf in paths(expected_gradient).items():
      assert_close(paths(gradient)[name], leaf, 1e-4)
  for arch_E in archs_AxE:
    of_any(params, x, arch_E)
  assert len(traces) == 1


def test_alike_positions_are_one_program():
  """Three of five positions have one shape and the same candidates."""
  net = supernets.build(SMALL_MOBILENET)
  arch_E = jnp.zeros(5, jnp.int32)
  forward = jax.jit(
    lambda params, x, arch_E: net.apply(
      {'params': params}, x, arch_E, train=True
    )
  )
  lowered = forward.lower(
    weights(SMALL_MOBILENET), images(SMALL_MOBILENET, 2), arch_E
  )
  assert lowered.as_text().count('stablehlo.case') == 3


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


def test_no_pooling_arch_reads_what_is_of_other_resolutions(request):
  space = SMALL_POOLING
  operands = weights(space), images(space, 8)
  archs_AxE = space.enumerate()

  def of_all(of_any):
    return [of_any(*operands, jnp.asarray(arch_E)) for arch_E in archs_AxE]

  wanted = of_all(compiled(space)[0])
  request.getfixturevalue('unread_is_nan')
  of_any, _ = compiled.__wrapped__(space)
  jax.tree.map(
    functools.partial(assert_close, tolerance=2e-4), of_all(of_any), wanted
  )


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
  net = supernets.build(DIGITS, affine=True, momentum=0.1)
  x, arch_E = images(DIGITS, 6), jnp.array([2, 0, 1, 0])
  state = supernets.init(net, arch_E, 0)
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
  'space, agreement',
  [
    (DIGITS, 0.99),
    *(
      pytest.param(space, 0.9, marks=pytest.mark.slow)
      for space in (SMALL_POOLING, SMALL_CELLS, SMALL_MOBILENET)
    ),
  ],
  ids=lambda value: getattr(value, 'name', ''),
)
def test_bfloat16_is_close_to_float32(space, agreement):
  params, x = weights(space), images(space, 8)
  arch_E = space.enumerate()[4]
  of_wide, _ = compiled(space)
  of_one = static_program(space, arch_E, dtype=jnp.bfloat16)
  logits, gradients = [], []
  for (_, values), gradient in (of_one(params, x), of_wide(params, x, arch_E)):
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


@pytest.mark.parametrize(
  'space, arch',
  [
    (DIGITS, (1, 2, 0, 2)),
    pytest.param(SMALL_MOBILENET, (9, 0, 5, 12, 11), marks=pytest.mark.slow),
  ],
  ids=lambda value: getattr(value, 'name', ''),
)
def test_accelerators_run_the_same_network(space, arch, monkeypatch):
  """The NHWC formulation, on the same weights."""
  params, x = weights(space), images(space, 8)
  arch_E = np.array(arch, np.int32)
  _, cpu = compiled(space)[0](params, x, arch_E)
  monkeypatch.setattr(maps, 'trunk_layout', lambda: 'NHWC')
  _, other = static_program(space, arch_E)(params, x)
  for name, leaf in paths(cpu).items():
    if (leaf != 0).any():
      assert_close(paths(other)[name], leaf, 1e-4)


def test_tensor_sets_name_kernels():
  expected = {
    MACRO.name: ('deep', {'deep': 2, 'early': 1}),
    DIGITS.name: ('deep', {'deep': 2, 'early': 1}),
    POOLING.name: ('authors', {'authors': 11, 'early': 3, 'deep': 6}),
    CELLS.name: ('deep', {'deep': 4, 'early': 1}),
    SMALL_MOBILENET.name: ('deep', {'deep': 2, 'early': 1}),
  }
  for space in (MACRO, DIGITS, POOLING, CELLS, SMALL_MOBILENET):
    default, sizes = expected[space.name]
    net = supernets.build(space)
    assert net.default_tensors == default
    some_arch_E = jnp.zeros(space.positions, jnp.int32)
    names = paths(nn.unbox(shapes(space, some_arch_E))['params'])
    found = {
      key: [n for n in names if any(re.fullmatch(p, n) for p in patterns)]
      for key, patterns in net.tensor_sets.items()
    }
    assert {key: len(members) for key, members in found.items()} == sizes
    assert all(n.endswith('kernel') for ns in found.values() for n in ns)
