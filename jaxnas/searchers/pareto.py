"""What no other is better than: non-dominated sorting and crowding.

NSGA-II (Deb et al. 2002). All objectives are maximised; give costs negated.
"""

import numpy as np
from jaxtyping import Float, Int


def front(objectives_NxK: Float[np.ndarray, 'N K']) -> Int[np.ndarray, ' F']:
  """Indices, rising, of what no other dominates.

  One dominates another that it is at least as good as in all objectives and
  better than in one. So equal ones are on the front together. O(F N K).

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
  """Number of the front of each: 0 undominated, 1 without those, and so on.

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
  """How far apart the neighbours of each one of a front are.

  The sum over objectives of the difference between the next better and the
  next worse one, in units of the objective's range; infinite for its first
  and last (stated). Of equal ones the first counts as worse, an objective that
  is the same for all counts nothing, and an infinite difference is the whole
  range (inferred).

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
      # Infinite ones have no differences among themselves.
      gap = 0.0 if better == worse else better - worse
      distance_N[n] += 1.0 if gap == span else gap / span
    distance_N[order_N[[0, -1]]] = np.inf
  return distance_N


def order(objectives_NxK: Float[np.ndarray, 'N K']) -> Int[np.ndarray, ' N']:
  """Indices, best first: by front, there by falling crowding distance.

  The crowded-comparison operator (stated); ties to the first.
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
