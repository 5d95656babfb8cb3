"""Products of bfloat16 by oneDNN, where it and the instructions are there."""

import functools
import itertools
import os
import re
import subprocess
import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.nn import convolutions
from jaxnas.nn.blocks import BasicBlock, Identity, InvertedResidual
from jaxnas.nn.cpu import bits, native
from jaxnas.nn.cpu.native import library, onednn
from jaxnas.nn.layers import Norm

SERVES = pytest.mark.skipif(
  not (library.available('onednn') and onednn.instructions()),
  reason='needs the extra onednn, a C++ compiler, and AVX512-BF16 or AMX',
)
# Half a unit in the last place: of what is stored, and of what is summed.
STORED, SUMMED = 2.0**-8, 2.0**-24


def normal(seed, *shape):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.bfloat16)


def convolved(x, kernel, stride):
  """NumPy's, one tap after the other, in float64."""
  k, pad = len(kernel), len(kernel) // 2
  outs = [(side - 1) // stride + 1 for side in x.shape[1:3]]
  padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  out = np.zeros((len(x), *outs, kernel.shape[3]))
  for i, j in itertools.product(range(k), range(k)):
    rows, columns = (
      slice(start, start + stride * (side - 1) + 1, stride)
      for start, side in zip((i, j), outs, strict=True)
    )
    out += padded[:, rows, columns] @ kernel[i, j]
  return out


def pulled(function, x, kernel, g):
  """Gradients in float64: of each value, by the difference that it makes.

  Both sides are linear, so that a difference is the derivative.
  """
  of_x = [
    (function(each.reshape(x.shape), kernel) * g).sum()
    for each in np.eye(x.size)
  ]
  of_kernel = [
    (function(x, each.reshape(kernel.shape)) * g).sum()
    for each in np.eye(kernel.size)
  ]
  return np.reshape(of_x, x.shape), np.reshape(of_kernel, kernel.shape)


def assert_rounded(ours, exact, terms, addends):
  """Each value is within its own rounding and that of its sum.

  Products of two bfloat16 are exact in float32, and so each of `addends` steps
  of the sum errs by at most SUMMED of the sum of magnitudes, `terms`.
  """
  ours = np.asarray(ours, float)
  summing = 2 * (addends + 8) * SUMMED * terms
  assert (abs(ours - exact) <= STORED * abs(exact) + 1.01 * summing).all()


# Maps of odd sides, and smaller than the kernel.
SHAPES = [
  ((1, 4, 3, 3), 3, 16),
  ((3, 2, 2, 6), 5, 8),
  ((2, 5, 4, 7), 1, 5),
]


@SERVES
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('shape, k, outputs', SHAPES)
def test_gradients_are_those_by_differences_in_float64(
  shape, k, outputs, stride
):
  x, kernel = normal(0, *shape), normal(1, k, k, shape[3], outputs)
  out, pull = jax.vjp(lambda *of: onednn.convolve(*of, stride), x, kernel)
  g = normal(2, *out.shape)
  wide = [np.asarray(each, float) for each in (x, kernel, g)]
  function = functools.partial(convolved, stride=stride)
  exact = pulled(function, *wide)
  terms = pulled(function, *map(abs, wide))
  addends = k * k * outputs, g[..., 0].size
  for each in zip(pull(g), exact, terms, addends, strict=True):
    assert_rounded(*each)


@SERVES
@pytest.mark.parametrize('batch', [1, 8, 35])
@pytest.mark.parametrize(
  'side, inputs, outputs, k, stride',
  [
    ((9, 23), 3, 16, 3, 1),
    ((8, 8), 16, 32, 3, 2),
    ((5, 7), 48, 17, 1, 2),
    ((4, 4), 64, 128, 1, 1),
    ((6, 6), 32, 32, 7, 1),
  ],
)
def test_a_convolution_is_rounded_once(batch, side, inputs, outputs, k, stride):
  x, kernel = normal(0, batch, *side, inputs), normal(1, k, k, inputs, outputs)
  wide = [np.asarray(each, float) for each in (x, kernel)]
  out = onednn.convolve(x, kernel, stride)
  assert out.dtype == jnp.bfloat16
  terms = convolved(*map(abs, wide), stride)
  assert_rounded(out, convolved(*wide, stride), terms, k * k * inputs)


@SERVES
@pytest.mark.parametrize(
  'inputs, outputs, columns', [(7, 5, 33), (32, 96, 5_000), (64, 16, 1_024)]
)
def test_products_are_rounded_once(inputs, outputs, columns):
  kernel, x = normal(0, inputs, outputs), normal(1, inputs, columns)
  out, pull = jax.vjp(onednn.multiply, kernel, x)
  g = normal(2, *out.shape)
  k, x, g_wide = (np.asarray(each, float) for each in (kernel, x, g))
  of_kernel, of_x = pull(g)
  assert_rounded(out, k.T @ x, abs(k).T @ abs(x), inputs)
  assert_rounded(of_x, k @ g_wide, abs(k) @ abs(g_wide), outputs)
  assert_rounded(of_kernel, x @ g_wide.T, abs(x) @ abs(g_wide).T, columns)


@SERVES
def test_layouts_meet_in_the_same_pointwise_convolution():
  x, kernel = normal(0, 6, 5, 4, 24), normal(1, 24, 40)
  ours = [
    convolutions.pointwise(
      jnp.transpose(x, axes), kernel, stride=2, layout=layout
    )
    for layout, axes in (('NHWC', (0, 1, 2, 3)), ('CHWN', (3, 1, 2, 0)))
  ]
  exact = np.asarray(x, float)[:, ::2, ::2] @ np.asarray(kernel, float)
  np.testing.assert_allclose(ours[0].astype('f'), exact, rtol=0, atol=0.2)
  np.testing.assert_allclose(
    jnp.transpose(ours[1], (3, 1, 2, 0)).astype('f'), exact, rtol=0, atol=0.2
  )


DIGEST = """
import hashlib, jax, jax.numpy as jnp, numpy as np
from jaxnas.nn.cpu.native import library, onednn
assert library.available('onednn')
draw = np.random.default_rng(0).normal
x, kernel = (jnp.asarray(draw(size=s), jnp.bfloat16)
             for s in ((35, 9, 8, 16), (3, 3, 16, 32)))
out, pull = jax.vjp(lambda *of: onednn.convolve(*of, 1), x, kernel)
kernel, x = (jnp.asarray(draw(size=s), jnp.bfloat16)
             for s in ((24, 40), (24, 9000)))
y, back = jax.vjp(onednn.multiply, kernel, x)
values = [out, *pull(out), y, *back(y)]
print(hashlib.sha256(b''.join(np.asarray(v).tobytes() for v in values))
      .hexdigest())
"""


@SERVES
def test_bits_do_not_depend_on_the_number_of_threads():
  def digest(cores):
    pin = f'import os; os.sched_setaffinity(0, {cores})\n'
    return subprocess.run(
      [sys.executable, '-c', pin + DIGEST],
      check=True,
      capture_output=True,
      text=True,
      timeout=300,
    ).stdout

  cores = sorted(os.sched_getaffinity(0))
  if len(cores) == 1:
    pytest.skip('this process has one core')
  assert digest({cores[0]}) == digest(set(cores[:2]))


def written_as_floats(layer, x, shape):
  """Lists what a layer and its gradient write of a map's size, in float32."""
  params = layer.init(jax.random.key(0), x, True)

  def run(params, x, g):
    out, pull = jax.vjp(lambda *given: layer.apply(*given, True), params, x)
    return out, pull(g)

  text = jax.jit(run).lower(params, x, x).compile().as_text()
  assert 'jaxnas_onednn' in text
  return [
    line
    for computation in re.split(r'\n(?=\S)', text)
    if not computation.startswith('%fused')
    for line in computation.splitlines()
    if re.match(rf'.* = \(?f32\[{shape}\]', line)
  ]


@SERVES
def test_blocks_write_no_map_as_floats():
  norm = functools.partial(Norm, affine=True, dtype=jnp.bfloat16)
  shortcut = functools.partial(Identity, 16, 1, norm, dtype=jnp.bfloat16)
  block = BasicBlock(16, shortcut, norm, dtype=jnp.bfloat16)
  assert not written_as_floats(block, normal(0, 7, 9, 5, 16), '7,9,5,16')
  norm = functools.partial(norm, layout='CHWN')
  block = InvertedResidual(16, 3, 5, 1, norm, layout='CHWN', dtype=jnp.bfloat16)
  x = normal(0, 16, 9, 5, 7)
  assert not written_as_floats(block, x, r'(16|48),9,5,7')
  assert not written_as_floats(block, x, r'(16|48),315')


def test_residuals_of_bfloat16_are_stored_as_they_were():
  tree = {'a': normal(0, 3), 'b': [jnp.ones(2), jnp.int32(3)]}
  stored = bits.stored(tree)
  assert [x.dtype for x in jax.tree.leaves(stored)] == ['uint16', 'f', 'int32']
  for ours, theirs in zip(
    *map(jax.tree.leaves, (bits.restored(stored), tree)), strict=True
  ):
    assert ours.dtype == theirs.dtype and (ours == theirs).all()


@pytest.fixture
def asked_again():
  onednn.instructions.cache_clear()
  yield
  onednn.instructions.cache_clear()


@pytest.mark.parametrize('number, by', [(0, 'float32'), (1, 'AVX512-BF16')])
def test_matrix_units_that_are_not_permitted_are_named(
  number, by, monkeypatch, asked_again
):
  monkeypatch.setattr(onednn, '_number', lambda: number)
  monkeypatch.setattr(library, 'cpu', lambda: 'flags : sse amx_bf16 amx_tile')
  with pytest.warns(UserWarning, match=f'permit it: .* by {by}'):
    assert onednn.instructions() == onednn.INSTRUCTIONS[number]
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    onednn.instructions()


@pytest.mark.parametrize(
  'number, flags', [(2, 'amx_bf16 amx_tile'), (1, 'avx512_bf16'), (0, 'sse')]
)
def test_all_else_is_not_warned_of(number, flags, monkeypatch, asked_again):
  monkeypatch.setattr(onednn, '_number', lambda: number)
  monkeypatch.setattr(library, 'cpu', lambda: f'flags : {flags}')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert onednn.instructions() == onednn.INSTRUCTIONS[number]


def test_without_instructions_or_the_library_others_serve(
  monkeypatch, asked_again
):
  x, kernel = normal(0, 2, 4, 4, 16), normal(1, 3, 3, 16, 16)

  def program():
    def run(x, kernel):  # traced anew
      return convolutions.dense(x, kernel)

    return jax.jit(run).lower(x, kernel).as_text()

  monkeypatch.setattr(onednn, '_number', lambda: 0)
  assert 'onednn' not in program()
  # The others stay: one built by this process is a second one when loaded
  # from the cache, which XLA refuses to register.
  monkeypatch.delitem(library._loaded, 'onednn', raising=False)
  monkeypatch.setattr(
    library, 'NEEDS', {'onednn': {'no-such-distribution': 'libdnnl.so.3'}}
  )
  assert not library.available('onednn') and 'onednn' not in program()


def test_a_processor_without_instructions_is_said_to_be_served_by_xla(
  monkeypatch,
):
  lacking = types.SimpleNamespace(jaxnas_onednn_instructions=lambda: 0)
  monkeypatch.setattr(library, '_loaded', {})
  monkeypatch.setattr(library, '_needed', lambda source: [])
  monkeypatch.setattr(library, '_library', lambda *given: lacking)
  assert native.formulation('onednn') == 'XLA'


@SERVES
def test_maps_on_which_it_errs_are_left_to_others():
  """All other small maps are right, and these are not (oneDNN 3.2)."""
  kernel = normal(1, 3, 3, 4, 8)
  for sides in ((1, 1), (1, 3), (3, 1), (2, 2), (3, 2)):
    x = normal(0, 2, *sides, 4)
    assert onednn.convolves(x, kernel, 1)
    assert onednn.convolves(x, kernel, 2) == (1 not in sides)
    for stride in (1, 2):
      run = functools.partial(convolutions.dense, stride=stride)
      out, pull = jax.vjp(run, x, kernel)
      wide = [np.asarray(each, float) for each in (x, kernel, out)]
      exact = pulled(functools.partial(convolved, stride=stride), *wide)
      for ours, theirs in zip(pull(out), exact, strict=True):
        error = abs(np.asarray(ours, float) - theirs)
        assert error.max() <= 0.02 * abs(theirs).max()


@SERVES
def test_float32_and_programs_that_travel_are_left_alone():
  x, kernel = normal(0, 2, 4, 4, 16), normal(1, 3, 3, 16, 16)
  assert onednn.takes(x, kernel)
  assert not onednn.takes(x.astype('f'), kernel.astype('f'))
  assert not onednn.takes(x, kernel.astype('f'))
  with native.without():
    assert not onednn.takes(x, kernel)
