"""The C++ kernels against XLA's, and without a compiler."""

import errno
import functools
import itertools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core.meta import unbox

from jaxnas.nn import convolutions, maps, pooling
from jaxnas.nn.blocks import BasicBlock, Identity, InvertedResidual
from jaxnas.nn.cpu import native
from jaxnas.nn.cpu.native import dense, library, middle, normalising, unwritten
from jaxnas.nn.cpu.native import pooling as pools
from jaxnas.nn.cpu.native.middle import KERNELS
from jaxnas.nn.layers import Conv, Groups, Norm, Pointwise
from jaxnas.nn.normalising import ACTIVATIONS

COMPILED = pytest.mark.skipif(
  not library.available('dense'), reason='no C++ compiler'
)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), 'f')


def covering(ones, others, *more):
  """Lists every combination, of which all but a few are slow.

  By default each of `ones` meets each of `others` once, and values of `more`
  change from row to row.
  """
  rows = []
  for shifts in itertools.product(*(range(len(column)) for column in more)):
    for number, pair in enumerate(itertools.product(ones, others)):
      row = [
        column[(number + shift) % len(column)]
        for column, shift in zip(more, shifts, strict=True)
      ]
      marks = [pytest.mark.slow] if any(shifts) else []
      rows.append(pytest.param(*pair, *row, marks=marks))
  return rows


def with_gradients(function, x, kernel, g):
  out, pull = jax.vjp(function, x, kernel)
  return out, *pull(g)


def assert_close(ours, theirs):
  # Of NumPy, so that the largest is not compiled for every shape.
  ours, theirs = (map(np.asarray, values) for values in (ours, theirs))
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * abs(b).max())


# Rows of whole vectors, with a rest, and shorter than the kernel.
SIZES = ((4, 32), (9, 23), (2, 1))
# As many as addresses are known for, and others; in pairs of vectors or not.
CHANNELS = ((3, 16), (16, 16), (48, 16), (16, 64), (3, 32), (64, 32))


@COMPILED
@pytest.mark.parametrize(
  'size, k, channels, batch',
  covering(SIZES, (1, 3, 5), CHANNELS, (1, 35)),
)
def test_values_and_gradients_equal_those_of_xla(size, k, channels, batch):
  x = normal(0, batch, *size, channels[0])
  kernel = normal(1, k, k, *channels)
  g = normal(2, batch, *size, channels[1])
  assert dense.takes(x, kernel, 1)
  ours = jax.jit(lambda *a: with_gradients(dense.convolve, *a))(x, kernel, g)

  def reference(x, kernel):
    with native.without():
      return convolutions.dense(x, kernel)

  with native.without():
    theirs = jax.jit(lambda *a: with_gradients(reference, *a))(x, kernel, g)
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
    ((2, 8, 8, 16), (3, 3, 16, 16), 1, 'float16'),
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
  """Builds a block of 6 channels, with all that a block can have."""
  norm = functools.partial(
    Norm, affine=True, momentum=0.1, layout='CHWN', groups=Groups(groups)
  )
  return InvertedResidual(
    6, expansion, kernel, stride, norm, layout='CHWN', **options
  )


