"""What is in C++ against XLA's, and what happens without a compiler."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.density import rows
from jaxnas.nn import convolutions, maps, native
from jaxnas.nn.blocks import InvertedResidual
from jaxnas.nn.layers import ACTIVATIONS, Conv, Groups, Norm, Pointwise
from jaxnas.nn.native import dense, library, unit_sum, unwritten
from jaxnas.nn.native.middle import KERNELS

COMPILED = pytest.mark.skipif(
  not library.available('dense'), reason='no C++ compiler'
)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), 'f')


def with_gradients(function, x, kernel, g):
  out, pull = jax.vjp(function, x, kernel)
  return out, *pull(g)


def assert_close(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * abs(b).max())


@COMPILED
@pytest.mark.parametrize('k', [1, 3, 5])
# Rows of whole vectors, with a rest, and shorter than the kernel.
@pytest.mark.parametrize('size', [(4, 32), (9, 23), (2, 1)])
# As many as addresses are known for, and others; in pairs of vectors or not.
@pytest.mark.parametrize(
  'channels', [(3, 16), (16, 16), (48, 16), (16, 64), (3, 32), (64, 32)]
)
@pytest.mark.parametrize('batch', [1, 35])
def test_values_and_gradients_equal_those_of_xla(batch, channels, size, k):
  x = normal(0, batch, *size, channels[0])
  kernel = normal(1, k, k, *channels)
  g = normal(2, batch, *size, channels[1])
  assert dense.takes(x, kernel, 1)
  ours = jax.jit(lambda *a: with_gradients(dense.convolve, *a))(x, kernel, g)

  def reference(x, kernel):
    with native.without():
      return convolutions.dense(x, kernel)

  with native.without():
    theirs = with_gradients(reference, x, kernel, g)
  assert_close(ours, theirs)


@COMPILED
def test_a_batch_of_convolutions_is_one_after_the_other():
  x, kernel = normal(0, 3, 2, 5, 4, 16), normal(1, 3, 3, 3, 16, 32)
  ours = jax.vmap(dense.convolve)(x, kernel)
  each = [dense.convolve(*pair) for pair in zip(x, kernel, strict=True)]
  np.testing.assert_array_equal(ours, jnp.stack(each))


@COMPILED
def test_a_kernels_gradient_is_the_same_bits_each_time():
  """Threads take parts of the batch as they come; sums are in order."""
  x, kernel = normal(0, 37, 16, 16, 16), normal(1, 3, 3, 16, 16)
  run = jax.jit(lambda x: with_gradients(dense.convolve, x, kernel, x)[2])
  first = run(x)
  for _ in range(20):
    np.testing.assert_array_equal(run(x), first)


@COMPILED
def test_many_at_once_hang_no_thread():
  """More calls than threads, each of which asks for all threads."""
  x, kernel = normal(0, 8, 8, 8, 16), normal(1, 3, 3, 16, 16)

  @jax.jit
  def run(x):
    return sum(dense.convolve(x + i, kernel) for i in range(32))

  assert_close(
    [run(x)], [sum(dense.convolve(x + i, kernel) for i in range(32))]
  )


@pytest.mark.parametrize(
  'shape, kernel, stride, dtype',
  [
    ((2, 8, 8, 16), (3, 3, 16, 16), 2, 'float32'),
    ((2, 8, 8, 16), (3, 3, 16, 16), 1, 'bfloat16'),
    ((2, 8, 8, 128), (1, 1, 128, 16), 1, 'float32'),
    ((2, 8, 8, 16), (3, 3, 16, 24), 1, 'float32'),
    ((2, 8, 8, 16), (2, 2, 16, 16), 1, 'float32'),
  ],
)
def test_other_convolutions_are_left_to_xla(shape, kernel, stride, dtype):
  x, kernel = jnp.ones(shape, dtype), jnp.ones(kernel, dtype)
  assert not dense.takes(x, kernel, stride)


@COMPILED
@pytest.mark.parametrize('layer', [Conv(16), Pointwise(16)], ids=str)
def test_layers_use_it_on_cpu_and_leave_it_out_where_programs_travel(layer):
  x = jnp.ones((2, 8, 8, 16))
  weights = layer.init(jax.random.key(0), x)
  assert 'ffi_call' in str(jax.make_jaxpr(layer.apply)(weights, x))
  with native.without():
    assert 'ffi_call' not in str(jax.make_jaxpr(layer.apply)(weights, x))


def block(*, expansion=2, kernel=3, stride=1, groups=1, **options):
  """Of 6 channels, with all that a block can have."""
  norm = functools.partial(
    Norm, affine=True, momentum=0.1, layout='CHWN', groups=Groups(groups)
  )
  return InvertedResidual(
    6, expansion, kernel, stride, norm, layout='CHWN', **options
  )


def variables_of(layer, x):
  """With terms that are not what they begin with."""
  variables = layer.init(jax.random.key(0), x, True)
  leaves, tree = jax.tree.flatten(variables['params'])
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    leaf + 0.3 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return {**variables, 'params': jax.tree.unflatten(tree, moved)}


def trained(layer, variables, x, g):
  """Result, running statistics, and gradients of parameters and input."""

  @jax.jit
  def run(params, x):
    out, changed = layer.apply(
      {**variables, 'params': params}, x, True, mutable=['batch_stats']
    )
    return jnp.vdot(out, g), (out, changed)

  gradient = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
  return gradient(variables['params'], x)


def uses_library(layer, variables, x, train=True):
  program = jax.make_jaxpr(
    lambda x: layer.apply(variables, x, train, mutable=['batch_stats'])
  )(x)
  return 'jaxnas_middle' in str(program)


@COMPILED
@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize('stride', [1, 2])
# Rows of whole vectors, with a rest, and maps smaller than the kernel.
@pytest.mark.parametrize('shape', [(6, 7, 64), (5, 8, 3), (2, 1, 5)])
@pytest.mark.parametrize(
  'options',
  [
    *({'activation': name} for name in ACTIVATIONS),
    {'expansion': 1},
    {'squeeze': 4},
  ],
  ids=str,
)
def test_a_block_is_that_of_xla(options, shape, stride, kernel):
  layer = block(kernel=kernel, stride=stride, **options)
  x = normal(0, 6, *shape) * 3 + 1
  variables = variables_of(layer, x)
  assert uses_library(layer, variables, x)
  g = normal(1, *layer.apply(variables, x, False).shape)
  ours = trained(layer, variables, x, g)
  with native.without():
    theirs = trained(layer, variables, x, g)
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5 * abs(b).max())


@COMPILED
def test_a_block_is_the_same_bits_each_time():
  layer, x = block(), normal(0, 6, 8, 8, 16)
  variables = variables_of(layer, x)
  first = trained(layer, variables, x, x)
  for _ in range(20):
    again = trained(layer, variables, x, x)
    jax.tree.map(np.testing.assert_array_equal, again, first)


@COMPILED
def test_what_is_not_a_number_stays_so():
  layer, x = block(), normal(0, 6, 4, 4, 16)
  variables = variables_of(layer, x)
  out, _ = layer.apply(
    variables, x.at[0, 0, 0, 0].set(jnp.nan), True, mutable=['batch_stats']
  )
  assert jnp.isnan(out).all()


@COMPILED
@pytest.mark.parametrize(
  'options, train',
  [
    ({'groups': 2}, True),
    ({'dtype': jnp.bfloat16}, True),
    ({'kernel': 9}, True),
    ({}, False),
  ],
  ids=['groups', 'bfloat16', 'kernel', 'running statistics'],
)
def test_other_blocks_are_left_to_xla(options, train):
  layer, x = block(**options), normal(0, 6, 4, 4, 16)
  assert not uses_library(layer, variables_of(layer, x), x, train)


@COMPILED
@pytest.mark.parametrize('shape', [(3, 5, 4, 16), (70, 1, 9, 2)])
def test_a_map_is_laid_out_as_by_xla(shape):
  x = normal(0, *shape)
  out, pull = jax.vjp(lambda x: maps.relayout(x, 'NHWC', 'CHWN'), x)
  np.testing.assert_array_equal(out, x.transpose(3, 1, 2, 0))
  np.testing.assert_array_equal(*pull(out), x)
  assert 'ffi_call' in str(jax.make_jaxpr(pull)(out))


@COMPILED
@pytest.mark.parametrize('count, size', [(0, 5), (3, 5), (70_001, 200_000)])
def test_what_is_extended_stands_first(count, size):
  x = normal(0, count)
  assert unwritten.takes(x)
  out = jax.jit(functools.partial(unwritten.extend, size=size, number=0))(x)
  assert out.shape == (size,)
  np.testing.assert_array_equal(out[:count], x)


@COMPILED
def test_nothing_is_written_twice():
  """XLA would copy what it has made one."""
  none = jnp.zeros(0)

  @jax.jit
  def run():
    return [unwritten.extend(none, 1000, number) for number in range(3)]

  program = run.lower().compile().as_text()
  assert program.count('jaxnas_extend') == 3
  assert ' copy(' not in program


@COMPILED
@pytest.mark.parametrize('shape', [(1, 3), (7, 64), (50, 1003)])
def test_a_sum_of_unit_vectors_is_that_of_xla(shape):
  """Of zeros, and of what float32 can't hold the square of, too."""
  rows_AxD = normal(0, *shape)
  if len(rows_AxD) > 1:
    rows_AxD = rows_AxD.at[1].set(0).at[2].mul(1e-25).at[3].mul(1e30)
  assert unit_sum.takes(rows_AxD)
  ours, theirs = unit_sum.unit_sum(rows_AxD), rows.unit_sum(rows_AxD)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
  assert np.count_nonzero(ours[1]) == shape[0] - (shape[0] > 1)


