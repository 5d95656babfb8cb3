"""Distances of all pairs of architectures, block by block.

No array over all pairs is made, and nothing on the device is larger than two
blocks of features and their distances.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxnas.runtime import progress

Distance = Callable[[Any, Any], Float[Array, '']]
Features = Mapping[str, np.ndarray]

# Architectures on each side of a block.
BLOCK = 128

# More blocks than these take long enough for a bar.
SHOWN = 50


def blocks(
  distance: Distance,
  features: Features,
  block: int = BLOCK,
  poll: Callable[[], None] = lambda: None,
) -> Iterator[tuple[slice, slice, Float[np.ndarray, 'B C']]]:
  """Yields (rows, columns, distances_BxC) of the upper triangle of blocks.

  Distances are symmetric. That of an architecture to itself is exactly zero.

  Args:
    distance: between two architectures' features, from `distances`.
    features: by name, with the architectures along the first axis.
    block: architectures on each side.
    poll: called before each block; may raise.
  """
  count = len(next(iter(features.values())))
  sides = [
    slice(start, min(start + block, count)) for start in range(0, count, block)
  ]
  upper = list(itertools.combinations_with_replacement(sides, 2))
  label = 'pairs, in blocks' if len(upper) > SHOWN else None
  for rows, columns in progress.track(upper, label, len(upper), poll):
    distance_BxC = np.array(
      _of_block(
        distance,
        {name: f[rows] for name, f in features.items()},
        {name: f[columns] for name, f in features.items()},
      )
    )
    if rows == columns:
      np.fill_diagonal(distance_BxC, 0)
    yield rows, columns, distance_BxC


@functools.partial(jax.jit, static_argnums=0)
def _of_block(
  distance: Distance, rows: Mapping[str, Array], columns: Mapping[str, Array]
) -> Float[Array, 'B C']:
  of_row = jax.vmap(distance, in_axes=(None, 0))
  return jax.vmap(of_row, in_axes=(0, None))(rows, columns)


def sums(
  distance: Distance,
  features: Features,
  of: Callable[[np.ndarray], np.ndarray] = lambda distance_BxC: distance_BxC,
  *,
  block: int = BLOCK,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """Sums `of(distance)` over all architectures, the one itself included."""
  count = len(next(iter(features.values())))
  sum_A = np.zeros(count)
  for rows, columns, distance_BxC in blocks(distance, features, block, poll):
    value_BxC = of(distance_BxC.astype(np.float64))
    sum_A[rows] += value_BxC.sum(axis=1)
    if rows != columns:
      sum_A[columns] += value_BxC.sum(axis=0)
  return sum_A


def matrix(
  distance: Distance,
  features: Features,
  *,
  block: int = BLOCK,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, 'A A']:
  """Returns every distance, for spaces small enough to look at."""
  count = len(next(iter(features.values())))
  distance_AxA = np.zeros((count, count), np.float32)
  for rows, columns, distance_BxC in blocks(distance, features, block, poll):
    distance_AxA[rows, columns] = distance_BxC
    distance_AxA[columns, rows] = distance_BxC.T
  return distance_AxA


def condensed(
  distance: Distance,
  features: Features,
  *,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' P']:
  """Returns the upper triangle of `matrix`, row by row, as scipy has it."""
  distance_AxA = matrix(distance, features, poll=poll)
  return distance_AxA[np.triu_indices(len(distance_AxA), 1)]