def variables_of(layer, x):
  """Draws variables of which none is what it begins with."""
  init = functools.partial(layer.init, jax.random.key(0), x, True)
  variables = unbox(jax.eval_shape(init))
  rng = np.random.default_rng(2)

  def drawn(path, leaf):
    begins = path[-1].key in ('scale', 'var')
    values = begins + 0.3 * rng.normal(size=leaf.shape)
    return jnp.asarray(abs(values) if begins else values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(drawn, variables)


def trained(layer, variables, x, g):
  """Result, running statistics, and gradients of parameters and input."""

  def run(params, x):
    out, changed = layer.apply(
      {**variables, 'params': params}, x, True, mutable=['batch_stats']
    )
    return jnp.vdot(out, g), (out, changed)

  gradient = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
  return jax.jit(gradient)(variables['params'], x)


def uses_library(layer, variables, x, train=True):
  program = jax.make_jaxpr(
    lambda x: layer.apply(variables, x, train, mutable=['batch_stats'])
  )(x)
  return 'jaxnas_middle' in str(program)


OPTIONS = (
  *({'activation': name} for name in ACTIVATIONS),
  {'expansion': 1},
  {'squeeze': 4},
)
# Rows of whole vectors, with a rest, and maps smaller than the kernel.
SHAPES = ((6, 7, 64), (5, 8, 3), (2, 1, 5))


@COMPILED
@pytest.mark.parametrize(
  'shape, kernel, stride, options',
  covering(SHAPES, KERNELS, (1, 2), OPTIONS),
  ids=str,
)
def test_a_block_is_that_of_xla(shape, kernel, stride, options):
  layer = block(kernel=kernel, stride=stride, **options)
  x = normal(0, 6, *shape) * 3 + 1
  variables = variables_of(layer, x)
  assert uses_library(layer, variables, x)
  out = jax.eval_shape(lambda: layer.apply(variables, x, False))
  g = normal(1, *out.shape)
  ours = trained(layer, variables, x, g)
  with native.without():
    theirs = trained(layer, variables, x, g)
  ours, theirs = jax.tree.map(np.asarray, (ours, theirs))
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
    ({'dtype': jnp.float16}, True),
    ({'kernel': 9}, True),
    ({}, False),
  ],
  ids=['groups', 'float16', 'kernel', 'running statistics'],
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


def normalised(activation, layout='NHWC'):
  def run(x, terms):
    statistics = normalising.moments(x, layout)
    return normalising.normalise(x, layout, terms, statistics, activation, 1e-5)

  return run


def of_block(x, kernel, terms):
  return middle.middle(x, kernel, terms, middle.Options(2, 'relu', True, 1e-5))[
    0
  ]


# A function of a map and of others, and their shapes.
OF_MAPS = {
  'pointwise': (dense.convolve, (3, 5, 4, 16), (1, 1, 16, 32)),
  'dense': (dense.convolve, (35, 4, 9, 16), (3, 3, 16, 16)),
  'of images': (dense.convolve, (3, 9, 23, 3), (5, 5, 3, 16)),
  'normalised': (normalised(None), (3, 5, 4, 23), (2, 23)),
  'normalised, relu': (normalised('relu'), (35, 5, 4, 64), (2, 64)),
  'normalised, CHWN': (normalised('relu', 'CHWN'), (23, 5, 4, 3), (2, 23)),
  'largest': (lambda x: pools.shrink(x, True), (3, 5, 4, 23)),
  'halved': (lambda x: pools.shrink(x, False), (3, 4, 5, 64)),
  'averaged': (pools.average, (3, 5, 4, 23)),
  'a block': (of_block, (23, 5, 4, 3), (3, 3, 23), (4, 23)),
  'laid out': (lambda x: maps.relayout(x, 'NHWC', 'CHWN'), (3, 5, 4, 23)),
}


@COMPILED
@pytest.mark.parametrize('name', OF_MAPS)
def test_bfloat16_is_float32_but_in_memory(name):
  """Both give the same bits, once results are rounded."""
  assert all(map(library.available, {*library.TARGETS} - {*library.NEEDS}))
  function, *shapes = OF_MAPS[name]
  x, *others = (normal(i, *shape) for i, shape in enumerate(shapes))
  x = x.astype(jnp.bfloat16)
  g = normal(9, *jax.eval_shape(function, x, *others).shape)
  g = g.astype(jnp.bfloat16)

  @jax.jit
  def run(x, *others_and_g):
    *others, g = others_and_g
    out, pull = jax.vjp(function, x, *others)
    return out, *pull(g)

  halves = run(x, *others, g)
  wholes = run(x.astype('f'), *others, g.astype('f'))
  assert halves[0].dtype == halves[1].dtype == jnp.bfloat16
  for half, whole in zip(halves, wholes, strict=True):
    np.testing.assert_array_equal(half, whole.astype(half.dtype))


