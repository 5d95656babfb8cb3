"""Depthwise convolution of small CHWN maps, as products with dense matrices."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnas.nn.maps import Map


def depthwise(x: Map, kernel: Array, stride: int) -> Map:
  """Multiplies each channel's map by one dense matrix, from input to output."""
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
  """Returns [output, input] -> index into a kernel's side, or -1 beyond it."""
  tap = np.arange(side)[None] - np.arange(0, side, stride)[:, None] + k // 2
  return np.where((tap >= 0) & (tap < k), tap, -1)
