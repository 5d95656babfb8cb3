"""Measures densities and distances at the checkpoints along a run."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxnas import density
from jaxnas.config import Config
from jaxnas.density import tensors
from jaxnas.experiment import build, contents, density_log
from jaxnas.experiment import densities as estimation
from jaxnas.experiment.parts import Experiment
from jaxnas.reproduce.jobs import Job, Part, changed
from jaxnas.runtime.preemption import Preemption
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import TrainState
from jaxnas.truth import correlation

# Sets of tensors that are compared, as far as the supernet declares them.
TENSORS = ('authors', 'early', 'deep')

# Epochs of the paper's schedule that are measured.
EPOCHS = (0, 5, 10, 50, 100, 200, 300)


def epochs_measured(total: int) -> tuple[int, ...]:
  """Returns the epochs, of so many in a run, after which it is measured.

  A run that is shorter than the paper's is measured about six times.

  >>> epochs_measured(3), epochs_measured(300)
  ((0, 1, 2, 3), (0, 5, 10, 50, 100, 200, 300))
  """
  if total < EPOCHS[-1]:
    every = max(total // 6, 1)
    return tuple(sorted({*range(0, total + 1, every), total}))
  return EPOCHS


def along_the_way(job: Job) -> bool:
  """Returns True if some item measures the checkpoints of such a run."""
  return (job.row.config, job.row.sampler) == ('pooling', 'uniform')


def kept(job: Job) -> Job:
  """Returns the job with the checkpoints that parts are measured from."""
  if not along_the_way(job):
    return job
  total = job.config.total_epochs
  gaps = [b - a for a, b in itertools.pairwise(epochs_measured(total))]
  return dataclasses.replace(
    job,
    config=changed(
      job.config,
      {'checkpoint.every_epochs': min(gaps), 'checkpoint.keep': total + 1},
    ),
  )


def along(
  config: Config, run: Path, preemption: Preemption
) -> Iterator[tuple[int, Experiment, TrainState]]:
  """Yields (epoch, experiment, state) at the epochs that are measured."""
  experiment = build.experiment(config)
  contents.check(run, experiment.images)
  like = experiment.init_state()
  steps = experiment.training.steps_per_epoch
  with Checkpoints(run / 'checkpoints') as checkpoints:
    for epoch in epochs_measured(config.total_epochs):
      preemption.check()
      state = like
      if epoch:
        state, _ = checkpoints.restore(epoch * steps, like)
      yield epoch, experiment, state


def densities(
  config: Config, run: Path, preemption: Preemption
) -> dict[str, Any]:
  """Spearman of the densities at each epoch with the last, by tensor set.

  Gradients are taken once for all sets.
  """
  epochs, alphas = [], {}
  for epoch, experiment, state in along(config, run, preemption):
    epochs.append(epoch)
    snapshot = estimation.snapshot(experiment, state)
    net, params, archs_AxE, *_ = snapshot
    names = {
      name: tensors.select(net, params, archs_AxE, name)
      for name in TENSORS
      if name in net.tensor_sets
    }
    every = ','.join(sorted({*itertools.chain(*names.values())}))
    features = density.gather(
      snapshot,
      estimation.measure(
        changed(config, {'density.tensors': every}).density,
        net,
        params,
        archs_AxE,
      ),
      memory_gb=config.density.memory_gb,
      poll=preemption.check,
    )
    for name, of_set in names.items():
      estimated = estimation.estimate(
        changed(config, {'density.tensors': name}).density,
        snapshot,
        features={key: features[key] for key in of_set},
      )
      alphas.setdefault(name, []).append(estimated.alpha_A)
  return {
    'epochs': epochs,
    'spearman': {
      name: [
        correlation.spearman(alpha_A, of_epoch[-1]) for alpha_A in of_epoch
      ]
      for name, of_epoch in alphas.items()
    },
  }


def distances(
  config: Config, run: Path, preemption: Preemption
) -> dict[str, Any]:
  """Mean gradient distance in each weight tensor at each epoch."""
  epochs, panels, names = [], {'training': [], 'validation': []}, ()
  for epoch, experiment, state in along(config, run, preemption):
    epochs.append(epoch)
    names = density_log.weights(experiment, state.params)
    snapshot = estimation.snapshot(experiment, state)
    row = density_log.distances(experiment, state, snapshot, preemption.check)
    for panel, rows in panels.items():
      rows.append(
        [
          # Gradients of a tensor that vanish have no direction.
          round(float(value), 5) if value == value else None
          for value in row[f'{panel}_distance_LxT']
        ]
      )
  return {'epochs': epochs, 'tensors': [*names], **panels}


DENSITIES = Part('densities', densities)
DISTANCES = Part('distances', distances)
