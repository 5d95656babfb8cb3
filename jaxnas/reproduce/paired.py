"""Compares runs in pairs that differ in nothing but debiasing."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import spaces, truth
from jaxnas.config import Config, Density
from jaxnas.experiment import build
from jaxnas.experiment.comparison import DEBIAS
from jaxnas.reproduce import over_seeds, store
from jaxnas.reproduce.jobs import Job, key
from jaxnas.runtime import rng
from jaxnas.truth import correlation


def differences(
  jobs: Sequence[Job],
  results: Mapping[str, store.Result],
  files: Mapping[str, Path | None],
) -> list[dict[str, Any]]:
  """Averages, for each row, Kendall's tau debiased less undebiased.

  The two runs of a pair differ in nothing else and share their seed. Runs whose
  predictions are not kept, and rows without a pair, are left out.
  """
  kept = [
    job
    for job in jobs
    if job.key in results and results[job.key]['hits'] is not None
  ]
  partners = {plain(job.config): job for job in kept if not debiases(job)}
  pairs: dict[tuple[str, ...], list[tuple[Job, Job]]] = {}
  for job in kept:
    partner = partners.get(plain(job.config))
    if debiases(job) and partner is not None:
      pairs.setdefault(job.row.names, []).append((job, partner))
  out = []
  for names, of_row in pairs.items():
    truth_A = truth_of(of_row[0][0], files)
    if truth_A is None:
      continue
    hits_SxPxA = [
      [np.array(results[job.key]['hits']) for job in pair] for pair in of_row
    ]
    found = over_seeds.estimate(
      over_seeds.difference(correlation.kendall, hits_SxPxA, truth_A),
      len(of_row),
      len(truth_A),
      rng.generator(of_row[0][0].config.seed, 'paired differences'),
      over_seeds.RESAMPLES,
    )
    out.append(
      {
        'names': [*names],
        'seeds': [job.config.seed for job, _ in of_row],
        **found._asdict(),
      }
    )
  return out


def debiases(job: Job) -> bool:
  """Returns True if the row of a job is debiased."""
  return job.row.sampler.endswith(DEBIAS)


def plain(config: Config) -> str:
  """Returns a key that a run shares with its undebiased partner."""
  return key(dataclasses.replace(config.undebiased(), density=Density()))


def truth_of(job: Job, files: Mapping[str, Path | None]) -> np.ndarray | None:
  """True accuracies of the architectures that a run ranked; None if unknown."""
  space, file = spaces.get(job.config.space), files.get(job.config.space)
  if file is None and not truth.shipped(space, job.config.data.name):
    return None
  table = truth.load(space, file, job.config.data.name)
  return table.accuracy(build.ranking_archs(job.config, space))
