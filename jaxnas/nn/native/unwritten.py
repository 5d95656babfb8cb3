"""Flat arrays of which nothing is written but the beginning."""

import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn import native


def takes(x_N: Float[Array, ' N']) -> bool:
  """Whether `extend` does this one."""
  return native.serves('unwritten', x_N)


def extend(
  x_N: Float[Array, ' N'], size: int, number: int
) -> Float[Array, ' M']:
  """x and then whatever the memory held, where `takes` says so.

  XLA makes calls with the same x, size and number one. On 2 cores a training
  step of Pooling takes 107 ms instead of 124, in which zeros are written.
  """
  (out,) = native.call('jaxnas_extend', [(size,)], x_N, number=np.int64(number))
  return out
