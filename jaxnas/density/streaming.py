"""Mean cosine distances without pairs, from a stream of unit vectors.

With the mean m of A unit vectors u, mean_i |u_a - u_i|^2 is |u_a - m|^2 +
mean_i |u_i - m|^2, and 1 - cos(u_a, u_i) is half of |u_a - u_i|^2: exact in
O(A D) time and O(D) memory. The difference of 1 and a mean cosine is the same
number, but float32 keeps 1e-7 of it: 8% of a distance of 1e-6.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxnas.density.distances import HIGHEST
from jaxnas.runtime import devices, processes
from jaxnas.runtime.devices import Chunk

# Makes an iterator over chunks of unit vectors by tensor, zero where an
# architecture lacks one; each call starts anew.
Units = Callable[[], Iterable[Chunk]]

# Architectures in a chunk of features that lie in memory: of 100,000 numbers
# each, 1 takes twice as long as 16, and 64 a quarter longer.
ROWS = 16


def in_memory(
  features: Mapping[str, np.ndarray], rows: int = ROWS
) -> Iterator[Chunk]:
  """Yields features that lie in memory, a few architectures at a time.

  Args:
    features: by name, architectures along the first axis.
    rows: architectures in a chunk, or all where there are fewer.
  """
  count = len(next(iter(features.values())))
  rows = min(rows, count)
  for first in range(0, count, rows):
    # The last chunk is as long as the others, and repeats some of them.
    start = min(first, count - rows)
    indices_C = np.arange(start, start + rows)
    values = {name: f[start : start + rows] for name, f in features.items()}
    yield Chunk(indices_C, indices_C >= first, values)


def mean_cosine_distance(
  units: Units, count: int, *, memory_bytes: float = 2e9
) -> Float[np.ndarray, ' A']:
  """distance_A[a] = mean over i != a of the tensors' mean 1 - cos, in [0, 2].

  Args:
    units: makes chunks of the unit vectors of `count` architectures.
    count: A, at least 2.
    memory_bytes: vectors are kept up to this size, and asked for a second
      time beyond it.

  Raises:
    ValueError: there are fewer than two architectures.
    NotFinite: a vector has a value that is not finite.
  """
  at_least_two(count)
  total: dict[str, Array] = {}
  rest: dict[str, Array] = {}
  kept, keep = [], False
  for chunk in devices.one_late(units()):
    check_finite(chunk)
    if not total:
      total = rest = _zeros(chunk.values)
      size = sum(leaf.nbytes for leaf in jax.tree.leaves(total)) * count
      keep = size <= memory_bytes
    total, rest = _add(total, rest, chunk.values, chunk.real_C)
    if keep:
      kept.append(chunk._replace(values=processes.fetch(chunk.values)))
  mean = jax.tree.map(lambda sum_D: sum_D / count, total)
  square_TxA = np.zeros((len(mean), count))
  absent_TxA = np.zeros((len(mean), count))
  for chunk in kept or devices.one_late(units()):
    square_TxC, present_TxC = processes.fetch(_squares(chunk.values, mean))
    a = chunk.indices_C[chunk.real_C]
    square_TxA[:, a] = square_TxC[:, chunk.real_C]
    absent_TxA[:, a] = ~present_TxC[:, chunk.real_C]
  # An absent vector is 1 from every other, of which its zeros give a half.
  half_TxA = (square_TxA + absent_TxA) / 2
  sum_TxA = count * half_TxA + half_TxA.sum(axis=1, keepdims=True) - absent_TxA
  return sum_TxA.mean(axis=0) / (count - 1)


def distance_by_tensor(units: Units) -> dict[str, float]:
  """Mean of 1 - cos over all pairs of architectures that have a tensor.

  Takes O(A D) time. NaN where fewer than two architectures have the tensor.
  """
  spread: dict[str, Spread] = {}
  for chunk in devices.one_late(units()):
    check_finite(chunk)
    spread = spread or {
      name: Spread(zero_D, zero_D, jnp.zeros(()), jnp.zeros(()))
      for name, zero_D in _zeros(chunk.values).items()
    }
    spread = _spread(spread, chunk.values, chunk.real_C)
  out = {}
  for name, (_, sum_D, square, have) in spread.items():
    pairs = float(have) * (float(have) - 1)
    off = float(jnp.vdot(sum_D, sum_D, precision=HIGHEST))
    out[name] = (
      (float(have) * float(square) - off) / pairs if pairs else float('nan')
    )
  return out


class Spread(NamedTuple):
  """Sums over the vectors of a tensor, for the mean distance of pairs."""

  first_D: Array
  """The first vector; the others are counted from there."""
  sum_D: Array
  square: Array
  have: Array
  """Number of architectures that have the tensor."""


class NotFinite(FloatingPointError):
  """A feature is not finite; `index` is its place among those compared."""

  def __init__(self, index: int):
    super().__init__(f'the features of architecture {index} are not finite.')
    self.index = index


def at_least_two(count: int) -> None:
  """Raises ValueError where there are no others to be distant from."""
  if count < 2:
    raise ValueError(f'a mean distance to others needs 2 archs, not {count}.')


def check_finite(chunk: Chunk) -> None:
  """Raises NotFinite where a feature of a chunk is not finite."""
  bad_C = ~processes.fetch(_finite(chunk.values))
  if bad_C.any():
    raise NotFinite(int(chunk.indices_C[bad_C][0]))


def _zeros(values: Mapping[str, Any]) -> dict[str, Array]:
  """Returns zeros, shaped as the features of one architecture."""
  return jax.tree.map(lambda u_Cx: jnp.zeros(u_Cx.shape[1:]), values)


@jax.jit
def _finite(values: dict[str, Array]) -> Bool[Array, ' C']:
  finite = [
    jnp.isfinite(u_Cx).all(axis=tuple(range(1, u_Cx.ndim)))
    for u_Cx in jax.tree.leaves(values)
  ]
  return jnp.stack(finite).all(axis=0)


@jax.jit
def _add(
  total: dict[str, Array],
  rest: dict[str, Array],
  units: dict[str, Array],
  real_C: Array,
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Adds vectors, and what rounding has kept from the sum: (total, rest)."""
  weight_C = jnp.asarray(real_C, jnp.float32)
  total_after, rest_after = {}, {}
  for name, u_CxD in units.items():
    sum_D = jnp.tensordot(weight_C, u_CxD, axes=1, precision=HIGHEST)
    sum_D -= rest[name]
    total_after[name] = total[name] + sum_D
    rest_after[name] = (total_after[name] - total[name]) - sum_D
  return total_after, rest_after


@jax.jit
def _squares(
  units: dict[str, Array], mean: dict[str, Array]
) -> tuple[Float[Array, 'T C'], Bool[Array, 'T C']]:
  """Returns |u - m|^2 by tensor, and which vectors are not zero."""
  return (
    jnp.stack(
      [jnp.square(u - mean[name]).sum(axis=1) for name, u in units.items()]
    ),
    jnp.stack([(u != 0).any(axis=1) for u in units.values()]),
  )


@jax.jit
def _spread(
  spread: dict[str, Spread], units: dict[str, Array], real_C: Array
) -> dict[str, Spread]:
  def of_tensor(u_CxD, before):
    present_C = (u_CxD != 0).any(axis=1) & real_C
    first_D = jnp.where(
      before.have > 0, before.first_D, u_CxD[present_C.argmax()]
    )
    from_first_CxD = jnp.where(present_C[:, None], u_CxD - first_D, 0)
    return Spread(
      first_D,
      before.sum_D + from_first_CxD.sum(axis=0),
      before.square + jnp.square(from_first_CxD).sum(),
      before.have + present_C.sum(),
    )

  return {name: of_tensor(u, spread[name]) for name, u in units.items()}
