"""What debiasing changes: runs in pairs that differ in nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import correlation, spaces, tables
from jaxnas.compare_flags import DEBIAS
from jaxnas.reproduce import store
from jaxnas.reproduce.jobs import Job

RESAMPLES = 300


def differences(
  jobs: Sequence[Job],
  results: Mapping[str, store.Result],
  files: Mapping[str, Path | None],
) -> list[dict[str, Any]]:
  """Of Kendall's tau, debiased less not, with 95% over the same resamples.

  Of two runs that differ in nothing else, where both predictions are kept.
  """
  out = []
  for job in jobs:
    result = results.get(job.key)
    if not job.row.sampler.endswith(DEBIAS) or result is None:
      continue
    plain = [
      results[other.key]
      for other in jobs
      if other.row.sampler + DEBIAS == job.row.sampler
      and other.config.space == job.config.space
      and other.config.seed == job.config.seed
      and other.key in results
    ]
    truth_A = truth(job, files)
    if (
      not plain or truth_A is None or None in (plain[0]['hits'], result['hits'])
    ):
      continue
    ours_A, theirs_A = (np.array(r['hits']) for r in (result, plain[0]))
    if not len(ours_A) == len(theirs_A) == len(truth_A):
      continue

    def difference(chosen_A, truth_A, ours_A=ours_A, theirs_A=theirs_A):
      taus = [
        correlation.kendall(hits_A[chosen_A], truth_A)
        for hits_A in (ours_A, theirs_A)
      ]
      ours, theirs = taus
      return None if ours is None or theirs is None else ours - theirs

    every_A = np.arange(len(truth_A))
    out.append(
      {
        'names': [*job.row.names],
        'seed': job.config.seed,
        'kendall': difference(every_A, truth_A),
        'interval': correlation.bootstrap(
          difference,
          every_A,
          truth_A,
          np.random.default_rng(job.config.seed),
          RESAMPLES,
        ),
      }
    )
  return out


def truth(job: Job, files: Mapping[str, Path | None]) -> np.ndarray | None:
  """True accuracies of what a run ranked; None where no table says them."""
  from jaxnas import build

  space, file = spaces.get(job.config.space), files.get(job.config.space)
  if file is None and not tables.shipped(space, job.config.data.name):
    return None
  table = tables.load(space, file, job.config.data.name)
  return table.accuracy(build.ranking_archs(job.config, space))
