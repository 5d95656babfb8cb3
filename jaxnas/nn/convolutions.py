"""Convolutions, formulated for the backend: the one place that chooses.

Layouts name the axes of a feature map: NHWC everywhere in public, and CHWN
(channels major, batch minor) inside trunks of depthwise blocks on CPU, where
it makes shifted multiply-accumulates and pointwise products contiguous.
Kernels have one shape whatever the layout, so that weights move between
backends.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn import target

Layout = Literal['NHWC', 'CHWN']
# Inputs times outputs of a channel's map up to which, from kernel 5 on, one
# dense matrix beats shifted multiply-accumulates: 4x4 maps of 1,536 channels
# take 1.7 and 3.8 ms forward and backward against 3.3 and 9.4. With kernel 3,
# 0.9 and 1.6 against 0.5 and 2.0, or from 8x8 to 4x4 shifts are no slower.
LARGEST_TOEPLITZ = 256
SMALLEST_TOEPLITZ_KERNEL = 5

Map = Float[Array, '_ _ _ _']


def trunk_layout(backend: str | None = None) -> Layout:
  """Of trunks of depthwise blocks on a backend; None: on this one."""
  return 'CHWN' if (backend or target.backend()) == 'cpu' else 'NHWC'


def relayout(x: Map, before: Layout, after: Layout) -> Map:
  if before == after:
    return x
  # NHWC -> CHWN and back are both this exchange of the first and last axis.
  return jnp.transpose(x, (3, 1, 2, 0))


def at_least_float32(dtype: Any) -> Any:
  """Of statistics and sums: wider than bfloat16, float64 where that is used."""
  return jnp.promote_types(dtype, jnp.float32)


def pointwise(
  x: Map, kernel_IxO: Float[Array, 'I O'], *, stride: int, layout: Layout
) -> Map:
  """1x1 convolution, as a dot: twice as fast as lax.conv on CPU.

  The map is flattened to a matrix first; the kernel's gradient over the
  separate axes would be 6 times slower on CPU.
  """
  x = x[:, ::stride, ::stride]
  if layout == 'NHWC':
    x_MxI = x.reshape(-1, x.shape[-1])
    return (x_MxI @ kernel_IxO).reshape(*x.shape[:-1], -1)
  x_IxM = x.reshape(x.shape[0], -1)
  # Transposed before, not within the dot, which would take a tenth longer.
  kernel_OxI = lax.optimization_barrier(kernel_IxO.T)
  return (kernel_OxI @ x_IxM).reshape(-1, *x.shape[1:])


def dense(x_NHWC: Map, kernel_KxKxIxO: Map, *, stride: int = 1) -> Map:
  """KxK convolution with padding K // 2 on both sides, in NHWC."""
  if target.backend() == 'cpu':
    return _dense_cpu(x_NHWC, kernel_KxKxIxO, stride)
  return _dense(x_NHWC, kernel_KxKxIxO, stride)


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
  """A row too many, which is cut off.

  XLA gives convolutions of more than 16 channels, whose result is no larger
  than what goes in, to a library that runs them on one core; others run on
  all: 32 channels of 32x32 take 7.5 ms instead of 13.6 on two.
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad + stride), (pad, pad)],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )[:, :-1]


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
      return _depthwise_toeplitz(x, kernel_KxKxC, stride)
    return _depthwise_shifted(x, kernel_KxKxC, stride)
  k, _, channels = kernel_KxKxC.shape
  return lax.conv_general_dilated(
    x,
    kernel_KxKxC[:, :, None],
    (stride, stride),
    [(k // 2, k // 2)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=channels,
  )


def _depthwise_toeplitz(x: Map, kernel: Array, stride: int) -> Map:
  """One dense matrix a channel, from all inputs to all outputs of its map."""
  channels, height, width, batch = x.shape
  k = kernel.shape[0]
  rows, columns = _taps(height, k, stride), _taps(width, k, stride)
  # The tap between each output and each input; k * k stands for none.
  taps = rows[:, None, :, None] * k + columns[None, :, None, :]
  none = (rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :]
  taps = np.where(none, k * k, taps).reshape(-1, height * width)
  kernel_CxT = jnp.pad(kernel.reshape(k * k, channels), ((0, 1), (0, 0))).T
  out = jnp.einsum(
    'coi,cin->con', kernel_CxT[:, taps], x.reshape(channels, -1, batch)
  )
  return out.reshape(channels, len(rows), len(columns), batch)


def _taps(side: int, k: int, stride: int) -> np.ndarray:
  """[output, input] -> index into a kernel's side, or -1 beyond it."""
  tap = np.arange(side)[None] - np.arange(0, side, stride)[:, None] + k // 2
  return np.where((tap >= 0) & (tap < k), tap, -1)


