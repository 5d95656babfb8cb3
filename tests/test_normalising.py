"""Normalisation in few passes against autodiff, value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core.meta import unbox

from jaxnas.nn import normalising, target
from jaxnas.nn.layers import Groups, Norm
from jaxnas.nn.normalising import ACTIVATIONS


def passes(backend, layer, activation, x, weights):
  """Value, statistics and gradients as a backend computes them.

  The activation 'averaged' is ReLU and the average over height and width.
  """
  args = (True,) if activation == 'averaged' else (True, activation)
  method = layer.averaged if activation == 'averaged' else None

  def loss(params, x, statistics):
    y, changed = layer.apply(
      {'params': params, **statistics},
      x,
      *args,
      mutable=['batch_stats'],
      method=method,
    )
    of_y = weights.ravel()[: y.size].reshape(y.shape)
    return jnp.sum(y.astype(jnp.float32) * of_y), (y, changed)

  with target.formulated_for(backend):
    variables = dict(unbox(layer.init(jax.random.key(0), x, True)))
    params = variables.pop('params', {})
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
      params, x, variables
    )


@pytest.mark.parametrize('activation', [None, *ACTIVATIONS, 'averaged'])
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'affine': True, 'momentum': 0.1},
    {'groups': Groups(2), 'momentum': 1.0},
    {'layout': 'CHWN', 'affine': True, 'groups': Groups(2)},
  ],
  ids=['plain', 'affine', 'groups', 'turned'],
)
def test_few_passes_give_what_autodiff_gives(activation, options):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(1, 2, (4, 3, 5, 8)), jnp.float32)
  weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
  layer = Norm(**options)
  found, wanted = (
    passes(backend, layer, activation, x, weights) for backend in ('gpu', 'cpu')
  )
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())


def test_means_of_values_and_of_squares_are_one_reduction():
  x = jnp.ones((4, 3))
  text = str(jax.make_jaxpr(lambda x: normalising.moments(x, (0,)))(x))
  assert text.count('reduce') - text.count('reduce_precision') == 1
  mean, square = normalising.moments(x * 2, (0,))
  assert mean.shape == square.shape == (1, 3)
  assert mean.tolist() == [[2.0] * 3] and square.tolist() == [[4.0] * 3]


def test_the_backward_pass_keeps_the_map_and_nothing_as_large():
  x = jnp.ones((64, 3))
  scale = jnp.ones((1, 3))
  saved = jax.eval_shape(
    lambda x: jax.vjp(
      functools.partial(normalising.scaled, activation='relu'), x, scale, scale
    )[1],
    x,
  )
  large = [leaf for leaf in jax.tree.leaves(saved) if leaf.size == x.size]
  assert len(large) == 1 and large[0].dtype == x.dtype
