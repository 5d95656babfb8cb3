"""Better rankings from the accuracies of one supernet, without any label.

A combination is a few steps, each from scores to scores, in the order in which
`ranking.combine` names them: `canonical,additive,log_macs`. Accuracies under
shared weights are noisy, and favour small architectures: the first two steps
average over what should be alike, and the last four add a cost that every
architecture has for free. None of them is in the paper.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

from jaxnas.config.registry import COMBINATIONS
from jaxnas.spaces import Space

# Weight of the squares of an additive fit, in architectures.
RIDGE = 0.1

# Parts of a sample of which each is predicted from the others.
FOLDS = 10

# Gaussian ranks of a cost count half as much as those of the accuracy.
WEIGHT = 0.5


class Scores(NamedTuple):
  """Scores of architectures, and how they came about."""

  archs_AxE: Int[np.ndarray, 'A E']
  score_A: Float[np.ndarray, ' A']
  """Fractions at first, and ranks after a step that adds a cost."""
  half_HxA: Float[np.ndarray, 'H A']
  """Scores from each of two disjoint halves of the images."""
  uses: tuple[str, ...] = ()
  """The names of the steps so far."""
  note: str = ''
  """A sentence about what the last step found."""


def combine(space: Space, scores: Scores, names: Sequence[str]) -> list[Scores]:
  """Returns the scores as they are, and after each of the steps.

  Raises ValueError for a step that there is not, or not for this space.
  """
  out = [scores]
  for name in names:
    offered = {'space': space, 'scores': out[-1]}
    made: Scores = COMBINATIONS.make(name, offered)
    out.append(made._replace(uses=(*out[-1].uses, name)))
  return out


def canonical(space: Space, scores: Scores) -> Scores:
  """Gives architectures that are one network alone their mean score.

  Under shared weights they are different paths, with noise of their own.
  """
  _, form_A, count_D = np.unique(
    space.canonical(scores.archs_AxE),
    axis=0,
    return_inverse=True,
    return_counts=True,
  )
  form_A = form_A.reshape(-1)

  def mean(values_A):
    return (np.bincount(form_A, values_A) / count_D)[form_A]

  alike = int(count_D[count_D > 1].sum())
  return _with(scores, mean, f'{alike:,} architectures share a network')


def additive(space: Space, scores: Scores) -> Scores:
  """Replaces scores by the sum of what each op adds, where that predicts more.

  A sum has no noise of single architectures, and lacks what ops do to each
  other. The sum fitted on one half of the images is kept where it is nearer to
  the scores on the other half than the scores themselves are, both ways round.
  """
  summed, half_HxA = sums(space, scores), scores.half_HxA
  other_HxA = half_HxA[::-1]
  of_fit = float(((summed.half_HxA - other_HxA) ** 2).mean())
  of_raw = float(((half_HxA - other_HxA) ** 2).mean())
  if of_fit >= of_raw:
    return scores._replace(note='the sum predicts less, and is left out')
  return summed


def sums(space: Space, scores: Scores) -> Scores:
  """Replaces scores by the sum of what each op adds, in any case."""
  features_AxF = space.one_hot(scores.archs_AxE)

  def fit(values_A):
    return _ridge(features_AxF, values_A)(features_AxF)

  return _with(scores, fit, 'the sum predicts more, and is taken')


def extend(space: Space, scores: Scores) -> Scores:
  """Predicts the scores of the whole space from those of a sample.

  Each is the sum of what its ops add in the sample, also in the sample itself,
  so that all scores are comparable.

  Raises ValueError for a space that is too large to list.
  """
  archs_NxE = space.enumerate()
  features_AxF = space.one_hot(scores.archs_AxE)
  features_NxF = space.one_hot(archs_NxE)

  def predict(values_A):
    return _ridge(features_AxF, values_A)(features_NxF)

  rho = _out_of_sample(features_AxF, scores.score_A)
  note = f"Spearman's rho {rho:.2f} on those left out of the fit"
  return _with(scores, predict, note)._replace(archs_AxE=archs_NxE)


def macs(space: Space, scores: Scores) -> Scores:
  """Adds half the Gaussian rank of the multiply-adds to that of the score."""
  return _gaussian(scores, space.costs(scores.archs_AxE).macs_A)


def params(space: Space, scores: Scores) -> Scores:
  """Adds half the Gaussian rank of the parameters to that of the score."""
  return _gaussian(scores, space.costs(scores.archs_AxE).params_A)


def log_macs(space: Space, scores: Scores) -> Scores:
  """Adds the logarithms of the ranks of multiply-adds and score."""
  return _logarithmic(scores, space.costs(scores.archs_AxE).macs_A)


def log_params(space: Space, scores: Scores) -> Scores:
  """Adds the logarithms of the ranks of parameters and score."""
  return _logarithmic(scores, space.costs(scores.archs_AxE).params_A)


def gaussian_rank(values_A: Num[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Returns the normal quantiles of ranks, those of ties at their mean."""
  ranks_A = scipy.stats.rankdata(values_A)
  return scipy.stats.norm.ppf((ranks_A - 0.375) / (len(ranks_A) + 0.25))


def _gaussian(scores: Scores, costs_A: Num[np.ndarray, ' A']) -> Scores:
  rank_A = WEIGHT * gaussian_rank(costs_A)
  return _with(scores, lambda values_A: gaussian_rank(values_A) + rank_A)


def _logarithmic(scores: Scores, costs_A: Num[np.ndarray, ' A']) -> Scores:
  log_A = np.log(scipy.stats.rankdata(costs_A))

  def fuse(values_A):
    return np.log(scipy.stats.rankdata(values_A)) + log_A

  return _with(scores, fuse)


def _with(
  scores: Scores, change: Callable[[np.ndarray], np.ndarray], note: str = ''
) -> Scores:
  """Changes the scores on all images and on each half alike."""
  return scores._replace(
    score_A=change(scores.score_A),
    half_HxA=np.stack([change(values_A) for values_A in scores.half_HxA]),
    note=note,
  )


def _ridge(
  features_AxF: Float[np.ndarray, 'A F'], values_A: Float[np.ndarray, ' A']
) -> Callable[[Float[np.ndarray, 'N F']], Float[np.ndarray, ' N']]:
  """Fits values by a sum over features about their mean."""
  mean = values_A.mean()
  square_FxF = features_AxF.T @ features_AxF
  square_FxF[np.diag_indices_from(square_FxF)] += RIDGE
  weight_F = np.linalg.solve(square_FxF, features_AxF.T @ (values_A - mean))
  return lambda features_NxF: mean + features_NxF @ weight_F


def _out_of_sample(
  features_AxF: Float[np.ndarray, 'A F'], values_A: Float[np.ndarray, ' A']
) -> float:
  """Returns Spearman's rho of values with those predicted from other folds."""
  fold_A = np.random.default_rng(0).permutation(len(values_A)) % FOLDS
  predicted_A = np.empty(len(values_A))
  for fold in np.unique(fold_A):
    out_A = fold_A == fold
    fitted = _ridge(features_AxF[~out_A], values_A[~out_A])
    predicted_A[out_A] = fitted(features_AxF[out_A])
  rho: Any = scipy.stats.spearmanr(predicted_A, values_A)
  return float(rho.statistic)
