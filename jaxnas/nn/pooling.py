"""Averages and maxima over parts of a feature map."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn import target
from jaxnas.nn.cpu.native import pooling as native
from jaxnas.nn.maps import Layout, Map, at_least_float32


def mean_of_map(x: Map, layout: Layout = 'NHWC') -> Float[Array, 'B C']:
  """Average over height and width, at least in float32."""
  out = x.mean((1, 2), dtype=at_least_float32(x.dtype))
  return out if layout == 'NHWC' else out.T


def max_pool(x_NHWC: Map) -> Map:
  """2x2; its gradient is shared where values are equal.

  It leaves out the last row or column of an odd side.

  As a maximum of slices the gradient takes 0.8 ms of CPU, as a window
  reduction 10. In bfloat16 XLA's CPU would take 190 ms for what takes 9 when
  values are widened on the way.
  """
  if native.takes(x_NHWC):
    return native.shrink(x_NHWC, largest=True)
  height, width = (side // 2 * 2 for side in x_NHWC.shape[1:3])
  wide = target.backend() == 'cpu'
  x = x_NHWC.astype(at_least_float32(x_NHWC.dtype)) if wide else x_NHWC
  views = [x[:, i:height:2, j:width:2] for i in range(2) for j in range(2)]
  return functools.reduce(jnp.maximum, views).astype(x_NHWC.dtype)


def halved(x_NHWC: Map) -> Map:
  """2x2 averages of a map with even sides."""
  if native.takes(x_NHWC):
    return native.shrink(x_NHWC, largest=False)
  x = (x_NHWC[:, ::2] + x_NHWC[:, 1::2]) / 2
  return (x[:, :, ::2] + x[:, :, 1::2]) / 2


def average_pool(x_NHWC: Map) -> Map:
  """3x3 of stride 1; the average leaves the padding out.

  As sums of shifted maps, rows then columns: their gradient is the same sum,
  where that of a window reduction is slow on CPU.
  """
  if native.takes(x_NHWC):
    return native.average(x_NHWC)
  sums = x_NHWC.astype(at_least_float32(x_NHWC.dtype))
  for axis in (1, 2):
    pad = [(1, 1) if i == axis else (0, 0) for i in range(4)]
    padded, side = jnp.pad(sums, pad), sums.shape[axis]
    sums = functools.reduce(
      jnp.add,
      (lax.slice_in_dim(padded, i, i + side, axis=axis) for i in range(3)),
    )
  # Number of rows and columns of a window that lie on the map.
  rows, columns = (
    np.minimum(np.arange(side), 1) + 1 + np.minimum(np.arange(side)[::-1], 1)
    for side in x_NHWC.shape[1:3]
  )
  counts_HxW = np.outer(rows, columns)
  averages = sums * jnp.asarray(1 / counts_HxW[..., None], sums.dtype)
  return averages.astype(x_NHWC.dtype)
