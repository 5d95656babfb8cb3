"""Limits on the costs of an architecture, and the costs a space attains."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxnas.searchers.cost_table import CostTable
from jaxnas.spaces import Space


@dataclasses.dataclass(frozen=True)
class Limits:
  """Largest costs of stand-alone networks; None is no limit."""

  max_params: int | None = None
  max_macs: int | None = None
  """Multiply-adds for one image."""
  max_cost: float | None = None
  """Cost of the table."""
  table: CostTable | None = None
  """A third cost, which is an objective even without a limit."""

  @property
  def any(self) -> bool:
    return bool(np.isfinite(self.max_costs).any())

  @property
  def max_costs(self) -> Float[np.ndarray, ' K']:
    """Limits of all costs, infinite where there is none."""
    given = (self.max_params, self.max_macs)
    if self.table is not None:
      given = (*given, self.max_cost)
    return np.array(
      [np.inf if limit is None else limit for limit in given], np.float64
    )

  @property
  def units(self) -> tuple[tuple[str, str], ...]:
    """Flag and unit of each cost."""
    units = (('--max_params', 'parameters'), ('--max_macs', 'multiply-adds'))
    if self.table is None:
      return units
    return (*units, ('--max_cost', self.table.unit))


def costs(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  table: CostTable | None = None,
) -> Shaped[np.ndarray, 'A K']:
  """Costs of archs; the columns are parameters, multiply-adds and the table's.

  They are integers where there is no table.
  """
  columns = [*space.costs(archs_AxE)]
  if table is not None:
    columns.append(table.of(archs_AxE))
  return np.stack(columns, axis=1)


def feasible(
  space: Space, limits: Limits, archs_AxE: Int[np.ndarray, 'A E']
) -> Bool[np.ndarray, ' A']:
  """True for archs within all limits; a cost may equal its limit."""
  if not limits.any:
    return np.ones(len(archs_AxE), bool)
  return np.all(
    costs(space, archs_AxE, limits.table) <= limits.max_costs, axis=1
  )


@functools.cache
def by_position(
  space: Space, table: CostTable | None = None
) -> tuple[Shaped[np.ndarray, 'O K'], ...]:
  """Tables of costs, a row for each op, which sum to the costs of an arch.

  The space must be a product whose costs are sums over positions, as those of a
  chain are. The table of position 0 includes what all archs have in common.
  """
  tables = []
  zeros_1xE = np.zeros((1, space.positions), np.int32)
  first_1xK = costs(space, zeros_1xE, table)
  for e, count in enumerate(space.counts):
    archs_OxE = zeros_1xE.repeat(count, axis=0)
    archs_OxE[:, e] = np.arange(count)
    table_OxK = costs(space, archs_OxE, table)
    tables.append(table_OxK if e == 0 else table_OxK - first_1xK)
  return tuple(tables)


def cheapest(space: Space) -> Int[np.ndarray, 'F 2']:
  """Pairs (parameters, multiply-adds) that no arch undercuts in both.

  They are exact, with rising parameters and falling multiply-adds. In a space
  too large to list, positions are added one by one and only such pairs kept: a
  cheaper beginning stays cheaper with any end.
  """
  if space.enumerable:
    return _undercut_by_none(costs(space, space.enumerate()))
  sums_Fx2 = np.zeros((1, 2), np.int64)
  for table_Ox2 in by_position(space):
    table_Ox2 = _undercut_by_none(table_Ox2)
    sums_Fx2 = _undercut_by_none((sums_Fx2[:, None] + table_Ox2).reshape(-1, 2))
  return sums_Fx2


def extremes(
  space: Space, table: CostTable | None = None
) -> Shaped[np.ndarray, '2 K']:
  """Least and most of each cost that any arch has."""
  if space.enumerable:
    costs_AxK = costs(space, space.enumerate(), table)
    return np.stack([costs_AxK.min(axis=0), costs_AxK.max(axis=0)])
  tables = by_position(space, table)
  return np.stack(
    [
      np.sum([t_OxK.min(axis=0) for t_OxK in tables], axis=0),
      np.sum([t_OxK.max(axis=0) for t_OxK in tables], axis=0),
    ]
  )


def idle(space: Space, limits: Limits) -> list[str]:
  """Returns a line for each limit that excludes no architecture."""
  return [
    f'{flag} excludes nothing: the architectures of {space.name} have at most '
    f'{said(largest, k)} {unit}.'
    for k, ((flag, unit), limit, largest) in enumerate(
      zip(
        limits.units,
        limits.max_costs,
        extremes(space, limits.table)[1],
        strict=True,
      )
    )
    if largest <= limit < np.inf
  ]


def said(cost: Any, column: int) -> str:
  """Returns a cost in words: a count, or a table's cost in four digits.

  >>> said(40132, 1), said(1.23456, 2)
  ('40,132', '1.235')
  """
  return f'{cost:.4g}' if column == 2 else f'{int(cost):,}'


def check(space: Space, limits: Limits) -> None:
  """Raises ValueError, with attainable costs, where no arch is within them."""
  if not limits.any:
    return
  least_K, most_K = extremes(space, limits.table)
  for k, (_, unit) in enumerate(limits.units):
    if least_K[k] > limits.max_costs[k]:
      raise ValueError(
        f'no architecture of {space.name} has at most '
        f'{said(limits.max_costs[k], k)} {unit}: they have '
        f'{said(least_K[k], k)} to {said(most_K[k], k)}.'
      )
  if np.isfinite(limits.max_costs[:2]).all():
    _check_both(space, limits)
  if (
    limits.max_cost is not None
    and space.enumerable
    and not feasible(space, limits, space.enumerate()).any()
  ):
    raise none_at_once(space, limits)


def none_at_once(space: Space, limits: Limits) -> ValueError:
  """Returns the error where no arch meets the table's limit and the others."""
  return ValueError(
    f'no architecture of {space.name} was found within all limits at once: '
    'raise one of '
    + ', '.join(
      flag
      for (flag, _), limit in zip(limits.units, limits.max_costs, strict=True)
      if np.isfinite(limit)
    )
    + '.'
  )


def _check_both(space: Space, limits: Limits) -> None:
  """Checks parameters and multiply-adds at once."""
  pairs_Fx2 = cheapest(space)
  within_Fx2 = pairs_Fx2 <= limits.max_costs[:2]
  if within_Fx2.all(axis=1).any():
    return
  # The minimum of each cost under the other's limit.
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
