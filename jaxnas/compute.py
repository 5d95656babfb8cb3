"""What a run spends, so that strategies are compared at equal compute."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas import debiasing, density, density_config, rebuilding, supernets

if TYPE_CHECKING:
  from jaxnas.build import Experiment

# Of a forward and backward pass; backward costs about two forward ones.
FORWARD = 1 / 3


class Part(NamedTuple):
  """What one purpose takes."""

  images: int
  """Passes of one architecture on one image."""
  weight: float
  """Of such a pass, in forward and backward passes."""
  gradients: bool = False
  """Whether they go backward too."""


def spent(experiment: 'Experiment') -> dict[str, Any]:
  """What the whole run takes, ready for JSON; a function of its config.

  images: of training, over all steps.
  path_gradients: of one architecture on one training batch.
  extra_gradients, extra_forward_passes: of one architecture on one image,
    besides, by purpose. The density log and the reports of
    ranking.every_epochs, which only observe, are left out.
  epochs: by purpose, in passes of one architecture over the training images,
    forward and backward. A forward pass alone counts as a third, and what
    architectures share that start alike counts once.
  """
  config, held_out = experiment.config, experiment.held_out
  archs_AxE, batch = experiment.ranking_archs_AxE, config.data.batch_size
  parts = {
    'rewards': _rewards(experiment),
    'density': _density(experiment),
    'rebuilding': _rebuilding(experiment),
    'ranking': _evaluation(experiment, archs_AxE, len(held_out.ranking)),
  }
  path_gradients = experiment.steps * experiment.paths
  everything = {
    'training': Part(path_gradients * batch, 1.0, gradients=True),
    **parts,
  }
  return {
    'images': experiment.steps * batch,
    'path_gradients': path_gradients,
    'extra_gradients': {
      name: part.images for name, part in parts.items() if part.gradients
    },
    'extra_forward_passes': {
      name: part.images for name, part in parts.items() if not part.gradients
    },
    'epochs': {
      name: part.images * part.weight / experiment.training.images
      for name, part in everything.items()
    },
  }


def describe(spent: Mapping[str, Any]) -> str:
  """One line: epochs by what they went to."""
  parts = (
    f'{name} {epochs:.3g}' for name, epochs in spent['epochs'].items() if epochs
  )
  return f'epochs of one path: {", ".join(parts)}'


def _rewards(experiment: 'Experiment') -> Part:
  given = experiment.config
  measured = 0
  if experiment.sampler.rewards:
    measured = -(-experiment.steps // given.sampler.reward_every)
  return Part(measured * experiment.paths * given.data.batch_size, FORWARD)


def _rebuilding(experiment: 'Experiment') -> Part:
  times = len(rebuilding.due(experiment.config))
  if not times:
    return Part(0, FORWARD)
  archs_AxE = experiment.space.enumerate()
  images = times * len(experiment.held_out.rebuild)
  if experiment.config.sampler.variant == 'iterative':
    return _evaluation(experiment, archs_AxE, images, times)
  return Part(len(archs_AxE) * images, FORWARD * _shared(experiment, archs_AxE))


def _evaluation(
  experiment: 'Experiment',
  archs_AxE: Int[np.ndarray, 'A E'],
  images: int,
  times: int = 1,
) -> Part:
  """Of accuracies, calibration included, which shares nothing."""
  calibrating = times * len(experiment.held_out.calibration)
  share = 1.0 if calibrating else _shared(experiment, archs_AxE)
  return Part(len(archs_AxE) * (images + calibrating), FORWARD * share)


def _density(experiment: 'Experiment') -> Part:
  config = experiment.config
  given, net, sampler = config.density, experiment.net, experiment.sampler
  times = len(debiasing.due(config))
  # Prototypes come from the gradients of training.
  if not times or given.file is not None or given.estimator == 'prototypes':
    return Part(0, FORWARD)
  archs_AxE = experiment.space.enumerate()
  archs_AxF = sampler.route(sampler.init(), archs_AxE)
  params = supernets.shapes(net, archs_AxF[0])['params']
  compared = density_config.measure(config, net, params, archs_AxF)
  if compared.read is None:
    return Part(0, FORWARD)
  size = density.feature_bytes(
    compared, net, params, len(archs_AxE), given.batches, given.batch_size
  )
  # Features that the memory does not keep are computed a second time.
  if (
    density.streams(compared, given.estimator) and size > given.memory_gb * 1e9
  ):
    times *= 2
  images = times * len(archs_AxE) * given.batches * given.batch_size
  gradients = given.measure == 'gradient'
  # What stands behind the last choice has hardly a backward pass.
  if density.in_head(net, compared.read):
    return Part(images, FORWARD * _shared(experiment, archs_AxE), gradients)
  return Part(images, 1.0 if gradients else FORWARD, gradients)


def _shared(
  experiment: 'Experiment', archs_AxE: Int[np.ndarray, 'A E']
) -> float:
  """Multiply-adds of a walk, as a share of those path by path."""
  if not experiment.net.sequential:
    return 1.0
  space = experiment.space
  return space.shared_macs(archs_AxE) / float(
    space.costs(archs_AxE).macs_A.sum(dtype=float)
  )
