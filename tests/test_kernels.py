"""Kernels of ours for GPUs, interpreted here, against what XLA makes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core.meta import unbox

from jaxnas.nn import choice, gpu, normalising, target
from jaxnas.nn.blocks import InvertedResidual
from jaxnas.nn.gpu import depthwise, tiles
from jaxnas.nn.gpu.tiles import After, Layer, Line
from jaxnas.nn.layers import Groups, Norm


def close(found, wanted):
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())


def normal(rng, *shape):
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def by_xla(x, line, kernel, layer):
  if layer.normed:
    x = normalising.activate(x * line.scale + line.shift, layer.activation)
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, :, None],
    (layer.stride,) * 2,
    [(layer.pad,) * 2] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


# Sides and channels are no powers of 2, so that tiles hang over.
LAYERS = [
  Layer((2, 5, 6, 3), 3, 1, 'relu', True),
  Layer((3, 7, 5, 3), 3, 2, 'relu6', False),
  Layer((4, 6, 7, 5), 5, 2, 'hard_swish', True),
  Layer((2, 7, 6, 3), 5, 1, 'relu6', True),
]


@pytest.mark.slow
@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_a_convolution_and_its_gradients_are_those_of_xla(layer, monkeypatch):
  # A program takes several images, where there are as many.
  monkeypatch.setattr(tiles, 'PROGRAMS', 2)
  rng = np.random.default_rng(0)
  channels, k = layer.shape[3], layer.kernel
  x, kernel = normal(rng, *layer.shape), normal(rng, k, k, channels)
  line = Line(*normal(rng, 2, channels))
  y, total, squares = jax.jit(
    functools.partial(depthwise.convolve, layer=layer)
  )(x, line, kernel)
  wanted, vjp = jax.vjp(functools.partial(by_xla, layer=layer), x, line, kernel)
  close(
    (y, total, squares),
    (wanted, wanted.sum((0, 1, 2)), (wanted**2).sum((0, 1, 2))),
  )

  after, g = After(*normal(rng, 4, channels)), normal(rng, *y.shape)
  pulled = jax.jit(functools.partial(depthwise.pull, layer=layer))(
    x, line, kernel, y, after, g
  )
  slope = normalising.SLOPES[layer.activation](y * after.scale + after.shift)
  of_x, of_line, of_kernel = vjp(
    g * slope * after.scale + y * after.steep + after.level
  )
  close(pulled.kernel, of_kernel)
  if layer.normed:
    close(pulled.map * line.scale, of_x)
    close((pulled.product, pulled.total), tuple(of_line))
  else:
    close(pulled.map, of_x)


def block(expansion=2, stride=1, activation='relu', **options):
  return InvertedResidual(
    4, expansion, 3, stride, functools.partial(Norm, **options),
    activation=activation,
  )  # fmt: skip


class Chosen(choice.nn.Module):
  """A switch whose branches are blocks."""

  @choice.nn.compact
  def __call__(self, x, op):
    blocks = tuple(
      functools.partial(block, expansion, affine=True, momentum=0.1)
      for expansion in (2, 1)
    )
    return choice.Choice(blocks, name='choice')(x, op, True)


def passed(net, x, *args):
  """Value, statistics and gradients, formulated for a GPU."""
  with target.formulated_for('gpu'):
    variables = dict(unbox(net.init(jax.random.key(0), x, *args)))
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables.pop('params'))
    weights = normal(np.random.default_rng(1), *x.shape[:-1], 4)

    def loss(params, x):
      y, changed = net.apply(
        {'params': params, **variables}, x, *args, mutable=['batch_stats']
      )
      return jnp.sum(y * weights[:, : y.shape[1], : y.shape[2]]), (y, changed)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
      params, x
    )


NETS = [
  (block(affine=True, momentum=0.1), True),
  (block(1, 2, 'hard_swish'), True),
  (Chosen(), jnp.int32(0)),
  (Chosen(), jnp.int32(1)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('net', 'arg'), NETS, ids=['affine', 'strided', 'first', 'second']
)
def test_a_block_is_the_same_with_them(net, arg, monkeypatch):
  x = normal(np.random.default_rng(0), 3, 6, 6, 4)
  without = passed(net, x, arg)
  monkeypatch.setenv(gpu.SWITCH, '1')
  close(passed(net, x, arg), without)


def gradients(dtype, x):
  """Gradients of a block that computes in this type, an array of each leaf."""
  net = InvertedResidual(
    4, 6, 3, 1, functools.partial(Norm, affine=True, dtype=dtype), dtype=dtype
  )
  _, found = passed(net, x.astype(dtype), True)
  return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(found)]


@pytest.mark.slow
def test_in_bfloat16_they_round_hardly_more_than_xla_does(monkeypatch):
  # Means that are not 0 make large what is subtracted.
  x = normal(np.random.default_rng(0), 4, 8, 8, 4) + jnp.arange(4.0)
  exact, by_xla = (gradients(each, x) for each in (jnp.float32, jnp.bfloat16))
  monkeypatch.setenv(gpu.SWITCH, '1')
  by_ours = gradients(jnp.bfloat16, x)

  def error(found):
    """The mean over leaves, relative to each."""
    return np.mean(
      [
        np.linalg.norm(leaf - wanted) / np.linalg.norm(wanted)
        for leaf, wanted in zip(found, exact, strict=True)
      ]
    )

  assert 0 < error(by_ours) <= 1.2 * error(by_xla), error(by_ours)


@pytest.mark.parametrize(
  ('backend', 'value', 'options', 'used'),
  [
    ('gpu', '1', {}, 1),
    ('gpu', None, {}, 0),
    ('tpu', '1', {}, 0),
    ('cpu', '1', {}, 0),
    ('gpu', '1', {'groups': Groups(2)}, 0),
  ],
)
def test_a_gpu_alone_runs_them_and_only_where_its_machine_asks(
  backend, value, options, used, monkeypatch
):
  monkeypatch.delenv(gpu.SWITCH, raising=False)
  if value is not None:
    monkeypatch.setenv(gpu.SWITCH, value)
  net, x = block(**options), jnp.ones((4, 4, 4, 4))
  with target.formulated_for(backend):
    variables = net.init(jax.random.key(0), x, True)
    text = str(jax.make_jaxpr(lambda x: net.apply(variables, x, True))(x))
  # One to be compiled, and one that is interpreted on CPUs.
  assert text.count('name=depthwise') == 2 * used
