"""diagnosis.json: whether debiasing can be expected to help a run.

It is written after the warm-up, from a sample of architectures, at the end from
those that are ranked, and again when the undebiased twin is over.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import density, truth
from jaxnas.config import digest, run_files
from jaxnas.experiment import predictions, ranking, updates
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files, jsonl, kinds, processes
from jaxnas.runtime.rng import generator
from jaxnas.training.step import TrainState
from jaxnas.truth import diagnosis

FILE = 'diagnosis.json'

# The most architectures and images of the one after the warm-up.
ARCHS, IMAGES = 100, 500


def after_warm_up(
  experiment: Experiment,
  state: TrainState,
  workdir: Path,
  table: truth.Table | None,
  poll: Callable[[], None] = lambda: None,
) -> None:
  """Evaluates a sample of architectures, and says what debiasing can expect.

  Nothing is done where the run has it already, or knows no densities.
  """
  if processes.agreed('warm_up' in read(workdir, experiment.run_digest)):
    return
  space, seed = experiment.space, experiment.config.seed
  if not (space.enumerable and processes.agreed(_has_density(workdir))):
    return
  count = min(ARCHS, space.size)
  archs_AxE = space.subset(generator(seed, 'diagnosis'), count)
  split = experiment.held_out.ranking
  few = dataclasses.replace(split, count=min(IMAGES, split.count))
  right_AxI = ranking.right(
    experiment, state, archs_AxE, split=few, label='diagnosing', poll=poll
  )
  _keep(
    experiment,
    workdir,
    'warm_up',
    archs_AxE,
    predictions.halves(right_AxI),
    table,
  )


def at_end(
  experiment: Experiment, workdir: Path, table: truth.Table | None
) -> None:
  """Diagnoses the architectures that a run has ranked."""
  if not (experiment.space.enumerable and _has_density(workdir)):
    return
  predicted = predictions.read(
    workdir / 'predictions.npz',
    experiment.space,
    {'config': experiment.run_digest},
  )
  _keep(
    experiment,
    workdir,
    'end',
    predicted.archs_AxE,
    predicted.half_HxA,
    table,
  )


def of_twins(experiment: Experiment, workdir: Path, twin: Path) -> None:
  """Adds how accuracies changed with effective updates, by debiasing.

  Args:
    experiment: the debiased one.
    workdir: its folder.
    twin: the folder of the undebiased one.
  """
  file = workdir / updates.FILE
  if not file.exists():
    return
  space, of = experiment.space, experiment.run_digest
  arrays, _ = files.read_arrays(file, run_files.UPDATES, {'config': of})
  change_A = updates.change(experiment.config, arrays)
  ours, theirs = (
    predictions.read(folder / 'predictions.npz', space, {'config': made_by})
    for folder, made_by in (
      (workdir, of),
      (twin, digest(experiment.config.undebiased())),
    )
  )
  found = diagnosis.intervention(
    ours.accuracy_A - theirs.accuracy_A,
    change_A[space.index(ours.archs_AxE)],
    generator(experiment.config.seed, 'intervention'),
  )
  if found is None:
    return
  _write(workdir, of, {'intervention': found})
  print(f'{workdir}: {describe(found)}')


def describe(found: dict[str, Any]) -> str:
  """Writes the effect of debiasing on accuracies as a sentence."""
  low, high = found['slope_interval'] or (np.nan, np.nan)
  return (
    f'debiasing moved accuracies by {100 * found["slope"]:.3g} points for one '
    'more effective update a step '
    f'[{100 * low:.3g}, {100 * high:.3g}], R^2 {found["r2"]:.2f}'
  )


def read(workdir: Path, of: str) -> dict[str, Any]:
  """Returns the diagnosis so far; nothing where there is none."""
  file = workdir / FILE
  if not file.exists():
    return {}
  return files.read_result(file, run_files.DIAGNOSIS, {'config': of})


def _keep(
  experiment: Experiment,
  workdir: Path,
  when: str,
  archs_AxE: Int[np.ndarray, 'A E'],
  half_HxA: Float[np.ndarray, 'H A'],
  table: truth.Table | None,
) -> None:
  """Writes and prints what these scores say."""
  if not processes.first():
    return
  of, space = experiment.run_digest, experiment.space
  found, _ = density.read_file(workdir / 'density.npz', {'config': of})
  alpha_A = space.looked_up(found.archs_AxE, found.alpha_A, archs_AxE)
  truth_A = None if table is None else table.known(archs_AxE)
  if truth_A is not None and np.isnan(truth_A).any():
    truth_A = None
  said = diagnosis.of_scores(half_HxA, alpha_A, _losses(workdir, of), truth_A)
  _write(workdir, of, {when: said})
  print(f'{workdir}: {said["says"]}')


def _write(workdir: Path, of: str, more: dict[str, Any]) -> None:
  files.write_result(workdir / FILE, read(workdir, of) | more, {'config': of})


def _losses(workdir: Path, of: str) -> Float[np.ndarray, ' L']:
  """Returns the mean losses of training so far, in their order."""
  kind = {'step': int, 'loss?': kinds.NUMBER}
  rows = jsonl.read_rows(workdir / 'metrics.jsonl', kind, of)
  return np.array([row['loss'] for row in rows if 'loss' in row], float)


def _has_density(workdir: Path) -> bool:
  return (workdir / 'density.npz').exists()
