"""Selection of parents among the architectures that were scored."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from jaxnas.searchers import pareto
from jaxnas.searchers.cost_table import CostTable
from jaxnas.searchers.limits import costs
from jaxnas.spaces import Space

# archs_NxE -> d_NxN
Distance = Callable[[np.ndarray], np.ndarray]

SELECTIONS = ('accuracy', 'diverse', 'similar', 'pareto')


def hamming(archs_NxE: Int[np.ndarray, 'N E']) -> Float[np.ndarray, 'N N']:
  """Number of positions at which two archs differ."""
  return (archs_NxE[:, None] != archs_NxE).sum(axis=-1).astype(np.float64)


def parents(
  space: Space,
  archs_VxE: Int[np.ndarray, 'V E'],
  accuracy_V: Float[np.ndarray, ' V'],
  *,
  select: str,
  count: int,
  pool: int,
  distance: Distance = hamming,
  table: CostTable | None = None,
) -> Int[np.ndarray, ' N']:
  """Indices of up to `count` parents; ties go to the first.

  'accuracy' takes the most accurate, as SPOS does (stated). 'pareto' orders by
  NSGA-II's sorting and crowding: accuracy up, all costs down. The other two
  (inferred) take the best one and more of the `pool` most accurate: 'diverse'
  adds the one farthest from those taken, again and again, which gives at least
  half of the largest possible minimum distance (Gonzalez 1985); 'similar' adds
  the nearest to the best.

  Args:
    space: gives the costs.
    archs_VxE: different archs that were scored.
    accuracy_V: their accuracies.
    select: one of `SELECTIONS`.
    count: N.
    pool: number of the most accurate that 'diverse' and 'similar' choose from.
    distance: archs_NxE -> d_NxN, for 'diverse' and 'similar'.
    table: of a further cost, for 'pareto'.
  """
  if select == 'pareto':
    objectives_VxK = np.column_stack(
      [accuracy_V, -costs(space, archs_VxE, table)]
    )
    return pareto.order(objectives_VxK)[:count]
  order_V = np.argsort(-accuracy_V, kind='stable')
  if select == 'accuracy':
    return order_V[:count]
  pool_N = order_V[:pool]
  d_NxN = distance(archs_VxE[pool_N])
  if select == 'similar':
    return pool_N[np.argsort(d_NxN[0], kind='stable')[:count]]
  return pool_N[farthest_first(d_NxN, count)]


def farthest_first(
  d_NxN: Float[np.ndarray, 'N N'], count: int
) -> Int[np.ndarray, ' M']:
  """Indices: 0, then always the farthest from those taken; ties to the first.

  >>> x_N = np.array([0.0, 1.0, 10.0, 6.0])
  >>> farthest_first(abs(x_N[:, None] - x_N), 3).tolist()
  [0, 2, 3]
  """
  taken, nearest_N = [0], d_NxN[0].astype(np.float64)
  while len(taken) < min(count, len(d_NxN)):
    nearest_N[taken] = -np.inf
    taken.append(int(nearest_N.argmax()))
    nearest_N = np.minimum(nearest_N, d_NxN[taken[-1]])
  return np.array(taken)
