"""Says what a result was made of: its file does, and is refused elsewhere."""

import dataclasses
from typing import Any

from jaxnas.config import Ranking
from jaxnas.experiment.parts import Experiment
from jaxnas.training import digests
from jaxnas.training.step import TrainState


def state_of(experiment: Experiment, state: TrainState) -> dict[str, Any]:
  """Returns the run and the state of its training, ready for JSON."""
  return {
    'config': experiment.run_digest,
    'step': int(state.step),
    'state': digests.of(state),
  }


def evaluation(experiment: Experiment, state: TrainState) -> dict[str, Any]:
  """Returns the same, and how architectures are evaluated."""
  return {**state_of(experiment, state), **settings(experiment)}


def settings(experiment: Experiment) -> dict[str, Any]:
  """Returns how architectures are evaluated.

  Rankings along a run, and what is made of accuracies, are no part of it.
  """
  given = dataclasses.replace(
    experiment.config.ranking,
    every_epochs=None,
    sample=Ranking.sample,
    combine=None,
  )
  return {'ranking': dataclasses.asdict(given)}
