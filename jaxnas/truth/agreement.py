"""Says how well predicted accuracies agree with the truth, ready for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from jaxnas.spaces import Space
from jaxnas.truth import correlation, top
from jaxnas.truth.combine import Scores
from jaxnas.truth.table import Table


def correlate(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  accuracy_A: Float[np.ndarray, ' A'],
  table: Table | None,
  rng: np.random.Generator,
) -> dict[str, Any]:
  """Says how well supernet accuracies order architectures, ready for JSON.

  Without a table only the architecture chosen is known: the first of the `tied`
  that are best, whose mean is its true accuracy. Where strings of the space are
  the same network, `canonical` repeats the figures with one string for each.
  """
  tied_T = top.tied(accuracy_A)
  best = int(tied_T[0])
  out: dict[str, Any] = {
    'n': len(archs_AxE),
    'best_arch': space.format(archs_AxE[best]),
    'best_arch_accuracy': float(accuracy_A[best]),
    'tied': len(tied_T),
  }
  if table is None:
    return out
  truth_A = table.accuracy(archs_AxE)
  out |= {
    'best_arch_true_accuracy': float(truth_A[tied_T].mean()),
    'best_true_accuracy': float(truth_A.max()),
    **summarize(accuracy_A, truth_A, space.baselines(archs_AxE), rng),
  }
  _, first_D = np.unique(space.canonical(archs_AxE), axis=0, return_index=True)
  if 2 <= len(first_D) < len(archs_AxE):
    distinct = accuracy_A[first_D], truth_A[first_D]
    out['canonical'] = {
      'n': len(first_D),
      'kendall': correlation.kendall(*distinct),
      'spearman': correlation.spearman(*distinct),
    }
  return out


def combined(
  space: Space,
  steps: Sequence[Scores],
  table: Table | None,
  rng: np.random.Generator,
) -> list[dict[str, Any]]:
  """Says of the scores after each step how well they order, ready for JSON.

  Args:
    space: of the architectures.
    steps: scores by accuracies alone, then after each step.
    table: ground truth, where there is one; of a ranking that was extended to
      the whole space, those of its architectures count that the table has.
    rng: for the bootstrap.

  Returns an object for each step. `gain_interval` is the 95% interval, over
  architectures, of the tau after it less that of accuracies alone.
  """
  raw, out = steps[0], []
  for scores in steps[1:]:
    tied_T = top.tied(scores.score_A)
    found: dict[str, Any] = {
      'uses': [*scores.uses],
      'note': scores.note,
      'n': len(scores.archs_AxE),
      'best_arch': space.format(scores.archs_AxE[tied_T[0]]),
      'tied': len(tied_T),
    }
    if table is not None:
      found |= _agrees(scores, table.known(scores.archs_AxE), rng)
      if len(scores.archs_AxE) == len(raw.archs_AxE):
        found['gain_interval'] = correlation.gain(
          scores.score_A, raw.score_A, table.known(raw.archs_AxE), rng
        )
    out.append(found)
  return out


def _agrees(
  scores: Scores, truth_A: Float[np.ndarray, ' A'], rng: np.random.Generator
) -> dict[str, Any]:
  """Holds scores to the truth, where that is known."""
  score_K, truth_K = (
    values_A[~np.isnan(truth_A)] for values_A in (scores.score_A, truth_A)
  )
  tied = truth_A[top.tied(scores.score_A)]
  return {
    'kendall': correlation.kendall(score_K, truth_K),
    'kendall_interval': correlation.bootstrap(
      correlation.kendall, score_K, truth_K, rng
    ),
    'spearman': correlation.spearman(score_K, truth_K),
    'top_kendall': top.top_kendall(score_K, truth_K),
    'best_arch_true_accuracy': None
    if np.isnan(tied).any()
    else float(tied.mean()),
  }


def summarize(
  predicted_A: Float[np.ndarray, ' A'],
  truth_A: Float[np.ndarray, ' A'],
  baselines: Mapping[str, Num[np.ndarray, ' A']],
  rng: np.random.Generator,
) -> dict[str, Any]:
  """Computes every statistic, ready for JSON; undefined ones are None.

  Args:
    predicted_A: accuracies under the supernet.
    truth_A: accuracies of the architectures trained alone.
    baselines: scores that need no training, also correlated with the truth.
    rng: for the bootstrap.
  """
  subset = [k for k in (1, 5, 10, 50) if k <= len(truth_A)]
  return {
    'kendall': correlation.kendall(predicted_A, truth_A),
    'kendall_interval': correlation.bootstrap(
      correlation.kendall, predicted_A, truth_A, rng
    ),
    'spearman': correlation.spearman(predicted_A, truth_A),
    'spearman_interval': correlation.bootstrap(
      correlation.spearman, predicted_A, truth_A, rng
    ),
    'top_kendall': top.top_kendall(predicted_A, truth_A),
    'precision_at': {
      str(k): top.precision_at(k, predicted_A, truth_A) for k in subset
    },
    'best_rank_at': {
      str(k): top.best_rank_at(k, predicted_A, truth_A) for k in subset
    },
    'baselines': {
      name: {
        'kendall': correlation.kendall(value_A, truth_A),
        'spearman': correlation.spearman(value_A, truth_A),
      }
      for name, value_A in baselines.items()
    },
  }
