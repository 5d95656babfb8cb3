"""Averages within one run, against the noise of its last weights.

Snapshots are checkpoints that a run keeps because its config names them, or
that it happens to have kept. Statistics of normalisation are those of a batch,
recalibrated, or averaged as the weights are.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import devices
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import TrainState


def states(
  experiment: Experiment, state: TrainState, run: Path
) -> list[TrainState]:
  """Returns the states whose mean score ranks, as `ranking.average` says.

  Args:
    experiment: says which, and how long it trained.
    state: the end of its training.
    run: the run directory with its checkpoints.

  Raises ValueError where the run has no such checkpoint, or Damaged.
  """
  chosen = experiment.config.ranking.average
  if chosen == 'weights':
    return [mean(snapshots(experiment, state, run))]
  if chosen == 'scores':
    return snapshots(experiment, state, run)
  return [along(experiment, state)]


def along(experiment: Experiment, state: TrainState) -> TrainState:
  """Returns the state that ranks on the way, before there are snapshots."""
  if experiment.config.ranking.average != 'ema':
    return state
  return _with(state, state.average)


def mean(states: Sequence[TrainState]) -> TrainState:
  """Returns the last state with the mean of all weights and statistics."""
  count = len(states)
  averaged = jax.tree.map(
    lambda *leaves: sum(leaf / count for leaf in leaves),
    *({'params': one.params, **one.statistics} for one in states),
  )
  return _with(states[-1], averaged)


def snapshots(
  experiment: Experiment, state: TrainState, run: Path
) -> list[TrainState]:
  """Reads the snapshots of a run, the oldest first.

  Raises ValueError where one is not there, and Damaged where one is damaged.
  """
  steps_per_epoch = experiment.training.steps_per_epoch
  found = []
  with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
    kept = checkpoints.steps()
    for epoch in experiment.config.snapshot_epochs:
      if (step := epoch * steps_per_epoch) not in kept:
        epochs = [s // steps_per_epoch for s in kept if not s % steps_per_epoch]
        raise ValueError(
          f'{run} has no checkpoint after epoch {epoch}, but after '
          f'{", ".join(map(str, epochs))}: set ranking.snapshots and '
          'ranking.snapshot_epochs to such ones, or train with '
          f'ranking.average {experiment.config.ranking.average}.'
        )
      found.append(checkpoints.restore(step, state)[0])
  return found


def _with(state: TrainState, variables: Any) -> TrainState:
  """Returns the state with other weights and statistics."""
  statistics = dict(devices.put(variables, state.step.sharding))
  params = statistics.pop('params')
  return dataclasses.replace(
    state, params=params, statistics=statistics, average={}
  )
