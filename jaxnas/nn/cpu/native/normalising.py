"""Normalisation by a batch's statistics and activation of maps, in C++.

Maps are bfloat16 in memory, and what is computed is float32: XLA would write
each map in float32, too, and read it three times. Where maps are float32, XLA
takes as long.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn.cpu import native
from jaxnas.nn.maps import Layout, Map

# Number in C++ of what follows: nothing, or ReLU.
ACTIVATIONS: dict[str | None, int] = {None: -1, 'relu': 0}

# Functions in C++: statistics, normalisation and its gradient.
_NAMES: dict[Layout, tuple[str, str, str]] = {
  'NHWC': ('jaxnas_moments', 'jaxnas_normalise', 'jaxnas_normalise_gradient'),
  'CHWN': (
    'jaxnas_channel_moments',
    'jaxnas_normalise_channels',
    'jaxnas_normalise_channels_gradient',
  ),
}

# A gain and a bias a channel, or its mean and biased variance.
Terms = Float[Array, '2 C']


def takes(x: Map, activation: str | None) -> bool:
  """Returns True where `moments` and `normalise` can do this."""
  return (
    activation in ACTIVATIONS
    and x.dtype == jnp.bfloat16
    and native.serves('normalising', x)
  )


def moments(x: Map, layout: Layout) -> Terms:
  """Returns mean and biased variance, through which no gradient flows."""
  x = lax.stop_gradient(x)
  out = jax.ShapeDtypeStruct((2, x.shape[layout.index('C')]), np.float32)
  return native.call(_NAMES[layout][0], [out], x)[0]


def normalise(
  x: Map,
  layout: Layout,
  terms_2xC: Terms,
  statistics_2xC: Terms,
  activation: str | None,
  epsilon: float,
) -> Map:
  """Normalises and activates a map, where `takes` says so.

  Args:
    x: the map.
    layout: of the map.
    terms_2xC: gain and bias.
    statistics_2xC: from `moments` of the map. The gradient of the map counts
      in that they depend on it.
    activation: its name; None: none.
    epsilon: of normalisation.
  """
  _, name, of_gradient = _NAMES[layout]
  options = {
    'activation': np.int64(ACTIVATIONS[activation]),
    'epsilon': np.float32(epsilon),
  }

  @jax.custom_vjp
  def run(x, terms, statistics):
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    given = x, terms, statistics
    return native.call(name, [out], *given, **options)[0]

  def forward(*given):
    return run(*given), given

  def backward(given, g):
    x, terms, statistics = given
    results = [
      jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (x, terms)
    ]
    pulled = native.call(of_gradient, results, *given, g, **options)
    return *pulled, jnp.zeros_like(statistics)

  run.defvjp(forward, backward)
  return run(x, terms_2xC, statistics_2xC)
