"""The compute of a run, so that strategies are compared at equal cost."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas import density, samplers, supernets
from jaxnas.experiment import densities, online, schedule, updates
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime.rng import generator

# Share of a forward pass; a backward one costs about twice as much.
FORWARD = 1 / 3


# Epochs of training beyond which a density is dear.
DEAR = 5.0


class Part(NamedTuple):
  """The share of one purpose in the compute of a run."""

  images: int
  """Number of passes of one architecture on one image."""
  weight: float
  """Cost of such a pass, in forward and backward passes."""
  gradients: bool = False
  """True if the passes go backward too."""


def of_run(experiment: Experiment) -> dict[str, Any]:
  """Returns the compute of a whole run, ready for JSON.

  It is a function of the config and counts

  images: training images, over all steps.
  path_gradients: gradients of an architecture on a training batch.
  extra_gradients, extra_forward_passes: those of one architecture on one
    image that training does not need, by purpose. The density log and the
    reports of ranking.every_epochs, which only observe, are left out.
  epochs: all of it by purpose, in passes of one architecture over the
    training images, forward and backward. A forward pass alone counts as a
    third, and a prefix that architectures share counts once.
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


def advise(experiment: Experiment) -> str | None:
  """Says what a density costs that is dear, and what would be cheaper.

  None where it costs at most `DEAR` epochs, where it already comes from
  prototypes, and where these would measure as many.
  """
  given, space = experiment.config.density, experiment.space
  exact = _density(experiment)
  epochs = exact.images * exact.weight / experiment.training.images
  if epochs <= DEAR or online.used(given, space):
    return None
  share = online.count(given, space) / space.size
  if share == 1:
    return None
  return (
    f'the density of all {space.size:,} architectures costs {epochs:.3g} '
    f'epochs of training; --density.estimator prototypes measures '
    f'{online.count(given, space)} of them, for about '
    f'{epochs * share:.2g} epochs'
  )


def describe(cost: Mapping[str, Any]) -> str:
  """Returns one line: epochs by purpose."""
  parts = (
    f'{name} {epochs:.3g}' for name, epochs in cost['epochs'].items() if epochs
  )
  return f'epochs of one path: {", ".join(parts)}'


def _rewards(experiment: Experiment) -> Part:
  given = experiment.config
  measured = 0
  if experiment.sampler.rewards:
    measured = -(-experiment.steps // given.sampler.reward_every)
  paths = samplers.paths(experiment.sampler)
  return Part(measured * paths * given.data.batch_size, FORWARD)


def _rebuilding(experiment: Experiment) -> Part:
  times = len(schedule.rebuild_epochs(experiment.config))
  if not times:
    return Part(0, FORWARD)
  archs_AxE = experiment.space.enumerate()
  images = times * len(experiment.held_out.rebuild)
  if experiment.config.sampler.variant == 'iterative':
    return _evaluation(experiment, archs_AxE, images, times)
  return Part(len(archs_AxE) * images, FORWARD * _shared(experiment, archs_AxE))


def _evaluation(
  experiment: Experiment,
  archs_AxE: Int[np.ndarray, 'A E'],
  images: int,
  times: int = 1,
) -> Part:
  """Counts evaluations, with calibration, which shares no prefixes."""
  calibrating = times * len(experiment.held_out.calibration)
  share = 1.0 if calibrating else _shared(experiment, archs_AxE)
  return Part(len(archs_AxE) * (images + calibrating), FORWARD * share)


def _density(experiment: Experiment) -> Part:
  config = experiment.config
  given, net, sampler = config.density, experiment.net, experiment.sampler
  times = len(schedule.density_epochs(config))
  if not times or given.file is not None:
    return Part(0, FORWARD)
  space, few = experiment.space, None
  if online.used(given, space):
    few = online.count(given, space)
  archs_AxE = (
    space.subset(generator(config.seed, 'prototypes'), few)
    if few is not None
    else space.enumerate()
  )
  archs_AxF = sampler.route(sampler.init(), archs_AxE)
  params = supernets.shapes(net, archs_AxF[0])['params']
  compared = densities.measure(given, net, params, archs_AxF)
  if compared.read is None:
    return Part(0, FORWARD)
  size = density.feature_bytes(
    compared, net, params, len(archs_AxE), given.batches, given.batch_size
  )
  # Features that the memory does not keep are computed a second time, or lie on
  # the disk where a rule reads them often.
  if (
    density.streams(compared, given.estimator or 'inverse_mean_distance')
    and size > given.memory_gb * 1e9
    and not updates.rule(config).similarity
    and few is None
  ):
    times *= 2
  images = times * len(archs_AxE) * given.batches * given.batch_size
  gradients = given.measure == 'gradient'
  # Layers behind the last choice have hardly a backward pass.
  if density.in_head(net, compared.read):
    return Part(images, FORWARD * _shared(experiment, archs_AxE), gradients)
  return Part(images, 1.0 if gradients else FORWARD, gradients)


def _shared(experiment: Experiment, archs_AxE: Int[np.ndarray, 'A E']) -> float:
  """Returns multiply-adds of a walk, as a share of those path by path."""
  if not experiment.net.sequential:
    return 1.0
  space = experiment.space
  return space.shared_macs(archs_AxE) / float(
    space.costs(archs_AxE).macs_A.sum(dtype=float)
  )
