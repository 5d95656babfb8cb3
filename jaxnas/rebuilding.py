"""Samplers that are built anew within a run, from what is measured then."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import density, density_config, ranking, samplers
from jaxnas.config import Config

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# How often, where the config does not say (Roshtkhari et al. 2025: up to 4
# times; that a clustering is made once is inferred).
REBUILDS = {'iterative': 4, 'hierarchical': 1}


def rebuild(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  poll: Callable[[], None] = lambda: None,
) -> 'TrainState':
  """The state with its sampler built anew, where that is due after `epoch`."""
  if epoch not in due(experiment.config):
    return state
  assert experiment.sampler.rebuild is not None
  measurements = samplers.Measurements(
    lambda: accuracies(experiment, state, poll),
    lambda: outputs(experiment, state, poll),
  )
  return dataclasses.replace(
    state, sampler=experiment.sampler.rebuild(state.sampler, measurements)
  )


def check(
  config: Config, net: Any, archs_AxF: Int[np.ndarray, 'A F'], batch: int
) -> None:
  """Raises ValueError where outputs to cluster do not fit the memory.

  Args:
    config: of the experiment.
    net: the supernet.
    archs_AxF: all architectures, as the net takes them.
    batch: images that each is looked at with.
  """
  if config.sampler.variant == 'hierarchical':
    size = density.feature_bytes(
      density.functional(), net, {}, len(archs_AxF), 1, batch
    )
    if size > config.density.memory_gb * 1e9:
      raise ValueError(
        f'sampler.variant hierarchical clusters {size / 1e9:.3g} GB of '
        f'outputs, more than density.memory_gb {config.density.memory_gb:g}: '
        'raise that, or use variant iterative.'
      )


def due(config: Config) -> set[int]:
  """Epochs before which the sampler is built: the first after the warm-up."""
  if config.sampler.variant not in REBUILDS:
    return set()
  times = config.sampler.rebuilds or REBUILDS[config.sampler.variant]
  return {
    config.warmup_epochs + index * config.epochs // times
    for index in range(times)
  }


def accuracies(
  experiment: 'Experiment',
  state: 'TrainState',
  poll: Callable[[], None],
) -> Float[np.ndarray, ' A']:
  """Of every architecture, on a few validation batches."""
  return ranking.accuracies(
    experiment,
    state,
    experiment.space.enumerate(),
    split=experiment.held_out.rebuild,
    batch_size=experiment.config.data.batch_size,
    label='rebuilding',
    poll=poll,
  )


def outputs(
  experiment: 'Experiment',
  state: 'TrainState',
  poll: Callable[[], None],
) -> Float[np.ndarray, 'A D']:
  """Probabilities that every architecture gives to a few validation batches."""
  split, size = experiment.held_out.rebuild, experiment.config.data.batch_size
  batches = [
    split.batch(np.arange(start, start + size))
    for start in range(0, len(split) - size + 1, size)
  ]
  images, labels = zip(*batches, strict=True)
  subject = density_config.subject(experiment, state)._replace(
    images=images, labels=labels
  )
  features = density.gather(
    subject,
    density.functional(),
    memory_gb=experiment.config.density.memory_gb,
    poll=poll,
  )
  return features['outputs']
