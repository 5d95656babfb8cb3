"""Limits on what an architecture may cost, and what a space can attain."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxnas.spaces import Space


@dataclasses.dataclass(frozen=True)
class Limits:
  """Of stand-alone networks; None is no limit."""

  max_params: int | None = None
  max_macs: int | None = None
  """Multiply-adds of one image."""

  @property
  def any(self) -> bool:
    return self.max_params is not None or self.max_macs is not None

  @property
  def of_costs(self) -> Float[np.ndarray, '2']:
    """(parameters, multiply-adds), infinite where there is no limit."""
    return np.array(
      [
        np.inf if limit is None else limit
        for limit in (self.max_params, self.max_macs)
      ],
      np.float64,
    )


UNLIMITED = Limits()


def costs(
  space: Space, archs_AxE: Int[np.ndarray, 'A E']
) -> Int[np.ndarray, 'A 2']:
  """Columns are parameters and multiply-adds."""
  return np.stack(space.costs(archs_AxE), axis=1)


def feasible(
  space: Space, limits: Limits, archs_AxE: Int[np.ndarray, 'A E']
) -> Bool[np.ndarray, ' A']:
  """Whether each arch is within all limits; a cost on its limit is."""
  if not limits.any:
    return np.ones(len(archs_AxE), bool)
  return np.all(costs(space, archs_AxE) <= limits.of_costs, axis=1)


@functools.cache
def by_position(space: Space) -> tuple[Int[np.ndarray, 'O 2'], ...]:
  """Tables whose rows, one taken at each position, sum to the costs of an arch.

  For products whose costs are sums over positions, as those of a chain are.
  What all architectures have in common is in the table of position 0.
  """
  tables = []
  zeros_1xE = np.zeros((1, space.positions), np.int32)
  first_1x2 = costs(space, zeros_1xE)
  for e, count in enumerate(space.counts):
    archs_OxE = zeros_1xE.repeat(count, axis=0)
    archs_OxE[:, e] = np.arange(count)
    table_Ox2 = costs(space, archs_OxE)
    tables.append(table_Ox2 if e == 0 else table_Ox2 - first_1x2)
  return tuple(tables)


def cheapest(space: Space) -> Int[np.ndarray, 'F 2']:
  """(parameters, multiply-adds) that no arch undercuts in both: exact.

  By rising parameters and falling multiply-adds. Where the space is too large
  to list, positions are added one by one and only such pairs kept, because
  what undercuts a beginning undercuts it with any end.
  """
  if space.enumerable:
    return _undercut_by_none(costs(space, space.enumerate()))
  sums_Fx2 = np.zeros((1, 2), np.int64)
  for table_Ox2 in by_position(space):
    table_Ox2 = _undercut_by_none(table_Ox2)
    sums_Fx2 = _undercut_by_none((sums_Fx2[:, None] + table_Ox2).reshape(-1, 2))
  return sums_Fx2


def most(space: Space) -> Int[np.ndarray, '2']:
  """The most parameters, and the most multiply-adds, that an arch has."""
  if space.enumerable:
    return costs(space, space.enumerate()).max(axis=0)
  return np.sum([t_Ox2.max(axis=0) for t_Ox2 in by_position(space)], axis=0)


def check(space: Space, limits: Limits) -> None:
  """Raises ValueError, with what is attainable, where no arch meets them."""
  if not limits.any:
    return
  pairs_Fx2 = cheapest(space)
  within_Fx2 = pairs_Fx2 <= limits.of_costs
  if within_Fx2.all(axis=1).any():
    return
  units = 'parameters', 'multiply-adds'
  least_2, most_2 = pairs_Fx2.min(axis=0), most(space)
  for k, unit in enumerate(units):
    if not within_Fx2[:, k].any():
      raise ValueError(
        f'no architecture of {space.name} has at most '
        f'{limits.of_costs[k]:,.0f} {unit}: they have {least_2[k]:,} to '
        f'{most_2[k]:,}.'
      )
  # The fewest of the other cost under each limit alone.
  macs = pairs_Fx2[within_Fx2[:, 0], 1].min()
  params = pairs_Fx2[within_Fx2[:, 1], 0].min()
  raise ValueError(
    f'no architecture of {space.name} has at most {limits.max_params:,} '
    f'parameters and {limits.max_macs:,} multiply-adds at once: raise the '
    f'former to {params:,} or the latter to {macs:,}.'
  )


def _undercut_by_none(
  costs_Ax2: Int[np.ndarray, 'A 2'],
) -> Int[np.ndarray, 'F 2']:
  sorted_Ax2 = np.unique(costs_Ax2, axis=0)
  lowest_A = np.minimum.accumulate(sorted_Ax2[:, 1])
  return sorted_Ax2[np.append(True, sorted_Ax2[1:, 1] < lowest_A[:-1])]
