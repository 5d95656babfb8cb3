"""KxK convolution of NHWC maps."""

import jax
import jax.numpy as jnp

from jaxnas.nn import native
from jaxnas.nn.maps import Map

# Outputs have to fill vectors, of 16 floats at most.
CHANNELS = 16

# Of a pointwise convolution, up to which it is faster than XLA's product: of
# 64x8x8 maps 64 to 64 takes 0.17 ms instead of 0.30, its gradients 0.19 and
# 0.23 instead of 0.34 and 0.82; of 64x4x4 maps 256 to 1,280 3.0 instead of 2.1.
MOST_INPUTS = 64


def takes(x: Map, kernel: Map, stride: int) -> bool:
  """Whether `convolve` does this one."""
  k, _, inputs, outputs = kernel.shape
  return (
    stride == 1
    and k % 2 == 1
    and outputs % CHANNELS == 0
    and (k > 1 or inputs <= MOST_INPUTS)
    and native.serves('dense', x, kernel)
  )


@jax.custom_vjp
def convolve(x_NHWC: Map, kernel_KxKxIxO: Map) -> Map:
  """KxK convolution of stride 1 with padding K // 2, where `takes` says so.

  On 2 cores with AVX-512 at as many multiplications a second as PyTorch's: a
  training step of Pooling takes 82 ms instead of 178 by XLA alone, one of
  NAS-Bench-201 237 instead of 406.
  """
  shape = *x_NHWC.shape[:3], kernel_KxKxIxO.shape[3]
  (out,) = native.call('jaxnas_convolve', [shape], x_NHWC, kernel_KxKxIxO)
  return out


def _forward(x, kernel):
  return convolve(x, kernel), (x, kernel)


def _backward(saved, g):
  x, kernel = saved
  inputs = x.shape[3]
  # Of images, which hardly anybody asks for, outputs fill no vector.
  transposed = jnp.pad(
    jnp.swapaxes(kernel[::-1, ::-1], 2, 3),
    [(0, 0), (0, 0), (0, 0), (0, -inputs % CHANNELS)],
  )
  dx = convolve(g, transposed)[..., :inputs]
  return dx, *native.call('jaxnas_kernel_gradient', [kernel.shape], x, g)


convolve.defvjp(_forward, _backward)
