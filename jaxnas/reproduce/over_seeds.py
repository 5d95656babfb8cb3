"""Averages over seeds, with intervals over seeds and architectures.

A statistic is computed for each seed and averaged. Seeds differ in the split
of the images, the weights at the start and the order of everything after; the
architectures and their truth are those of the space. A single seed has no
interval over seeds, and says so.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

# Resamples of an interval.
RESAMPLES = 300

# (number of a seed, indices of architectures) -> value; None where undefined.
Value = Callable[[int, Int[np.ndarray, ' A']], float | None]


class Estimate(NamedTuple):
  """The mean of a statistic over seeds, and how sure it is."""

  n: int
  """Seeds for which it is defined."""
  mean: float | None
  deviation: float | None
  """Standard deviation over seeds; None for fewer than two."""
  over_seeds: tuple[float, float] | None
  """95% interval of the mean over seeds by Student's t, on just these
  architectures; None for fewer than two seeds."""
  over_both: tuple[float, float] | None
  """95% interval of the hierarchical bootstrap, over seeds and architectures;
  over architectures alone where there is one seed."""

  def text(self, form: str = '{:+.3f}') -> str:
    """Writes mean and intervals, or that there is one seed."""
    if self.mean is None:
      return '-'
    parts = [form.format(self.mean)]
    for interval in (self.over_seeds, self.over_both):
      if interval is not None:
        low, high = map(form.format, interval)
        parts.append(f'[{low}, {high}]')
    if self.n == 1:
      parts.append('n = 1')
    return ' '.join(parts)


def estimate(
  value: Value,
  seeds: int,
  archs: int,
  rng: np.random.Generator,
  resamples: int,
) -> Estimate:
  """Averages a statistic over seeds.

  Each resample of the bootstrap draws seeds, and once for all of them
  architectures, with replacement: every seed ranks the same architectures, so
  that they are no second sample. The images stay as they are.

  Args:
    value: the statistic of one seed, on some of the architectures.
    seeds: number of seeds.
    archs: number of architectures.
    rng: draws the resamples.
    resamples: how many.
  """
  every_A = np.arange(archs)
  values = _defined(value(seed, every_A) for seed in range(seeds))
  if not len(values):
    return Estimate(0, None, None, None, None)
  means = _defined(
    _mean(
      value(int(seed), chosen_A) for seed in rng.integers(seeds, size=seeds)
    )
    for chosen_A in (rng.integers(archs, size=archs) for _ in range(resamples))
  )
  return Estimate(
    n=len(values),
    mean=float(values.mean()),
    deviation=float(values.std(ddof=1)) if len(values) > 1 else None,
    over_seeds=_students(values) if len(values) > 1 else None,
    over_both=_percentiles(means) if len(means) else None,
  )


def _mean(values: Iterable[float | None]) -> float | None:
  defined = _defined(values)
  return float(defined.mean()) if len(defined) else None


def _students(values: Float[np.ndarray, ' N']) -> tuple[float, float]:
  """Returns the 95% interval of the mean by Student's t."""
  half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
  return float(values.mean() - half), float(values.mean() + half)


def _percentiles(means: Float[np.ndarray, ' N']) -> tuple[float, float]:
  low, high = np.percentile(means, [2.5, 97.5])
  return float(low), float(high)


def _defined(values: Iterable[float | None]) -> Float[np.ndarray, ' N']:
  return np.array([value for value in values if value is not None], float)


def difference(
  statistic: Callable[[np.ndarray, np.ndarray], float | None],
  scores_SxPxA: Sequence[Sequence[Num[np.ndarray, ' A']]],
  truth_A: Float[np.ndarray, ' A'],
) -> Value:
  """Makes the value of a paired difference: the first of a pair less the other.

  Args:
    statistic: (scores, truth) -> value; None where undefined.
    scores_SxPxA: both scores of each seed.
    truth_A: accuracies of the architectures trained alone.
  """

  def value(seed, chosen_A):
    ours, theirs = (
      statistic(score_A[chosen_A], truth_A[chosen_A])
      for score_A in scores_SxPxA[seed]
    )
    return None if ours is None or theirs is None else ours - theirs

  return value