@COMPILED
@pytest.mark.parametrize(
  'value', [jnp.nan, jnp.inf, -jnp.inf, 3.3895314e38, 1e-40, -0.0]
)
def test_bfloat16_holds_what_is_no_common_number(value):
  x = jnp.zeros((1, 1, 1, 16), jnp.bfloat16).at[0, 0, 0, 0].set(value)
  kernel = jnp.eye(16)[None, None] * 1.002
  out = dense.convolve(x, kernel)[0, 0, 0, 0]
  whole = x[0, 0, 0, 0].astype('f') * jnp.float32(1.002)
  np.testing.assert_array_equal(
    out.astype('f'), whole.astype(jnp.bfloat16).astype('f')
  )


@COMPILED
@pytest.mark.parametrize('activation', [None, 'relu'])
@pytest.mark.parametrize('channels', [3, 16, 23])
@pytest.mark.parametrize('layout', ['NHWC', 'CHWN'])
def test_a_norm_is_that_of_xla(activation, channels, layout):
  """In bfloat16 as near to float32 as a rounding of each value allows."""
  shape = {'NHWC': (9, 5, 7, channels), 'CHWN': (channels, 5, 7, 9)}[layout]
  x = (normal(0, *shape) * 3 + 1).astype(jnp.bfloat16)
  g = normal(1, *shape).astype(jnp.bfloat16)

  def results(dtype):
    layer = Norm(affine=True, momentum=0.1, layout=layout, dtype=dtype)
    variables = variables_of(layer, x.astype(dtype))

    def run(params, x):
      out, changed = layer.apply(
        {**variables, 'params': params},
        x,
        True,
        activation,
        mutable=['batch_stats'],
      )
      return out, changed

    assert ('jaxnas_normalise' in str(jax.make_jaxpr(run)(
      variables['params'], x.astype(dtype)
    ))) == (dtype == jnp.bfloat16)  # fmt: skip
    out, pull, changed = jax.vjp(
      run, variables['params'], x.astype(dtype), has_aux=True
    )
    return (out, *pull(g.astype(dtype)), changed)

  ours, theirs = results(jnp.bfloat16), results(jnp.float32)
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    a, b = (np.asarray(each, 'f') for each in (a, b))
    np.testing.assert_allclose(a, b, rtol=2**-8, atol=3e-5 * abs(b).max())


@COMPILED
@pytest.mark.parametrize(
  'options, train, activation',
  [
    ({'groups': Groups(3)}, True, None),
    ({'dtype': jnp.float32}, True, None),
    ({'momentum': 0.1}, False, None),
    ({}, True, 'hard_swish'),
  ],
  ids=['groups', 'float32', 'running statistics', 'activation'],
)
def test_other_norms_are_left_to_xla(options, train, activation):
  layer = Norm(**{'dtype': jnp.bfloat16, **options})
  x = jnp.ones((6, 4, 4, 16), layer.dtype)
  variables = layer.init(jax.random.key(0), x, True)
  program = jax.make_jaxpr(
    lambda x: layer.apply(
      variables, x, train, activation, mutable=['batch_stats']
    )
  )(x)
  assert 'ffi_call' not in str(program)


@COMPILED
@pytest.mark.parametrize('shape', [(9, 6, 8, 16), (2, 4, 2, 5), (35, 2, 2, 64)])
@pytest.mark.parametrize(
  'pool',
  [pooling.max_pool, pooling.halved, pooling.average_pool],
  ids=lambda pool: pool.__name__,
)
def test_a_pool_is_that_of_xla(pool, shape):
  """In bfloat16, with values that are equal, as near as a rounding allows."""
  x = jnp.maximum(normal(0, *shape), 0).astype(jnp.bfloat16)
  g = normal(1, *jax.eval_shape(pool, x).shape).astype(jnp.bfloat16)

  def results(x, g):
    out, pull = jax.vjp(pool, x)
    return out, *pull(g)

  assert 'ffi_call' in str(jax.make_jaxpr(pool)(x))
  ours, theirs = results(x, g), results(x.astype('f'), g.astype('f'))
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == jnp.bfloat16 and b.dtype == jnp.float32
    np.testing.assert_allclose(a.astype('f'), b, rtol=2**-8, atol=1e-6)


