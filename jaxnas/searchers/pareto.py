"""Pareto fronts: non-dominated sorting and crowding.

They are those of NSGA-II (Deb et al. 2002). All objectives are maximised: give
costs negated.
"""

import numpy as np
from jaxtyping import Float, Int


def front(objectives_NxK: Float[np.ndarray, 'N K']) -> Int[np.ndarray, ' F']:
  """Rising indices of the points that no other dominates.

  A point dominates another if it is at least as good in all objectives and
  better in one; so equal points are on the front together. O(F N K).

  Raises ValueError where an objective is NaN.

  >>> front(np.array([[0.9, -3.0], [0.8, -1.0], [0.8, -2.0]])).tolist()
  [0, 1]
  """
  _check(objectives_NxK)
  left_N = np.arange(len(objectives_NxK))
  at = 0
  while at < len(left_N):
    one_K, rest_NxK = objectives_NxK[left_N[at]], objectives_NxK[left_N]
    better_N = (rest_NxK > one_K).any(axis=1)
    kept_N = better_N | (rest_NxK == one_K).all(axis=1)
    at = int(kept_N[: at + 1].sum())
    left_N = left_N[kept_N]
  return left_N


def fronts(objectives_NxK: Float[np.ndarray, 'N K']) -> Int[np.ndarray, ' N']:
  """Rank of each point's front: 0 is undominated, 1 is so without it, ...

  Raises ValueError where an objective is NaN.
  """
  rank_N = np.zeros(len(objectives_NxK), np.int64)
  left_N, rank = np.arange(len(objectives_NxK)), 0
  while len(left_N):
    best_F = front(objectives_NxK[left_N])
    rank_N[left_N[best_F]] = rank
    left_N, rank = np.delete(left_N, best_F), rank + 1
  return rank_N


def crowding(
  objectives_NxK: Float[np.ndarray, 'N K'],
) -> Float[np.ndarray, ' N']:
  """Crowding distance of each point of a front.

  It is the sum over objectives of the difference between the next better and
  the next worse point, in units of the objective's range, and infinite for the
  first and the last (stated). Inferred: among equal points the first counts as
  worse, an objective that is the same for all counts nothing, and an infinite
  difference is the whole range.

  Raises ValueError where an objective is NaN.
  """
  _check(objectives_NxK)
  distance_N = np.zeros(len(objectives_NxK))
  for f_N in objectives_NxK.T:
    order_N = np.argsort(f_N, kind='stable')
    sorted_N = f_N[order_N]
    if len(f_N) == 0 or sorted_N[0] == sorted_N[-1]:
      continue
    span = sorted_N[-1] - sorted_N[0]
    for n, worse, better in zip(
      order_N[1:-1], sorted_N[:-2], sorted_N[2:], strict=True
    ):
      # The difference of two infinite values is NaN.
      gap = 0.0 if better == worse else better - worse
      distance_N[n] += 1.0 if gap == span else gap / span
    distance_N[order_N[[0, -1]]] = np.inf
  return distance_N


def order(objectives_NxK: Float[np.ndarray, 'N K']) -> Int[np.ndarray, ' N']:
  """Indices, best first: by front, within it by falling crowding distance.

  This is the crowded-comparison operator (stated); ties go to the first.
  """
  rank_N = fronts(objectives_NxK)
  distance_N = np.zeros(len(rank_N))
  for rank in np.unique(rank_N):
    of_front_N = rank_N == rank
    distance_N[of_front_N] = crowding(objectives_NxK[of_front_N])
  return np.lexsort((-distance_N, rank_N))


def _check(objectives_NxK: np.ndarray) -> None:
  if np.isnan(objectives_NxK).any():
    n = int(np.isnan(objectives_NxK).any(axis=1).argmax())
    raise ValueError(
      f'objectives {objectives_NxK[n].tolist()} of {n} have no order.'
    )
