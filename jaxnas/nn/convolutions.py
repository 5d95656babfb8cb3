"""Convolutions, formulated for the backend: the one place that chooses.

Kernels have one shape whatever the layout, so that weights move between
backends.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn import shifted, target, toeplitz
from jaxnas.nn.maps import Layout, Map
from jaxnas.nn.native import dense as native

# Inputs times outputs of a channel's map up to which, from kernel 5 on, one
# dense matrix beats shifted multiply-accumulates: 4x4 maps of 1,536 channels
# take 1.7 and 3.8 ms forward and backward against 3.3 and 9.4. With kernel 3,
# 0.9 and 1.6 against 0.5 and 2.0, or from 8x8 to 4x4 shifts are no slower.
LARGEST_TOEPLITZ = 256
SMALLEST_TOEPLITZ_KERNEL = 5


def pointwise(
  x: Map, kernel_IxO: Float[Array, 'I O'], *, stride: int, layout: Layout
) -> Map:
  """1x1 convolution, as a dot: twice as fast as lax.conv on CPU.

  The map is flattened to a matrix first; the kernel's gradient over the
  separate axes would be 6 times slower on CPU.
  """
  x = x[:, ::stride, ::stride]
  if layout == 'NHWC':
    kernel_1x1xIxO = kernel_IxO[None, None]
    if native.takes(x, kernel_1x1xIxO, 1):
      return native.convolve(x, kernel_1x1xIxO)
    x_MxI = x.reshape(-1, x.shape[-1])
    return (x_MxI @ kernel_IxO).reshape(*x.shape[:-1], -1)
  x_IxM = x.reshape(x.shape[0], -1)
  # Transposed before, not within the dot, which would take a tenth longer.
  kernel_OxI = lax.optimization_barrier(kernel_IxO.T)
  return (kernel_OxI @ x_IxM).reshape(-1, *x.shape[1:])


def dense(x_NHWC: Map, kernel_KxKxIxO: Map, *, stride: int = 1) -> Map:
  """KxK convolution with padding K // 2 on both sides, in NHWC."""
  if target.backend() != 'cpu':
    return _dense(x_NHWC, kernel_KxKxIxO, stride)
  if native.takes(x_NHWC, kernel_KxKxIxO, stride):
    return native.convolve(x_NHWC, kernel_KxKxIxO)
  return _dense_cpu(x_NHWC, kernel_KxKxIxO, stride)


def _dense(x: Map, kernel: Map, stride: int) -> Map:
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


# XLA:CPU brings gradients of convolutions into fast form only at top level:
# in a switch, scan or while body they run 55 times slower. Written as plain
# forward convolutions they are as fast anywhere.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense_cpu(x: Map, kernel: Map, stride: int) -> Map:
  return _on_all_cores(x, kernel, stride, kernel.shape[0] // 2)


def _on_all_cores(x: Map, kernel: Map, stride: int, pad: int) -> Map:
  """With a row too many, which is cut off, where that is faster.

  XLA gives convolutions of more than 16 channels, whose result is no larger
  than what goes in, to a library that runs them on one core; others run on
  all: 32 channels of 32x32 take 5.6 ms instead of 7.9 on two, 16 take 2.1, and
  2.4 with the row.
  """
  row = stride if max(kernel.shape[2:]) > 16 else 0
  out = lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad + row), (pad, pad)],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return out[:, :-1] if row else out


def _dense_forward(x, kernel, stride):
  return _dense_cpu(x, kernel, stride), (x, kernel)


def _dense_backward(stride, saved, g):
  x, kernel = saved
  k, pad = kernel.shape[0], kernel.shape[0] // 2
  # Rows and columns that no window reaches, where the stride is above 1.
  rest = [(side + 2 * pad - k) % stride for side in x.shape[1:3]]
  spread = lax.pad(
    g,
    jnp.zeros((), g.dtype),
    [(0, 0, 0), *((0, more, stride - 1) for more in rest), (0, 0, 0)],
  )
  dx = _on_all_cores(
    spread, jnp.swapaxes(kernel[::-1, ::-1], 2, 3), 1, k - 1 - pad
  )
  return dx, _summed(x, g, k, stride)


def _summed(x: Map, g: Map, k: int, stride: int) -> Map:
  """Gradient of the kernel as a product for each of its rows.

  Products run on all cores, where a convolution runs on one: 64 channels of
  16x16 maps take 12 ms instead of 18 on two. Without AVX-512 that convolution
  leaves the cache, too: 64 channels of 32x32 maps take 90 ms instead of 1,980.
  """
  batch, height, width, outputs = g.shape
  pad, inputs = k // 2, x.shape[-1]
  x = jnp.pad(
    jnp.transpose(x, (3, 0, 1, 2)), [(0, 0), (0, 0), (pad, pad), (pad, pad)]
  )
  x = lax.optimization_barrier(x)

  def row(i: int) -> Array:
    views = [
      lax.slice(
        x,
        (0, 0, i, j),
        (
          inputs,
          batch,
          i + stride * (height - 1) + 1,
          j + stride * (width - 1) + 1,
        ),
        (1, 1, stride, stride),
      )
      for j in range(k)
    ]
    x_KIxM = lax.optimization_barrier(jnp.stack(views).reshape(k * inputs, -1))
    return (x_KIxM @ g.reshape(-1, outputs)).reshape(k, inputs, outputs)

  return jnp.stack([row(i) for i in range(k)])


_dense_cpu.defvjp(_dense_forward, _dense_backward)


def depthwise(
  x: Map, kernel_KxKxC: Float[Array, 'K K C'], *, stride: int, layout: Layout
) -> Map:
  """KxK convolution of each channel alone, padding K // 2 on both sides."""
  if layout == 'CHWN':
    sides = x.shape[1:3]
    outs = [-(-side // stride) for side in sides]
    if (
      len(kernel_KxKxC) >= SMALLEST_TOEPLITZ_KERNEL
      and math.prod(sides) * math.prod(outs) <= LARGEST_TOEPLITZ
    ):
      return toeplitz.depthwise(x, kernel_KxKxC, stride)
    return shifted.depthwise(x, kernel_KxKxC, stride)
  k, _, channels = kernel_KxKxC.shape
  return lax.conv_general_dilated(
    x,
    kernel_KxKxC[:, :, None],
    (stride, stride),
    [(k // 2, k // 2)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=channels,
  )
