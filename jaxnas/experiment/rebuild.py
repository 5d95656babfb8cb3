"""Trees that are built anew within a run, from what is measured then."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxnas import density, samplers
from jaxnas.experiment import densities, ranking, schedule
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors
from jaxnas.training.step import TrainState


def rebuild(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  poll: Callable[[], None] = lambda: None,
) -> TrainState:
  """Returns the state with its sampler built anew, where that is due."""
  if epoch not in schedule.rebuild_epochs(experiment.config):
    return state
  assert experiment.sampler.rebuild is not None
  measurements = samplers.Measurements(
    lambda: accuracies(experiment, state, poll),
    lambda: outputs(experiment, state, poll),
  )
  return dataclasses.replace(
    state, sampler=experiment.sampler.rebuild(state.sampler, measurements)
  )


def accuracies(
  experiment: Experiment,
  state: TrainState,
  poll: Callable[[], None],
) -> Float[np.ndarray, ' A']:
  """Returns the accuracy of every architecture on a few validation batches."""
  return ranking.accuracies(
    experiment,
    state,
    experiment.space.enumerate(),
    split=experiment.held_out.rebuild,
    batch_size=experiment.config.data.batch_size,
    label='rebuilding',
    poll=poll,
  )


@errors.memory_of('data.batch_size', 'density.memory_gb')
def outputs(
  experiment: Experiment,
  state: TrainState,
  poll: Callable[[], None],
) -> Float[np.ndarray, 'A D']:
  """Returns every architecture's probabilities on a few validation batches."""
  split, size = experiment.held_out.rebuild, experiment.config.data.batch_size
  batches = [
    split.batch(np.arange(start, start + size))
    for start in range(0, len(split) - size + 1, size)
  ]
  images, labels = zip(*batches, strict=True)
  snapshot = densities.snapshot(experiment, state)._replace(
    images=images, labels=labels
  )
  features = density.gather(
    snapshot,
    density.functional(),
    memory_gb=experiment.config.density.memory_gb,
    poll=poll,
  )
  return features['outputs']