@COMPILED
@pytest.mark.parametrize(
  'options', [{}, {'expansion': 1, 'stride': 2}], ids=str
)
def test_a_block_in_bfloat16_is_as_near_to_float32_as_that_of_xla(options):
  x = (normal(0, 6, 6, 7, 64) * 3 + 1).astype(jnp.bfloat16)

  def results(dtype):
    layer = block(dtype=dtype, **options)
    variables = variables_of(layer, x.astype(dtype))
    out = jax.eval_shape(lambda: layer.apply(variables, x.astype(dtype), False))
    g = normal(1, *out.shape)
    leaves = jax.tree.leaves(trained(layer, variables, x.astype(dtype), g))
    return [np.asarray(leaf, 'f') for leaf in leaves]

  exact, ours = results(jnp.float32), results(jnp.bfloat16)
  with native.without():
    theirs = results(jnp.bfloat16)
  apart = [
    [np.linalg.norm(a - b) for a, b in zip(each, exact, strict=True)]
    for each in (ours, theirs)
  ]
  for us, them, leaf in zip(*apart, exact, strict=True):
    assert us <= 1.2 * them + 1e-5 * np.linalg.norm(leaf)


@COMPILED
def test_a_block_in_bfloat16_writes_no_map_as_floats():
  """Nor reads one in a pass of its own, in either direction."""
  norm = functools.partial(Norm, affine=True, dtype=jnp.bfloat16)
  shortcut = functools.partial(Identity, 16, 1, norm, dtype=jnp.bfloat16)
  layer = BasicBlock(16, shortcut, norm, dtype=jnp.bfloat16)
  x = normal(0, 7, 9, 5, 16).astype(jnp.bfloat16)
  params = layer.init(jax.random.key(0), x, True)

  def run(params, x, g):
    out, pull = jax.vjp(lambda *given: layer.apply(*given, True), params, x)
    return out, pull(g)

  text = jax.jit(run).lower(params, x, x).compile().as_text()
  written = [
    line
    for computation in re.split(r'\n(?=\S)', text)
    if not computation.startswith('%fused')
    for line in computation.splitlines()
    if re.match(r'.* = f32\[7,9,5,16\]', line)
  ]
  assert 'bf16[7,9,5,16]' in text and not written


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


RUN = """
import sys
import jax.numpy as jnp
from jaxnas.nn import convolutions
from jaxnas.nn.cpu.native import library
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


@pytest.fixture
def tiny(tmp_path, monkeypatch):
  """Loads a small source by way of a cache of its own."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  source = tmp_path / 'tiny.cc'
  source.write_text('extern "C" int answer() { return 42; }')
  return lambda: library._library(source, 'c++', []).answer()


def cut(size):
  return lambda whole: whole[:size]


def flipped(whole):
  return whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]


@COMPILED
def test_it_is_built_once_and_kept(tmp_path, tiny):
  assert tiny() == 42
  (name,) = kept(tmp_path)
  file = tmp_path / 'jaxnas/native' / name
  then = file.stat().st_mtime_ns
  assert tiny() == 42
  assert kept(tmp_path) == [name] and file.stat().st_mtime_ns == then


@COMPILED
@pytest.mark.parametrize(
  'damage', [cut(0), cut(4096), cut(-1), flipped, lambda whole: b'#!/bin/sh']
)
def test_a_damaged_library_is_not_loaded_but_built_anew(tmp_path, tiny, damage):
  """Half of one would end the process with a bus error."""
  assert tiny() == 42
  (name,) = kept(tmp_path)
  file = tmp_path / 'jaxnas/native' / name
  whole = file.read_bytes()
  # Another file, as this process still has the first one in memory.
  file.unlink()
  file.write_bytes(damage(whole))
  assert tiny() == 42
  assert kept(tmp_path) == [name] and file.read_bytes() == whole


@COMPILED
def test_a_library_that_can_not_be_kept_serves_all_the_same(
  tmp_path, monkeypatch, tiny
):
  def full(fd):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  assert tiny() == 42 and kept(tmp_path) == []


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
def test_where_nothing_can_be_kept_it_is_built_anew(tmp_path, tiny):
  (tmp_path / 'jaxnas').write_text('a file, where a folder would be')
  assert tiny() == 42
