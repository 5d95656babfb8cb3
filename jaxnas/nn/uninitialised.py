"""Arrays whose values nothing reads, and which therefore need none.

All branches of a switch have results of the same shapes, and so each has some
that only others need. C++ leaves them as memory is, and so do accelerators; on
CPUs XLA alone writes zeros.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn import target
from jaxnas.nn.cpu.native import unwritten


def extend(x: Array, size: int, number: int = 0) -> Array:
  """Returns x as a flat array, and behind it values that nothing reads.

  Args:
    x: an array of at most that size.
    size: of the result.
    number: differs between results of one size and an empty x, which would
      otherwise be made once and copied.
  """
  x_N = x.ravel()
  if x_N.size == size:
    return x_N
  if unwritten.takes(x_N):
    return unwritten.extend(x_N, size, number)
  if target.backend() == 'cpu':
    return jnp.pad(x_N, (0, size - x_N.size))
  rest_M = jax.lax.empty((size,), x_N.dtype)
  if not x_N.size:
    return rest_M
  # At a place that XLA knows it copies by a call that no CUDA graph takes: the
  # branch would wait for the host.
  start = jax.lax.optimization_barrier(jnp.int32(0))
  return jax.lax.dynamic_update_slice(rest_M, x_N, (start,))


def replace(
  arrays: Mapping[int, Array], shapes: Mapping[int, Sequence[int]], dtype: Any
) -> dict[int, Array]:
  """Replaces arrays that nothing reads by others of other shapes.

  Nothing reads their gradients either: these are such arrays again.

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
