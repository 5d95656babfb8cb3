"""Correlation of predicted accuracies with the truth, and its intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Num

Statistic = Callable[[np.ndarray, np.ndarray], float | None]


def kendall(
  predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float | None:
  """Kendall's tau-b; None where one side is constant."""
  if _constant(predicted_A) or _constant(truth_A):
    return None
  tau: Any = scipy.stats.kendalltau(predicted_A, truth_A)
  return _finite(tau.statistic)


def spearman(
  predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float | None:
  """Spearman's rho, ties at mean rank; None where one side is constant."""
  if _constant(predicted_A) or _constant(truth_A):
    return None
  rho: Any = scipy.stats.spearmanr(predicted_A, truth_A)
  return _finite(rho.statistic)


def bootstrap(
  statistic: Statistic,
  predicted_A: Num[np.ndarray, 'A *columns'],
  truth_A: Num[np.ndarray, ' A'],
  rng: np.random.Generator,
  samples: int = 1000,
) -> tuple[float, float] | None:
  """95% percentile interval over architectures, the images fixed.

  None where every resample leaves the statistic undefined.
  """
  count = len(truth_A)
  values = [
    statistic(predicted_A[chosen_A], truth_A[chosen_A])
    for chosen_A in (rng.integers(count, size=count) for _ in range(samples))
  ]
  defined = [value for value in values if value is not None]
  if not defined:
    return None
  low, high = np.percentile(defined, [2.5, 97.5])
  return float(low), float(high)


def gain(
  predicted_A: Num[np.ndarray, ' A'],
  other_A: Num[np.ndarray, ' A'],
  truth_A: Num[np.ndarray, ' A'],
  rng: np.random.Generator,
  samples: int = 200,
) -> tuple[float, float] | None:
  """95% interval of the tau of one prediction less that of another.

  Both are of the same architectures, which are resampled together. None where
  either is undefined in every resample.
  """
  pair_Ax2 = np.stack([predicted_A, other_A], axis=1)

  def difference(pair_Ax2, truth_A):
    one, other = (kendall(column_A, truth_A) for column_A in pair_Ax2.T)
    return None if one is None or other is None else one - other

  return bootstrap(difference, pair_Ax2, truth_A, rng, samples)


def _constant(values_A: Num[np.ndarray, ' A']) -> bool:
  # scipy would return NaN for these, sometimes with a warning.
  return len(values_A) < 2 or bool(np.ptp(values_A) == 0)


def _finite(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None
