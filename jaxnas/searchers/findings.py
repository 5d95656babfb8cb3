"""Findings of a search: rows ready for JSON, the front and the best archs."""

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas.searchers import pareto
from jaxnas.searchers.base import State, last_scores
from jaxnas.searchers.cost_table import CostTable
from jaxnas.searchers.limits import costs
from jaxnas.spaces import Space


def rows(
  space: Space, found: State, table: CostTable | None = None
) -> list[dict[str, Any]]:
  """Returns all that was scored, in that order, ready for JSON."""
  names = ('params', 'macs', 'cost')
  return [
    {
      'generation': int(generation),
      'arch': space.format(arch_E),
      'accuracy': float(accuracy),
      # A table's cost is no integer.
      **{
        name: float(cost) if name == 'cost' else int(cost)
        for name, cost in zip(names, costs_K, strict=False)
      },
    }
    for generation, arch_E, accuracy, costs_K in zip(
      found.generation_V,
      found.archs_VxE,
      found.accuracy_V,
      costs(space, found.archs_VxE, table),
      strict=True,
    )
  ]


def index(found: State, arch_E: Int[np.ndarray, ' E']) -> int:
  """Returns the index of an architecture's last score."""
  same_V = (found.archs_VxE == arch_E).all(axis=1)
  return int(np.flatnonzero(same_V)[-1])


def tied(found: State, arch_E: Int[np.ndarray, ' E']) -> int:
  """Returns how many architectures have its accuracy, itself among them."""
  last_V = found.accuracy_V[last_scores(found)]
  return int((last_V == found.accuracy_V[index(found, arch_E)]).sum())


def front(
  space: Space, found: State, table: CostTable | None = None
) -> Int[np.ndarray, ' F']:
  """Returns the indices of the Pareto front.

  No other is better in accuracy, parameters, multiply-adds and, where there is
  a table, its cost at once.
  """
  last_U = last_scores(found)
  return last_U[
    pareto.front(
      np.column_stack(
        [
          found.accuracy_V[last_U],
          -costs(space, found.archs_VxE[last_U], table),
        ]
      )
    )
  ]
