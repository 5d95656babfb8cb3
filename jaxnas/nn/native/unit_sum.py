"""The sum of unit vectors, in one pass over memory."""

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
  sum_D, inverse_A = native.call(
    'jaxnas_unit_sum', [(columns,), (count,)], rows_AxD
  )
  return sum_D, inverse_A
