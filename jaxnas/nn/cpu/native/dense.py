"""KxK convolution of NHWC maps, and its gradients, in C++."""

import jax
import jax.numpy as jnp

from jaxnas.nn.cpu import native
from jaxnas.nn.maps import Map

# Output channels have to fill vectors, which have at most 16 floats.
CHANNELS = 16

# A pointwise convolution of more inputs is faster as XLA's product. On 64 maps
# of 8x8, 64 to 64 channels take 0.17 ms instead of 0.30, the gradients 0.19 and
# 0.23 instead of 0.34 and 0.82; on 4x4, 256 to 1,280 take 3.0 instead of 2.1.
MOST_INPUTS = 64


def takes(x: Map, kernel: Map, stride: int) -> bool:
  """Returns True where `convolve` can do this convolution."""
  k, _, inputs, outputs = kernel.shape
  return (
    stride == 1
    and k % 2 == 1
    and outputs % CHANNELS == 0
    and (k > 1 or inputs <= MOST_INPUTS)
    and native.serves('dense', x, kernel)
  )


def convolve(x_NHWC: Map, kernel_KxKxIxO: Map) -> Map:
  """KxK convolution of stride 1 with padding K // 2, where `takes` says so.

  Maps are what they are in memory; products and sums are float32.
  """
  return _convolve(x_NHWC, kernel_KxKxIxO.astype(jnp.float32))


@jax.custom_vjp
def _convolve(x: Map, kernel: Map) -> Map:
  out = jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), x.dtype)
  return native.call('jaxnas_convolve', [out], x, kernel)[0]


def _forward(x, kernel):
  return _convolve(x, kernel), (x, kernel)


def _backward(saved, g):
  x, kernel = saved
  inputs = x.shape[3]
  # The gradient of images, which is rarely asked for, has three channels: they
  # are padded to fill a vector.
  transposed = jnp.pad(
    jnp.swapaxes(kernel[::-1, ::-1], 2, 3),
    [(0, 0), (0, 0), (0, 0), (0, -inputs % CHANNELS)],
  )
  dx = _convolve(g, transposed)[..., :inputs]
  of_kernel = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
  return dx, *native.call('jaxnas_kernel_gradient', [of_kernel], x, g)


_convolve.defvjp(_forward, _backward)