@COMPILED
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_length(value):
  rows_AxD = jnp.ones((3, 40)).at[1, 37].set(value)
  assert unit_sum.takes(rows_AxD)
  np.testing.assert_array_equal(
    jnp.isfinite(unit_sum.unit_sum(rows_AxD)[1]), [True, False, True]
  )


RUN = """
import sys
import jax.numpy as jnp
from jaxnas.nn import convolutions
from jaxnas.nn.native import library
print(convolutions.dense(jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 16)))
      .sum(), library.available('dense'))
"""


def run(tmp_path, **environment):
  done = subprocess.run(
    [sys.executable, '-c', RUN],
    env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path), **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip(), done.stderr


def kept(tmp_path):
  return sorted(file.name for file in tmp_path.glob('jaxnas/native/*'))


@COMPILED
def test_it_is_built_once_and_kept(tmp_path):
  out, _ = run(tmp_path)
  assert out == '25600.0 True'
  (built,) = kept(tmp_path)
  file = tmp_path / 'jaxnas/native' / built
  then = file.stat().st_mtime_ns
  assert run(tmp_path)[0] == out
  assert kept(tmp_path) == [built] and file.stat().st_mtime_ns == then


def test_without_a_compiler_xla_serves(tmp_path):
  out, said = run(tmp_path, CXX='')
  assert out == '25600.0 False' and kept(tmp_path) == []
  assert 'compiler' not in said


def test_a_compiler_that_fails_is_named_and_xla_serves(tmp_path):
  compiler = tmp_path / 'c++'
  compiler.write_text('#!/bin/sh\necho "no such thing" >&2; exit 1\n')
  compiler.chmod(0o755)
  out, said = run(tmp_path, CXX=str(compiler))
  assert out == '25600.0 False' and kept(tmp_path) == []
  assert f'{compiler} failed: no such thing' in said


@COMPILED
def test_where_nothing_can_be_kept_it_is_built_anew(tmp_path):
  (tmp_path / 'jaxnas').write_text('a file, where a folder would be')
  assert run(tmp_path)[0] == '25600.0 True'
