"""Mean cosine distances of rows that lie in memory, which is read twice.

Once for their lengths and the sum of their unit vectors, a few rows at a time
so that these come from a core's cache the second time; once for the products
with that sum. Nothing can do with less, as a row's length is known only after
all of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnas.density.distances import HIGHEST, length
from jaxnas.density.streaming import NotFinite, at_least_two
from jaxnas.nn.native import unit_sum as native

# Rows at a time: of 100,000 numbers each, 8 or 32 take a tenth longer.
ROWS = 16
# Squared lengths between these have lost nothing to float32's range.
SAFE = 1e-30, 1e30


def mean_cosine_distance(
  f_AxD: Float[np.ndarray, 'A D'] | Float[Array, 'A D'],
) -> Float[np.ndarray, ' A']:
  """distance_A[a] = mean over i != a of 1 - cos(f_a, f_i), in [0, 2].

  Raises:
    ValueError: fewer than two rows.
    NotFinite: a row has a value that is not.
  """
  count = len(f_AxD)
  at_least_two(count)
  product_A, present_A, finite_A = jax.device_get(
    _products(jnp.asarray(f_AxD, jnp.float32))
  )
  if not finite_A.all():
    raise NotFinite(int(np.argmin(finite_A)))
  return 1 - (product_A - present_A) / (count - 1)


@jax.jit
def _products(f_AxD: Float[Array, 'A D']) -> tuple[Array, Array, Array]:
  """(<u_a, sum_i u_i>, <u_a, u_a>, whether finite) of unit vectors u."""
  summed = native.unit_sum if native.takes(f_AxD) else unit_sum
  sum_D, scale_A = summed(f_AxD)
  product_A = scale_A * jnp.matmul(f_AxD, sum_D, precision=HIGHEST)
  return product_A, scale_A > 0, jnp.isfinite(scale_A)


def unit_sum(
  f_AxD: Float[Array, 'A D'],
) -> tuple[Float[Array, ' D'], Float[Array, ' A']]:
  """The sum of rows by their lengths, and the inverse of these."""
  count, rows = len(f_AxD), min(ROWS, len(f_AxD))
  blocks = -(-count // rows)

  def add(sum_D, block):
    # The last block ends with the last row, and repeats some.
    start = jnp.minimum(block * rows, count - rows)
    f_CxD = lax.dynamic_slice_in_dim(f_AxD, start, rows)
    scale_C = _inverse_lengths(f_CxD)
    new_C = start + jnp.arange(rows) >= block * rows
    unit_sum_D = jnp.matmul(
      jnp.where(new_C, scale_C, 0), f_CxD, precision=HIGHEST
    )
    return sum_D + unit_sum_D, scale_C

  sum_D, scale_BxC = lax.scan(
    add, jnp.zeros(f_AxD.shape[1]), jnp.arange(blocks)
  )
  last = count - (blocks - 1) * rows
  return sum_D, jnp.append(scale_BxC[:-1].ravel(), scale_BxC[-1, rows - last :])


def _inverse_lengths(f_CxD: Float[Array, 'C D']) -> Float[Array, ' C']:
  """1 / |f|, and 0 of zero."""
  square_C = jnp.square(f_CxD).sum(axis=1)
  low, high = SAFE

  def rescaled(f_CxD):
    length_C = jax.vmap(length)(f_CxD)
    return jnp.where(length_C == 0, 0, 1 / length_C)

  # Looking for each row's largest entry would take as long as all else.
  return lax.cond(
    ((square_C > low) & (square_C < high)).all(),
    lambda _: lax.rsqrt(square_C),
    rescaled,
    f_CxD,
  )
