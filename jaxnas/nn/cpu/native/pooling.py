"""Maxima and averages over parts of NHWC maps in bfloat16, in C++.

XLA would write the map in float32 and read it several times, and as often for
the gradient.
"""

import functools

import jax
import jax.numpy as jnp

from jaxnas.nn.cpu import native
from jaxnas.nn.maps import Map


def takes(x: Map) -> bool:
  """Returns True where these functions can serve a map."""
  return x.dtype == jnp.bfloat16 and native.serves('pooling', x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def shrink(x_NHWC: Map, largest: bool) -> Map:
  """Returns the largest of 2x2 values, or their average.

  It leaves out the last row or column of an odd side. The gradient of the
  largest is shared where values are equal.
  """
  batch, height, width, channels = x_NHWC.shape
  out = jax.ShapeDtypeStruct(
    (batch, height // 2, width // 2, channels), x_NHWC.dtype
  )
  return native.call('jaxnas_shrink', [out], x_NHWC, largest=largest)[0]


def _shrink_backward(largest, x, g):
  dx = jax.ShapeDtypeStruct(x.shape, x.dtype)
  name = 'jaxnas_shrink_gradient'
  return tuple(native.call(name, [dx], x, g, largest=largest))


shrink.defvjp(lambda x, largest: (shrink(x, largest), x), _shrink_backward)


@jax.custom_vjp
def average(x_NHWC: Map) -> Map:
  """Returns 3x3 averages of stride 1, which leave the padding out."""
  return _average(x_NHWC, gradient=False)


def _average(x: Map, gradient: bool) -> Map:
  out = jax.ShapeDtypeStruct(x.shape, x.dtype)
  return native.call('jaxnas_average', [out], x, gradient=gradient)[0]


average.defvjp(
  lambda x: (average(x), None), lambda _, g: (_average(g, gradient=True),)
)
