"""Rankings over the length of training, averaged over seeds.

A point is a kind of training after so many epochs: the scores that the
supernets of all its seeds give to the same architectures.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxnas import spaces
from jaxnas.experiment import build
from jaxnas.reproduce import over_seeds, paired, store
from jaxnas.reproduce.item import Finished
from jaxnas.reproduce.jobs import Job
from jaxnas.reproduce.over_seeds import Estimate
from jaxnas.runtime import rng
from jaxnas.truth import correlation, top

# Taus among the truly best so many.
BEST = (10, 18)


class Point(NamedTuple):
  """Scores that the supernets of one training give after so many epochs."""

  names: tuple[str, ...]
  """Words of the row."""
  epochs: int
  scores: Mapping[int, Float[np.ndarray, ' A']]
  """Accuracies in the supernet, by seed."""
  alphas: Mapping[int, Float[np.ndarray, ' A']]
  """Densities when debiasing begins, by seed, those of a run's debiased
  partner included: both share their warm-up."""
  truth_A: Float[np.ndarray, ' A']


class Statistics(NamedTuple):
  """Agreement of a point with the truth, the mean over its seeds."""

  tau: Estimate
  difference: Estimate | None
  """The gain in tau over the uniform runs of the same seeds."""
  best: tuple[Estimate, ...]
  """Taus among the truly best, as many as `BEST` says."""
  of_mean: float | None
  """Tau of the mean score of all seeds, which has the bias of a training
  without the noise of a seed."""
  follows: Estimate
  """Spearman's rho of score and density."""
  density_truth: Estimate
  """Spearman's rho of density and truth."""


def points(finished: Finished, *, along: bool) -> list[Point]:
  """Returns the points of finished runs, in the order of their rows.

  Args:
    finished: runs of an item.
    along: a point for each epoch after which the runs reported a ranking;
      without it, one for their end.

  Raises ValueError where arrays of a result are missing.
  """
  results, out = finished.results, []
  alphas = _alphas(finished)
  for names, of_row in itertools.groupby(
    finished.jobs, key=lambda job: job.row.names
  ):
    jobs = [job for job in of_row if results[job.key]['hits'] is not None]
    truth_A = paired.truth_of(jobs[0], finished.tables) if jobs else None
    if truth_A is None:
      continue
    scores: dict[int, dict[int, np.ndarray]] = {}
    for job in jobs:
      of_epochs = (
        scores_along(job, results[job.key])
        if along
        else _end(job, results[job.key])
      )
      for epoch, score_A in of_epochs.items():
        scores.setdefault(epoch, {})[job.config.seed] = score_A
    of_row_alphas = alphas.get(_alike(jobs[0]), {})
    out += [
      Point(names, epoch, of_seeds, of_row_alphas, truth_A)
      for epoch, of_seeds in sorted(scores.items())
    ]
  return out


def _end(job: Job, result: store.Result) -> dict[int, np.ndarray]:
  return {job.config.total_epochs: np.array(result['hits'], float)}


def scores_along(job: Job, result: store.Result) -> dict[int, np.ndarray]:
  """Reads the scores along a run, in the order of its ranking."""
  kept, space = store.read_arrays(result), spaces.get(job.config.space)
  logged = {space.format(a): s for s, a in enumerate(kept['archs_SxE'])}
  order = [
    logged[space.format(a)] for a in build.ranking_archs(job.config, space)
  ]
  return {
    int(epoch): accuracy_S[order]
    for epoch, accuracy_S in zip(
      kept['epoch_L'], kept['accuracy_LxS'], strict=True
    )
  }


def _alphas(finished: Finished) -> dict[str, dict[int, np.ndarray]]:
  """Reads the densities of debiased runs, by what their partners share."""
  out: dict[str, dict[int, np.ndarray]] = {}
  for job in filter(paired.debiases, finished.jobs):
    kept = store.read_arrays(finished.results[job.key])
    if 'alpha_A' in kept:
      of_seeds = out.setdefault(_alike(job), {})
      of_seeds.setdefault(job.config.seed, kept['alpha_A'])
  return out


def _alike(job: Job) -> str:
  """Returns a key that runs share which differ in seed and debiasing alone."""
  return paired.plain(dataclasses.replace(job.config, seed=0))


def statistics(point: Point, uniform: Point | None) -> Statistics:
  """Computes how a point agrees with the truth, and with the density.

  Args:
    point: the scores of one training.
    uniform: those of uniform training, of the same length.
  """
  seeds, truth_A = sorted(point.scores), point.truth_A
  archs, draws = len(truth_A), rng.generator(0, 'curves', point.epochs)

  def averaged(statistic, names=seeds, resamples=0):
    return over_seeds.estimate(
      lambda s, chosen_A: statistic(names[s], chosen_A),
      len(names),
      archs,
      draws,
      resamples,
    )

  def against_truth(statistic):
    return lambda seed, chosen_A: statistic(
      point.scores[seed][chosen_A], truth_A[chosen_A]
    )

  shared = [seed for seed in seeds if uniform and seed in uniform.scores]
  known = [seed for seed in seeds if seed in point.alphas]
  return Statistics(
    tau=averaged(
      against_truth(correlation.kendall), resamples=over_seeds.RESAMPLES
    ),
    difference=over_seeds.estimate(
      over_seeds.difference(
        correlation.kendall,
        [(point.scores[s], uniform.scores[s]) for s in shared],
        truth_A,
      ),
      len(shared),
      archs,
      draws,
      over_seeds.RESAMPLES,
    )
    if uniform is not None
    else None,
    best=tuple(
      averaged(
        against_truth(
          lambda score_A, true_A, count=count: top.kendall_of_best(
            count, score_A, true_A
          )
        )
      )
      for count in BEST
    ),
    of_mean=correlation.kendall(
      np.mean([point.scores[seed] for seed in seeds], axis=0), truth_A
    ),
    follows=averaged(
      lambda seed, _: correlation.spearman(
        point.scores[seed], point.alphas[seed]
      ),
      known,
    ),
    density_truth=averaged(
      lambda seed, _: correlation.spearman(point.alphas[seed], truth_A), known
    ),
  )
