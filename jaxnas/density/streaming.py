"""Mean cosine distances without pairs, from unit vectors that stream by.

With unit vectors u the mean cosine over i != a is (<u_a, sum_i u_i> -
<u_a, u_a>) / (A - 1): exact in O(A D) time and O(D) memory.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxnas import processes, spread
from jaxnas.density.distances import HIGHEST
from jaxnas.spread import Block

# Blocks of unit vectors by tensor, zero where an architecture lacks one;
# iterable anew each call.
Units = Callable[[], Iterable[Block]]


def mean_cosine_distance(
  units: Units, count: int, *, memory_bytes: float = 2e9
) -> Float[np.ndarray, ' A']:
  """distance_A[a] = mean over i != a of the tensors' mean 1 - cos, in [0, 2].

  Args:
    units: blocks of `count` architectures' unit vectors.
    count: A, at least 2.
    memory_bytes: vectors are kept up to this size, and asked for a second
      time beyond it.

  Raises:
    ValueError: fewer than two architectures.
    FloatingPointError: a vector is not finite.
  """
  at_least_two(count)
  total: dict[str, Array] = {}
  kept, keep = [], False
  for block in spread.one_late(units()):
    check_finite(block)
    if not total:
      total = _zeros(block.values)
      size = sum(leaf.nbytes for leaf in jax.tree.leaves(total)) * count
      keep = size <= memory_bytes
    total = _add(total, block.values, block.real_C)
    if keep:
      kept.append(block._replace(values=processes.fetch(block.values)))
  distance_A = np.zeros(count)
  for block in kept or spread.one_late(units()):
    mean_C = processes.fetch(_mean_cosine(block.values, total, count))
    distance_A[block.indices_C[block.real_C]] = 1 - mean_C[block.real_C]
  return distance_A


def distance_by_tensor(units: Units) -> dict[str, float]:
  """Mean over pairs of 1 - cos, for each tensor, of those that have it.

  O(A D). NaN where fewer than two architectures have the tensor.
  """
  total: dict[str, Array] = {}
  have: dict[str, Array] = {}
  for block in spread.one_late(units()):
    check_finite(block)
    present = _present(block.values)
    if not total:
      total, have = _zeros(block.values), _zeros(present)
    total = _add(total, block.values, block.real_C)
    have = _add(have, present, block.real_C)
  out = {}
  for name, u_D in total.items():
    number = float(have[name])
    pairs = number * (number - 1)
    product = float(jnp.vdot(u_D, u_D, precision=HIGHEST))
    out[name] = 1 - (product - number) / pairs if pairs else float('nan')
  return out


def at_least_two(count: int) -> None:
  """Raises ValueError where there are no others to be distant from."""
  if count < 2:
    raise ValueError(f'a mean distance to others needs 2 archs, not {count}.')


def check_finite(block: Block) -> None:
  """Raises FloatingPointError where a feature of a block is not finite."""
  bad_C = ~processes.fetch(_finite(block.values))
  if bad_C.any():
    raise FloatingPointError(
      f'the features of architecture {block.indices_C[bad_C][0]} of the '
      'enumeration are not finite.'
    )


def _zeros(values: dict[str, Array]) -> dict[str, Array]:
  """Of one architecture's shapes."""
  return jax.tree.map(lambda u_Cx: jnp.zeros(u_Cx.shape[1:]), values)


@jax.jit
def _finite(values: dict[str, Array]) -> Bool[Array, ' C']:
  finite = [
    jnp.isfinite(u_Cx).all(axis=tuple(range(1, u_Cx.ndim)))
    for u_Cx in jax.tree.leaves(values)
  ]
  return jnp.stack(finite).all(axis=0)


@jax.jit
def _present(units: dict[str, Array]) -> dict[str, Array]:
  """1 where an architecture has the tensor, 0 where not."""
  return jax.tree.map(
    lambda u_CxD: (u_CxD != 0).any(axis=-1).astype(jnp.float32), units
  )


@jax.jit
def _add(
  total: dict[str, Array], units: dict[str, Array], real_C: Array
) -> dict[str, Array]:
  weight_C = jnp.asarray(real_C, jnp.float32)
  return jax.tree.map(
    lambda sum_D, u_CxD: (
      sum_D + jnp.tensordot(weight_C, u_CxD, axes=1, precision=HIGHEST)
    ),
    total,
    units,
  )


@jax.jit
def _mean_cosine(
  units: dict[str, Array],
  total: dict[str, Array],
  count: int | Integer[Array, ''],
) -> Float[Array, ' C']:
  """Over the other architectures, then over tensors."""

  def of_tensor(u_CxD, sum_D):
    with_all_C = jnp.matmul(u_CxD, sum_D, precision=HIGHEST)
    return (with_all_C - jnp.square(u_CxD).sum(axis=1)) / (count - 1)

  cosines = [of_tensor(u_CxD, total[name]) for name, u_CxD in units.items()]
  return jnp.mean(jnp.stack(cosines), axis=0)
