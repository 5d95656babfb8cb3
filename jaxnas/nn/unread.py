"""Arrays that have a shape, and values that nothing reads.

All branches of a switch have results of the same shapes, and so each has some
that only others need. In C++ nothing is written to them; XLA writes zeros.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn.native import unwritten


def extend(x: Array, size: int, number: int = 0) -> Array:
  """x as a flat array, and behind it values that nothing reads.

  Args:
    x: of at most that size.
    size: of the result.
    number: tells this from others of that size without an x, which else were
      made once and copied.
  """
  x_N = x.ravel()
  if x_N.size == size:
    return x_N
  if unwritten.takes(x_N):
    return unwritten.extend(x_N, size, number)
  return jnp.pad(x_N, (0, size - x_N.size))


def replace(
  arrays: Mapping[int, Array], shapes: Mapping[int, Sequence[int]], dtype: Any
) -> dict[int, Array]:
  """Arrays of which nothing is read by arrays that nothing reads.

  Nor is their gradient read: it is no sum of zeros, but such an array itself.

  Args:
    arrays: of any sizes.
    shapes: of the results, no two of the same size.
    dtype: of the results.
  """

  @jax.custom_vjp
  def replaced(arrays):
    del arrays
    return {key: _array(shape, dtype) for key, shape in shapes.items()}

  def backward(_, gradient):
    del gradient
    return ({key: _array(x.shape, x.dtype) for key, x in arrays.items()},)

  replaced.defvjp(lambda arrays: (replaced(arrays), None), backward)
  return replaced(dict(arrays))


def _array(shape: Sequence[int], dtype: Any) -> Array:
  return extend(jnp.zeros(0, dtype), math.prod(shape)).reshape(shape)
