"""Statistics of the architectures that are predicted or truly best.

Where values tie, their order says nothing: each of these is the expectation
over all orders of those that tie, in the prediction and in the truth.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Num

from jaxnas.truth.correlation import kendall

# The fewest architectures of `top_kendall`.
SMALLEST = 10

# Sets of architectures that tie at its edge are listed up to so many; of more,
# so many are drawn, always the same.
MOST_SETS = 1000


def tied(values_A: Num[np.ndarray, ' A']) -> Int[np.ndarray, ' T']:
  """Returns the indices of all that share the largest value."""
  return np.flatnonzero(values_A == values_A.max())


def top_kendall(
  predicted_A: Num[np.ndarray, ' A'],
  truth_A: Num[np.ndarray, ' A'],
  fraction: float = 0.1,
) -> float | None:
  """Kendall's tau-b among the truly best `fraction`, at least ten archs."""
  count = max(SMALLEST, int(np.ceil(fraction * len(truth_A))))
  return kendall_of_best(count, predicted_A, truth_A)


def kendall_of_best(
  count: int, predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float | None:
  """Kendall's tau-b among the `count` truly best architectures."""
  taus = [
    tau
    for best in _best(truth_A, min(count, len(truth_A)))
    if (tau := kendall(predicted_A[best], truth_A[best])) is not None
  ]
  return float(np.mean(taus)) if taus else None


def _best(
  truth_A: Num[np.ndarray, ' A'], count: int
) -> Iterator[Int[np.ndarray, ' N']]:
  """Yields each set of so many that can be the best, or some of them."""
  if not count:
    yield np.zeros(0, int)
    return
  edge = np.sort(truth_A)[-count]
  sure, ties = np.flatnonzero(truth_A > edge), np.flatnonzero(truth_A == edge)
  wanted = count - len(sure)
  if math.comb(len(ties), wanted) <= MOST_SETS:
    sets = itertools.combinations(ties, wanted)
  else:
    rng = np.random.default_rng(0)
    sets = (
      rng.choice(ties, wanted, replace=False, shuffle=False)
      for _ in range(MOST_SETS)
    )
  for some in sets:
    yield np.sort(np.concatenate([sure, np.array(some, int)]))


def precision_at(
  k: int, predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float:
  """Fraction of the k predicted best that are among the k truly best."""
  chosen_A, best_A = _chance(k, predicted_A), _chance(k, truth_A)
  return float(chosen_A @ best_A) / min(k, len(truth_A))


def _chance(k: int, values_A: Num[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Probability of each to be among the k largest."""
  ascending_A = np.sort(values_A)
  above_A = len(values_A) - np.searchsorted(ascending_A, values_A, 'right')
  below_A = np.searchsorted(ascending_A, values_A, 'left')
  ties_A = len(values_A) - above_A - below_A
  return np.clip((k - above_A) / ties_A, 0, 1)


def best_rank_at(
  k: int, predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float:
  """True rank, from 1, of the truly best among the k predicted best.

  It goes down the groups of equal truth: n of the k fall into a group of u
  that begins behind b others, and the first of them has the rank
  b + (u + 1) / (n + 1) on average.
  """
  chance_A = _chance(k, predicted_A)
  # Those that tie at the edge of the k: some of them are chosen, which is
  # random, until the groups that are passed leave no choice.
  edge_A = (chance_A > 0) & (chance_A < 1)
  left, wanted = int(edge_A.sum()), round(float(chance_A[edge_A].sum()))
  expected, none_yet, before = 0.0, 1.0, 0
  for value in np.unique(truth_A)[::-1]:
    group_A = truth_A == value
    size = int(group_A.sum())
    sure = int((group_A & (chance_A == 1)).sum())
    random = int((group_A & edge_A).sum())
    if sure or random:
      more = np.arange(min(random, wanted) + 1)
      # Of `left` that are alike, `wanted` are chosen: so many of this group.
      p = np.array(
        [
          math.comb(random, n)
          * math.comb(left - random, wanted - n)
          / math.comb(left, wanted)
          for n in more.tolist()
        ]
      )
      rank = before + (size + 1) / (sure + more + 1)
      some = sure + more > 0
      expected += none_yet * float((p * rank)[some].sum())
      none_yet *= float(p[~some].sum())
      left -= random
    if not none_yet:
      break
    before += size
  return expected
