"""How well predicted accuracies order architectures."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float, Num

Statistic = Callable[[np.ndarray, np.ndarray], float | None]

SMALLEST_TOP = 10


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
  """Spearman's rho, ties at their mean rank; None where a side is constant."""
  if _constant(predicted_A) or _constant(truth_A):
    return None
  rho: Any = scipy.stats.spearmanr(predicted_A, truth_A)
  return _finite(rho.statistic)


def top_kendall(
  predicted_A: Num[np.ndarray, ' A'],
  truth_A: Num[np.ndarray, ' A'],
  fraction: float = 0.1,
) -> float | None:
  """Kendall's tau-b among the truly best, at least ten of them."""
  count = max(SMALLEST_TOP, int(np.ceil(fraction * len(truth_A))))
  best = _descending(truth_A)[:count]
  return kendall(predicted_A[best], truth_A[best])


def precision_at(
  k: int, predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> float:
  """Share of the k predicted best that are among the k truly best."""
  chosen, best = _descending(predicted_A)[:k], _descending(truth_A)[:k]
  return len(np.intersect1d(chosen, best)) / len(best)


def best_rank_at(
  k: int, predicted_A: Num[np.ndarray, ' A'], truth_A: Num[np.ndarray, ' A']
) -> int:
  """True rank, from 1, of the truly best among the k predicted best."""
  rank_A = np.empty(len(truth_A), int)
  rank_A[_descending(truth_A)] = np.arange(1, len(truth_A) + 1)
  return int(rank_A[_descending(predicted_A)[:k]].min())


def bootstrap(
  statistic: Statistic,
  predicted_A: Num[np.ndarray, ' A'],
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


def summarize(
  predicted_A: Float[np.ndarray, ' A'],
  truth_A: Float[np.ndarray, ' A'],
  baselines: Mapping[str, Num[np.ndarray, ' A']],
  rng: np.random.Generator,
) -> dict[str, Any]:
  """All of the above, ready for JSON; what is undefined is None.

  Args:
    predicted_A: accuracies of the supernet.
    truth_A: accuracies of the architectures alone.
    baselines: what ranks without training, correlated with the truth too.
    rng: of the bootstrap.
  """
  some = [k for k in (1, 5, 10, 50) if k <= len(truth_A)]
  return {
    'kendall': kendall(predicted_A, truth_A),
    'kendall_interval': bootstrap(kendall, predicted_A, truth_A, rng),
    'spearman': spearman(predicted_A, truth_A),
    'spearman_interval': bootstrap(spearman, predicted_A, truth_A, rng),
    'top_kendall': top_kendall(predicted_A, truth_A),
    'precision_at': {
      str(k): precision_at(k, predicted_A, truth_A) for k in some
    },
    'best_rank_at': {
      str(k): best_rank_at(k, predicted_A, truth_A) for k in some
    },
    'baselines': {
      name: {
        'kendall': kendall(value_A, truth_A),
        'spearman': spearman(value_A, truth_A),
      }
      for name, value_A in baselines.items()
    },
  }


def _descending(values_A: Num[np.ndarray, ' A']) -> np.ndarray:
  """Indices from the largest value, ties to the lower index."""
  return np.argsort(-np.asarray(values_A, np.float64), kind='stable')


def _constant(values_A: Num[np.ndarray, ' A']) -> bool:
  # Asked first: scipy would answer NaN, some of the time with a warning.
  return len(values_A) < 2 or bool(np.ptp(values_A) == 0)


def _finite(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None