# XLA:CPU's grouped convolution is 30 to 100 times slower than this.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise_shifted(x: Map, kernel: Array, stride: int) -> Map:
  k = kernel.shape[0]
  return _shifted(_pad(x, k // 2), kernel, stride)


def _pad(x: Map, pad: int) -> Map:
  return jnp.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])


def _windows(x: Map, k: int, stride: int):
  """The K*K shifted views of a padded CHWN map."""
  channels, height, width, batch = x.shape
  for i in range(k):
    for j in range(k):
      yield lax.slice(
        x,
        (0, i, j, 0),
        (channels, height - k + i + 1, width - k + j + 1, batch),
        (1, stride, stride, 1),
      )


def _shifted(x: Map, kernel: Array, stride: int) -> Map:
  k = kernel.shape[0]
  taps = kernel.reshape(k * k, -1)[:, :, None, None, None]
  products = (
    tap * view for tap, view in zip(taps, _windows(x, k, stride), strict=True)
  )
  return functools.reduce(jnp.add, products)


def _depthwise_forward(x, kernel, stride):
  return _depthwise_shifted(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, saved, g):
  x, kernel = saved
  k, pad = kernel.shape[0], kernel.shape[0] // 2
  # Not fused with what makes it: that would be computed again for each tap.
  g = lax.optimization_barrier(g)
  # One pass over the K*K products: 14 ms against 190 for K*K reductions.
  # Sums are float32, as those of thousands of bfloat16 values must be.
  precise = at_least_float32(g.dtype)
  products = [
    (g * view).astype(precise) for view in _windows(_pad(x, pad), k, stride)
  ]
  sums = lax.reduce(
    products,
    [jnp.zeros((), precise)] * len(products),
    lambda a, b: [p + q for p, q in zip(a, b, strict=True)],
    (1, 2, 3),
  )
  dx = _pulled_back(g, kernel, stride, x)
  return dx, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _pulled_back(g: Map, kernel: Array, stride: int, x: Map) -> Map:
  """Gradient of x.

  Each residue of a row and column by the stride has its own taps; a gradient
  dilated by zeros instead takes 1.8 to 5 times as long at stride 2.
  """
  k, pad = kernel.shape[0], kernel.shape[0] // 2
  channels, height, width, batch = x.shape
  rows, columns = (-(-(side + 2 * pad) // stride) for side in (height, width))
  before = -(-k // stride) - 1
  g = jnp.pad(
    g,
    [
      (0, 0),
      (before, rows - g.shape[1]),
      (before, columns - g.shape[2]),
      (0, 0),
    ],
  )
  g = lax.optimization_barrier(g)

  def residue(i: int, j: int) -> Map:
    taps = kernel[i::stride, j::stride]
    products = (
      taps[m, n][:, None, None, None]
      * lax.slice(
        g,
        (0, before - m, before - n, 0),
        (channels, before - m + rows, before - n + columns, batch),
      )
      for m in range(taps.shape[0])
      for n in range(taps.shape[1])
    )
    return functools.reduce(jnp.add, products)

  dx = jnp.stack(
    [
      jnp.stack([residue(i, j) for j in range(stride)], 3)
      for i in range(stride)
    ],
    2,
  ).reshape(channels, rows * stride, columns * stride, batch)
  return dx[:, pad : pad + height, pad : pad + width]


_depthwise_shifted.defvjp(_depthwise_forward, _depthwise_backward)
