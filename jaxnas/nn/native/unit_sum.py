"""The sum of unit vectors, in one pass over memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.nn import native


def takes(rows: Array) -> bool:
  """Whether `unit_sum` does these."""
  return native.serves('unit_sum', rows)


def unit_sum(
  rows_AxD: Float[Array, 'A D'],
) -> tuple[Float[Array, ' D'], Float[Array, ' A']]:
  """(sum of rows by their lengths, 1 / lengths), where `takes` says so.

  The inverse length of zeros is zero, that of a row that is not finite no
  number.
  """
  count, columns = rows_AxD.shape
  call = jax.ffi.ffi_call(
    'jaxnas_unit_sum',
    [jax.ShapeDtypeStruct((size,), jnp.float32) for size in (columns, count)],
    vmap_method='sequential',
  )
  sum_D, inverse_A = call(rows_AxD)
  return sum_D, inverse_A
