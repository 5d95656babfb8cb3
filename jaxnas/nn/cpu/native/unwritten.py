"""Flat arrays that are written at their beginning only, in C++."""

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn.cpu import native


def takes(x_N: Float[Array, ' N']) -> bool:
  """Returns True where `extend` can do this array."""
  return native.serves('unwritten', x_N)


def extend(
  x_N: Float[Array, ' N'], size: int, number: int
) -> Float[Array, ' M']:
  """Returns x and behind it whatever the memory held, where `takes` says so.

  XLA merges calls with the same x, size and number.
  """
  out = jax.ShapeDtypeStruct((size,), x_N.dtype)
  return native.call('jaxnas_extend', [out], x_N, number=np.int64(number))[0]
