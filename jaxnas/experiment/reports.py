"""Rankings are held to the truth: along a run, and at its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import truth
from jaxnas.experiment import (
  averages,
  made_of,
  npz_log,
  predictions,
  ranking,
  schedule,
)
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files
from jaxnas.runtime.rng import generator
from jaxnas.training.step import TrainState
from jaxnas.truth import agreement, combine, correlation

# The accuracies of the architectures that are ranked along a run.
LOG = 'ranking_log.npz'

# Resamples of an interval along a run; the last ranking has five times more.
RESAMPLES = 200


def report(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  table: truth.Table | None,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
  """Ranks some architectures, where that is due, and adds them to the log.

  The architectures are the same along a run; ranking_log.npz has their
  accuracies. Returns a row of metrics, which is empty where nothing is due
  after this many epochs, and holds them to the truth where there is a table.
  """
  config = experiment.config
  if not schedule.reports_ranking(config, epoch):
    return {}
  archs_AxE = reported(experiment, table)
  accuracy_A = ranking.accuracies(
    experiment,
    averages.along(experiment, state),
    archs_AxE,
    label='reporting',
    poll=poll,
  )
  npz_log.append(
    workdir / LOG,
    epoch,
    {'accuracy_LxA': accuracy_A},
    {'archs_AxE': archs_AxE},
    {'config': experiment.run_digest},
  )
  row = {'epoch': float(epoch), 'mean_accuracy': float(accuracy_A.mean())}
  if table is None:
    return row
  truth_A = table.accuracy(archs_AxE)
  low, high = correlation.bootstrap(
    correlation.kendall,
    accuracy_A,
    truth_A,
    generator(config.seed, 'report intervals', epoch),
    RESAMPLES,
  ) or (None, None)
  row |= {
    'kendall': correlation.kendall(accuracy_A, truth_A),
    'kendall_low': low,
    'kendall_high': high,
    'spearman': correlation.spearman(accuracy_A, truth_A),
  }
  # Undefined where all accuracies are alike.
  return {name: value for name, value in row.items() if value is not None}


def reported(
  experiment: Experiment, table: truth.Table | None
) -> Int[np.ndarray, 'A E']:
  """Returns the architectures of the reports along a run.

  Where the table has not all, they are the first of those ranked at the end.
  """
  config, space = experiment.config, experiment.space
  if table is not None and not table.whole:
    return experiment.ranking_archs_AxE[: config.ranking.sample]
  count = min(config.ranking.sample, space.size)
  return space.subset(generator(config.split_seed, 'reports'), count)


def summarize(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None,
  **metadata: Any,
) -> dict[str, Any]:
  """Writes correlation.json from predictions.npz, and returns its content.

  The file also says what both were made of.

  Args:
    experiment: which was ranked.
    workdir: the folder of both files.
    table: ground truth, where there is one.
    metadata: is added to the content.
  """
  predicted = predictions.read(
    workdir / 'predictions.npz',
    experiment.space,
    {'config': experiment.run_digest, **made_of.settings(experiment)},
  )
  space, config = experiment.space, experiment.config
  scored = combine.Scores(
    predicted.archs_AxE, predicted.accuracy_A, predicted.half_HxA
  )
  summary = {
    **ranking.settings(experiment),
    'skipped_images': predicted.skipped_images,
    **metadata,
    **agreement.correlate(
      space,
      predicted.archs_AxE,
      predicted.accuracy_A,
      table,
      generator(config.seed, 'bootstrap'),
    ),
  }
  if config.ranking.steps:
    summary['combined'] = agreement.combined(
      space,
      combine.combine(space, scored, config.ranking.steps),
      table,
      generator(config.seed, 'combined'),
    )
  files.write_result(workdir / 'correlation.json', summary, predicted.facts)
  return summary
