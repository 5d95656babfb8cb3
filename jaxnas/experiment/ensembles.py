"""Several supernets of one run, whose mean score ranks better than one.

The noise of one supernet is the largest loss of a ranking. Members differ in
initialisation, draws and order of images, and share the division of images and
those that rank. Each is a run of its own in RUN/members, which resumes as any
other; RUN itself is the first.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxnas import truth
from jaxnas.config import Config, digest
from jaxnas.experiment import (
  build,
  contents,
  datasets,
  predictions,
  ranking,
  run,
  trained,
)
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files, processes
from jaxnas.runtime.preemption import Preemption
from jaxnas.runtime.rng import child_seed, generator
from jaxnas.truth import agreement, combine, correlation

FOLDER = 'members'

# Resamples of the interval over members and architectures.
RESAMPLES = 200


def member(config: Config, number: int) -> Config:
  """Returns the experiment of a member; the first, 0, is the run itself."""
  if not number:
    return dataclasses.replace(config, ensemble=1)
  return dataclasses.replace(
    config,
    seed=child_seed(config.seed, 'member', number),
    data=dataclasses.replace(config.data, split_seed=config.split_seed),
    ensemble=1,
  )


def folder(workdir: Path, number: int) -> Path:
  """Returns the run directory of a member."""
  return workdir / FOLDER / str(number) if number else workdir


def train(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None,
  preemption: Preemption,
) -> dict[str, Any]:
  """Trains the members that are missing, and ranks by the mean of all.

  Args:
    experiment: the run's, which is over.
    workdir: its directory.
    table: ground truth, where there is one.
    preemption: an active one; signals end the work by Stopped.

  Returns the content of ensemble.json; nothing in processes but the first.
  """
  config, predicted = experiment.config, []
  loaded = datasets.load(config.data)
  for number in range(config.ensemble):
    given, where = member(config, number), folder(workdir, number)
    if number:
      built = build.experiment(given, loaded)
      opened = processes.by_first(
        lambda built=built, where=where: str(
          contents.open_run(where, built.config, built.images, resume=True)
        )
      )
      run.train(
        built, Path(opened), table, preemption=preemption, group=workdir
      )
    if processes.first():
      predicted.append(
        predictions.read(
          where / 'predictions.npz',
          experiment.space,
          {'config': digest(given)},
        )
      )
  return _summarize(experiment, workdir, table, predicted) if predicted else {}


def _summarize(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None,
  predicted: Sequence[predictions.Predictions],
) -> dict[str, Any]:
  """Writes ensemble.json, and says how far members are apart."""
  config, space = experiment.config, experiment.space
  archs_AxE = predicted[0].archs_AxE
  score_MxA = np.stack([one.accuracy_A for one in predicted])
  mean = combine.Scores(
    archs_AxE,
    score_MxA.mean(axis=0),
    np.mean([one.half_HxA for one in predicted], axis=0),
  )
  rng = generator(config.seed, 'ensemble')
  summary: dict[str, Any] = {
    **ranking.settings(experiment),
    **agreement.correlate(space, archs_AxE, mean.score_A, table, rng),
    'members': len(predicted),
  }
  if table is not None:
    truth_A = table.accuracy(archs_AxE)
    taus = [correlation.kendall(score_A, truth_A) for score_A in score_MxA]
    summary |= {
      'member_kendall': taus,
      'kendall_interval': interval(score_MxA, truth_A, rng),
    }
    print(
      f'{workdir}: tau of single members: '
      + ', '.join('-' if tau is None else f'{tau:.3f}' for tau in taus)
    )
  if config.ranking.steps:
    summary['combined'] = agreement.combined(
      space, combine.combine(space, mean, config.ranking.steps), table, rng
    )
  files.write_result(
    workdir / trained.ENSEMBLE, summary, {'config': experiment.run_digest}
  )
  return summary


def interval(
  score_MxA: Float[np.ndarray, 'M A'],
  truth_A: Float[np.ndarray, ' A'],
  rng: np.random.Generator,
) -> list[float] | None:
  """95% interval of the mean score's tau, over members and architectures.

  None where it is undefined in every resample.
  """
  count = len(score_MxA)

  def tau(score_AxM, truth_A):
    some_AxM = score_AxM[:, rng.integers(count, size=count)]
    return correlation.kendall(some_AxM.mean(axis=1), truth_A)

  found = correlation.bootstrap(tau, score_MxA.T, truth_A, rng, RESAMPLES)
  return None if found is None else [*found]
