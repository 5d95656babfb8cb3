"""A pointwise convolution that is normalised at once, on GPUs.

Its result has a multiple of its input's channels. So the statistics of the
result are made from those of the input, and the gradient behind the
normalisation, a sum of maps, is nowhere written: each map is multiplied by a
matrix of its own.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn.gpu.tiles import Line
from jaxnas.nn.maps import Map


class Moments(NamedTuple):
  """Statistics of a map over all that are not channels, float32."""

  mean: Float[Array, ' I']
  covariance: Float[Array, 'I I']


def moments(x: Map) -> Moments:
  """Returns mean and biased covariance of a map's channels."""
  x_MxI = _matrix(x)
  mean_I = x_MxI.mean(0, dtype=jnp.float32)
  covariance = _product(x_MxI, x_MxI) / len(x_MxI) - jnp.outer(mean_I, mean_I)
  return Moments(mean_I, covariance)


def expand(x: Map, kernel_IxC: Float[Array, 'I C']) -> Map:
  """Returns the result of the convolution; no gradient flows."""
  return (_matrix(x) @ kernel_IxC.astype(x.dtype)).reshape(*x.shape[:-1], -1)


def statistics(
  of_x: Moments, kernel_IxC: Float[Array, 'I C']
) -> Float[Array, '2 C']:
  """Returns mean and biased variance of the result's channels."""
  mean_C = (of_x.mean[:, None] * kernel_IxC).sum(0)
  var_C = (kernel_IxC * _small(of_x.covariance, kernel_IxC)).sum(0)
  return jnp.stack([mean_C, jnp.maximum(var_C, 0)])


def pull(
  x: Map,
  of_x: Moments,
  kernel_IxC: Float[Array, 'I C'],
  g: Map,
  scale_C: Float[Array, ' C'],
  line: Line,
) -> tuple[Map, Float[Array, 'I C']]:
  """Returns gradients of x and the kernel.

  The gradient of the result y is `g * scale + y * line.scale + line.shift`.

  Args:
    x: the map.
    of_x: its statistics.
    kernel_IxC: of the convolution, float32.
    g: a map as large as the result.
    scale_C: of g.
    line: of the result.
  """
  x_MxI, g_MxC = map(_matrix, (x, g))
  of_y_IxC = kernel_IxC * line.scale
  of_x_MxI = (
    g_MxC @ (kernel_IxC * scale_C).T.astype(x.dtype)
    + x_MxI @ _small(of_y_IxC, kernel_IxC.T).astype(x.dtype)
    + (kernel_IxC * line.shift).sum(1).astype(x.dtype)
  )
  # The sum of x times y, and of x, over all pixels.
  level_C = (of_x.mean[:, None] * of_y_IxC).sum(0) + line.shift
  of_kernel_IxC = _product(x_MxI, g_MxC) * scale_C + len(x_MxI) * (
    _small(of_x.covariance, of_y_IxC) + of_x.mean[:, None] * level_C
  )
  return of_x_MxI.reshape(x.shape), of_kernel_IxC


def _matrix(x: Map) -> Array:
  return x.reshape(-1, x.shape[-1])


def _product(a_MxI: Array, b_MxC: Array) -> Float[Array, 'I C']:
  """Returns the sum over pixels, in float32."""
  return lax.dot(
    a_MxI.T, b_MxC, preferred_element_type=jnp.float32,
    precision=lax.Precision.HIGHEST,
  )  # fmt: skip


def _small(a: Array, b: Array) -> Array:
  """Multiplies matrices of channels in float32."""
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
