"""Convolutions: the one place that chooses a formulation for the backend.

Kernels have one shape whatever the layout, so that weights move between
backends.
"""

import math

from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn import target
from jaxnas.nn.cpu import by_products, shifted, toeplitz
from jaxnas.nn.cpu.native import dense as native
from jaxnas.nn.cpu.native import onednn
from jaxnas.nn.maps import Layout, Map

# Up to so many inputs times outputs of a channel's map, and from kernel 5 on,
# one dense matrix beats shifted multiply-accumulates: 4x4 maps of 1,536
# channels take 1.7 and 3.8 ms forward and backward against 3.3 and 9.4. With
# kernel 3 (0.9 and 1.6 against 0.5 and 2.0), or from 8x8 to 4x4, it does not.
LARGEST_TOEPLITZ = 256
SMALLEST_TOEPLITZ_KERNEL = 5


def pointwise(
  x: Map, kernel_IxO: Float[Array, 'I O'], *, stride: int, layout: Layout
) -> Map:
  """1x1 convolution, as a dot: twice as fast as lax.conv on CPU.

  The map is flattened to a matrix first; the kernel's gradient over the
  separate axes would be 6 times slower on CPU.
  """
  if layout == 'NHWC':
    kernel_1x1xIxO = kernel_IxO[None, None]
    if onednn.convolves(x, kernel_1x1xIxO, stride):
      return onednn.convolve(x, kernel_1x1xIxO, stride)
    x = x[:, ::stride, ::stride]
    if native.takes(x, kernel_1x1xIxO, 1):
      return native.convolve(x, kernel_1x1xIxO)
    x_MxI = x.reshape(-1, x.shape[-1])
    return (x_MxI @ kernel_IxO).reshape(*x.shape[:-1], -1)
  x = x[:, ::stride, ::stride]
  x_IxM = x.reshape(x.shape[0], -1)
  if onednn.takes(x, kernel_IxO):
    return onednn.multiply(kernel_IxO, x_IxM).reshape(-1, *x.shape[1:])
  # Transposed before, not within the dot, which would take a tenth longer.
  kernel_OxI = lax.optimization_barrier(kernel_IxO.T)
  return (kernel_OxI @ x_IxM).reshape(-1, *x.shape[1:])


def dense(x_NHWC: Map, kernel_KxKxIxO: Map, *, stride: int = 1) -> Map:
  """KxK convolution with padding K // 2 on both sides, in NHWC."""
  if target.backend() != 'cpu':
    return _dense(x_NHWC, kernel_KxKxIxO, stride)
  if onednn.convolves(x_NHWC, kernel_KxKxIxO, stride):
    return onednn.convolve(x_NHWC, kernel_KxKxIxO, stride)
  if native.takes(x_NHWC, kernel_KxKxIxO, stride):
    return native.convolve(x_NHWC, kernel_KxKxIxO)
  return by_products.dense(x_NHWC, kernel_KxKxIxO, stride)


def _dense(x: Map, kernel: Map, stride: int) -> Map:
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


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
