"""Accuracies of all architectures from those of a few that trained alone.

A posterior over accuracies takes what is known without training (costs, depth),
a supernet's score and density, and the ops, and learns from k true accuracies
how far each can be trusted. It is a mixture of Gaussian processes, weighted by
how well each explains the k: its prior mean is a sum of Gaussian ranks, and the
rest is either a sum over ops or smooth in them. The k enter by their ranks too:
a few architectures that fail would outweigh all others. (Not of the paper.)
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxnas.spaces import Space
from jaxnas.truth import correlation
from jaxnas.truth.combine import gaussian_rank

# Weights of ranks before any truth is known: of the score, and of costs, which
# every architecture has for free.
SCORE, COST = 0.45, 0.45
# Variance of those weights, and of the level.
WEIGHT_VARIANCE, LEVEL_VARIANCE = 1 / 12, 0.1

# The processes: variances of what ranks do not explain and of noise, and
# lengths over which the first is smooth; None: it is a sum over ops.
VARIANCES, NOISES = (0.03, 0.1, 0.3, 1.0), (0.1, 0.3, 1.0)
LENGTHS = (None, 0.7, 1.5, 3.0)

# The fewest accuracies that have a spread.
FEWEST = 2


class Known(NamedTuple):
  """Features of architectures, known before any is trained alone."""

  ranks_AxF: Float[np.ndarray, 'A F']
  """Gaussian ranks of scores and costs."""
  weight_F: Float[np.ndarray, ' F']
  """Their weights in the prior mean."""
  ops_AxO: Float[np.ndarray, 'A O']
  """One column for each op of each position."""
  codes_AxC: Int[np.ndarray, 'A C']
  """Numbers of which alike architectures share many."""


class Posterior(NamedTuple):
  """Accuracies of architectures as k truths leave them, fractions.

  Their order is the ranking. Beyond the best and the worst of the k they are
  extrapolated.
  """

  mean_A: Float[np.ndarray, ' A']
  std_A: Float[np.ndarray, ' A']
  """Half the width from one standard deviation below to one above, in which
  noise of a training alone is counted."""


def known(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  score_A: Float[np.ndarray, ' A'] | None = None,
  density_A: Float[np.ndarray, ' A'] | None = None,
) -> Known:
  """Gathers what a posterior is made of.

  Args:
    space: of the architectures; it need not be listed.
    archs_AxE: the architectures whose accuracies are wanted.
    score_A: of a supernet; None: without one.
    density_A: where there is one.
  """
  costs_A = space.costs(archs_AxE).macs_A
  depth_A = space.depth(archs_AxE)
  free = [values_A for values_A in (costs_A, depth_A) if np.ptp(values_A)]
  # Two costs agree, so that each has less than half.
  weight = COST if len(free) == 1 else COST * 2 / 3
  columns = [(values_A, weight) for values_A in free]
  if score_A is not None:
    columns.append((score_A, SCORE))
  if density_A is not None:
    columns.append((density_A, 0.0))
  ranks = [gaussian_rank(values_A) for values_A, _ in columns]
  return Known(
    np.array(ranks).reshape(len(ranks), len(archs_AxE)).T,
    np.array([weight for _, weight in columns], float),
    space.one_hot(archs_AxE),
    space.codes(archs_AxE),
  )


def posterior(
  given: Known,
  trained_K: Int[np.ndarray, ' K'],
  accuracy_K: Float[np.ndarray, ' K'],
) -> Posterior:
  """Returns mean and standard deviation of every architecture's accuracy.

  Args:
    given: from `known`.
    trained_K: rows of those whose accuracies are known.
    accuracy_K: their accuracies when trained alone, fractions. Where all are
      alike, so are the means.
  """
  prior_A = given.ranks_AxF @ given.weight_F
  rest_K = gaussian_rank(accuracy_K) - prior_A[trained_K]
  evidence, means, variances = [], [], []
  for covariance, variance_A, noise in _processes(given, trained_K):
    factor = np.linalg.cholesky(
      covariance[trained_K] + noise * np.eye(len(trained_K))
    )
    whitened_K = np.linalg.solve(factor, rest_K)
    gain_KxA = np.linalg.solve(factor, covariance.T)
    evidence.append(
      -whitened_K @ whitened_K / 2 - np.log(np.diag(factor)).sum()
    )
    means.append(prior_A + whitened_K @ gain_KxA)
    variances.append(variance_A - (gain_KxA**2).sum(axis=0) + noise)
  weight_M = np.exp(np.array(evidence) - max(evidence))
  weight_M /= weight_M.sum()
  mean_A = weight_M @ np.array(means)
  # The spread of a mixture is that within its members and that of their means.
  second_A = weight_M @ (np.array(variances) + np.array(means) ** 2)
  std_A = np.sqrt(np.maximum(second_A - mean_A**2, 0))
  accuracy = _of_rank(accuracy_K)
  return Posterior(
    accuracy(mean_A), (accuracy(mean_A + std_A) - accuracy(mean_A - std_A)) / 2
  )


def _of_rank(
  accuracy_K: Float[np.ndarray, ' K'],
) -> Callable[[Float[np.ndarray, ' A']], Float[np.ndarray, ' A']]:
  """Returns the function from Gaussian ranks among some to accuracies.

  It is linear between two of them, and goes on as between the outer ones.
  """
  rank_D, first_D = np.unique(gaussian_rank(accuracy_K), return_index=True)
  known_D = accuracy_K[first_D]
  if len(known_D) == 1:
    return lambda rank_A: np.full(rank_A.shape, known_D[0])
  below, above = (
    (known_D[end + 1] - known_D[end]) / (rank_D[end + 1] - rank_D[end])
    for end in (0, -2)
  )

  def accuracy(rank_A):
    inside_A = np.interp(rank_A, rank_D, known_D)
    return (
      inside_A
      + below * np.minimum(rank_A - rank_D[0], 0)
      + above * np.maximum(rank_A - rank_D[-1], 0)
    )

  return accuracy


def left_out(
  given: Known,
  trained_K: Int[np.ndarray, ' K'],
  accuracy_K: Float[np.ndarray, ' K'],
) -> Float[np.ndarray, ' K']:
  """Predicts each known accuracy from the others."""
  out_K = np.empty(len(trained_K))
  for k in range(len(trained_K)):
    others = np.arange(len(trained_K)) != k
    found = posterior(given, trained_K[others], accuracy_K[others])
    out_K[k] = found.mean_A[trained_K[k]]
  return out_K


def by_quantiles(
  order_A: Float[np.ndarray, ' A'],
  count: int,
  trained_K: Int[np.ndarray, ' K'],
) -> Int[np.ndarray, ' N']:
  """Chooses architectures to train, spread evenly over the whole ranking.

  Args:
    order_A: any score; the middle of each of `count` equal parts is taken.
    count: how many.
    trained_K: rows that are not chosen again.
  """
  left_A = np.setdiff1d(np.arange(len(order_A)), trained_K)
  ranked_A = left_A[np.argsort(-order_A[left_A], kind='stable')]
  count = min(count, len(ranked_A))
  middle_N = (np.arange(count) + 0.5) * len(ranked_A) / max(count, 1)
  return ranked_A[middle_N.astype(int)]


def by_improvement(
  found: Posterior,
  count: int,
  trained_K: Int[np.ndarray, ' K'],
  best: float,
) -> Int[np.ndarray, ' N']:
  """Chooses architectures by their expected improvement over the best known."""
  std_A = np.maximum(found.std_A, 1e-12)
  z_A = (found.mean_A - best) / std_A
  gain_A = std_A * (z_A * scipy.stats.norm.cdf(z_A) + scipy.stats.norm.pdf(z_A))
  gain_A[trained_K] = -np.inf
  count = min(count, len(gain_A) - len(trained_K))
  return np.argsort(-gain_A, kind='stable')[:count]


def agreement(
  predicted_K: Float[np.ndarray, ' K'],
  accuracy_K: Float[np.ndarray, ' K'],
  rng: np.random.Generator,
) -> dict[str, object]:
  """Says how well predictions order accuracies, ready for JSON."""
  interval = correlation.bootstrap(
    correlation.kendall, predicted_K, accuracy_K, rng
  )
  return {
    'n': len(accuracy_K),
    'kendall': correlation.kendall(predicted_K, accuracy_K),
    'kendall_interval': None if interval is None else [*interval],
    'spearman': correlation.spearman(predicted_K, accuracy_K),
  }


def _processes(
  given: Known, trained_K: Int[np.ndarray, ' K']
) -> Iterator[tuple[Float[np.ndarray, 'A K'], Float[np.ndarray, ' A'], float]]:
  """Yields covariances with the trained, own variances, and noise."""
  ranks_AxF = given.ranks_AxF
  base_AxK = (
    LEVEL_VARIANCE + WEIGHT_VARIANCE * ranks_AxF @ ranks_AxF[trained_K].T
  )
  base_A = LEVEL_VARIANCE + WEIGHT_VARIANCE * (ranks_AxF**2).sum(axis=1)
  for length in LENGTHS:
    alike = _alike(given, length)
    of_rest_AxK = alike(trained_K)
    for variance, noise in itertools.product(VARIANCES, NOISES):
      yield (
        base_AxK + variance * of_rest_AxK,
        # Both kinds have about variance 1 in themselves.
        base_A + variance,
        noise,
      )


def _alike(
  given: Known, length: float | None
) -> Callable[[Int[np.ndarray, ' K']], Float[np.ndarray, 'A K']]:
  """Returns a function to the covariances with some architectures."""
  if length is None:
    # Every architecture has as many ones.
    ones = given.ops_AxO[0].sum()
    return lambda rows_K: given.ops_AxO @ given.ops_AxO[rows_K].T / ones
  codes_AxC = given.codes_AxC

  def smooth(rows_K):
    different_AxK = sum(
      code_A[:, None] != code_A[rows_K] for code_A in codes_AxC.T
    )
    return np.exp(-different_AxK / (2 * length**2))

  return smooth
