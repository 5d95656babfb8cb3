"""From a Config to the objects it names; the rooms below know no Config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import data, samplers, spaces, supernets
from jaxnas.config import Config, Mesh, of_experiment
from jaxnas.config.validation import MOST, at_most
from jaxnas.experiment import (
  contents,
  datasets,
  debias,
  densities,
  held_out,
  learning,
  sampling,
  schedule,
  trackers,
)
from jaxnas.experiment.parts import Experiment, StandAlone
from jaxnas.nn import target
from jaxnas.nn.layers import MOMENTUM
from jaxnas.runtime.rng import generator
from jaxnas.training import mesh, step


def metadata(config: Config) -> dict[str, Any]:
  """Returns what a checkpoint says of its experiment, ready for JSON."""
  return {
    **of_experiment(config),
    'precision': str(target.dtype(config.precision)),
  }


def network(
  config: Config,
  space: spaces.Space,
  *,
  affine: bool = False,
  momentum: float | None = None,
) -> Any:
  """Returns the supernet of a space, in the precision that is asked for.

  Args:
    config: the experiment.
    space: the architectures, for the images at hand.
    affine: normalisation has a scale and a bias.
    momentum: of running statistics; None: it keeps none.

  Raises ValueError where the space has no such option.
  """
  activation = config.supernet.activation
  if activation and not isinstance(space, spaces.ChainSpace):
    raise ValueError(
      f'supernet.activation is of MB blocks; {space.name} has none.'
    )
  return supernets.build(
    space,
    dtype=target.dtype(config.precision),
    affine=affine,
    momentum=momentum,
    activation=activation,
  )


def stand_alone(config: Config, arch: str | None) -> StandAlone:
  """Builds what trains architectures alone.

  Args:
    config: the experiment.
    arch: the only architecture to train, in the space's notation; None: any
      of them, with one compiled program for all.

  Raises ValueError or FileNotFoundError, one line, before any work.
  """
  trackers.check(config.logging)
  if config.mesh != Mesh():
    raise ValueError(
      'mesh is of training a supernet; architectures alone are trained on one '
      'device: leave mesh.data and mesh.paths at 1.'
    )
  loaded = datasets.load(config.data)
  space = datasets.space(config.space, loaded)
  fixed = None if arch is None else tuple(space.parse(arch).tolist())
  dtype = target.dtype(config.precision)
  train_T, _ = datasets.divide(loaded, config.data, config.split_seed)
  batches = datasets.training(loaded, train_T, config.data, dtype)
  check_steps(config.retrain.epochs, batches.steps_per_epoch)
  net = supernets.StandAlone(
    network(config, space, affine=True, momentum=MOMENTUM), fixed
  )
  supernets.check_alone(net)
  return StandAlone(
    config=config,
    space=space,
    net=net,
    optimizer=learning.updates(
      config.optimizer, config.retrain.epochs, batches.steps_per_epoch
    ),
    training=batches,
    test=data.split(loaded, 'test', np.arange(len(loaded.y_test)), dtype),
    images=contents.of(config, loaded),
    loss=learning.loss(config.optimizer, space.classes),
    skipped=skipped(loaded),
  )


def experiment(
  config: Config,
  loaded: data.DataSet | None = None,
  described: Sequence[Any] | None = None,
) -> Experiment:
  """Builds what trains and ranks a supernet.

  Args:
    config: the experiment.
    loaded: its images, where they are at hand.
    described: devices of another machine, to compile the step for. Arrays,
      which can't be put there, stay here.

  Raises ValueError or FileNotFoundError, one line, before any work.
  """
  trackers.check(config.logging)
  layout = mesh.layout(
    config.mesh.data, config.mesh.paths, config.supernet.bn_groups, described
  )
  placing = data.ON_ONE if layout is None else layout.placing
  if described is not None:
    placing = dataclasses.replace(placing, everywhere=data.ON_ONE.everywhere)
  loaded = datasets.load(config.data) if loaded is None else loaded
  space = datasets.space(config.space, loaded)
  member = network(config, space, affine=config.supernet.affine)
  train_T, validation_V = datasets.divide(
    loaded, config.data, config.split_seed
  )
  batches = training(config, space, loaded, train_T, placing)
  check_steps(config.total_epochs, batches.steps_per_epoch)
  sampler = sampling.sampler(config, space, member, batches.steps_per_epoch)
  sampling.check_paths(config, samplers.paths(sampler))
  net = member
  if config.sampler.name == 'mixture':
    net = supernets.Mixture(member, config.sampler.members)
  if sampler.rewards:
    batches = datasets.with_rewards(
      batches,
      loaded,
      validation_V,
      config.data,
      target.dtype(config.precision),
      placing,
    )
  splits = held_out.splits(config, loaded, train_T, validation_V)
  trained_net = net
  if config.supernet.bn_running:
    trained_net = supernets.with_momentum(net, MOMENTUM)
  first, archs_AxF = sampler.init(), None
  if space.enumerable:
    archs_AxF = sampler.route(first, space.enumerate())
    sampling.check_outputs(config, net, archs_AxF, len(splits.rebuild))
  densities.check(
    config.density,
    space,
    net,
    archs_AxF,
    estimates=schedule.estimates_density(config),
  )
  debias.check(config, space, net)
  updates = learning.updates(
    config.optimizer, config.total_epochs, batches.steps_per_epoch
  )
  count = samplers.counter(space)
  any_1xE = np.zeros((1, space.positions), np.int32)
  return Experiment(
    config=config,
    space=space,
    net=net,
    trained_net=trained_net,
    sampler=sampler,
    init=lambda seed: placing.everywhere(
      step.init_state(
        trained_net,
        sampler,
        updates,
        count,
        supernets.init(trained_net, sampler.route(first, any_1xE)[0], seed),
        images=batches.order.init(),
        average=config.optimizer.ema_decay is not None,
      )
    ),
    step=step.make_step(
      trained_net,
      sampler,
      updates,
      batches,
      count,
      seed=config.seed,
      label_smoothing=config.optimizer.label_smoothing,
      ema_decay=config.optimizer.ema_decay or 0.0,
      loss=learning.loss(config.optimizer, space.classes),
      teacher=learning.teacher(config.optimizer, space),
      reward_every=config.sampler.reward_every,
      groups=config.supernet.bn_groups,
      layout=layout,
    ),
    steps_per_dispatch=schedule.steps_per_dispatch(
      config,
      batches.steps_per_epoch,
      streamed=isinstance(loaded, data.Photos),
    ),
    training=batches,
    held_out=splits,
    ranking_archs_AxE=ranking_archs(config, space),
    images=contents.of(config, loaded),
    skipped=skipped(loaded),
  )


def training(
  config: Config,
  space: spaces.Space,
  loaded: data.DataSet,
  train_T: Int[np.ndarray, ' T'],
  placing: data.Placing,
) -> data.Training:
  """Returns a supernet's batches, in the number and order it asks for.

  Their number is under `sampler.budget`, and their order is by importance
  where the sampler draws images so.

  Raises ValueError where images that are streamed should be drawn by
  importance.
  """
  batches = datasets.training(
    loaded, train_T, config.data, target.dtype(config.precision), placing
  )
  batches = batches._replace(
    steps_per_epoch=sampling.steps_per_epoch(
      config, space, batches.steps_per_epoch
    )
  )
  given = config.sampler
  if given.name != 'importance' or given.variant == 'path':
    return batches
  if isinstance(loaded, data.Photos):
    raise ValueError(
      f'sampler importance draws images in memory; {config.data.name} is '
      'streamed: set sampler.variant path.'
    )
  return data.with_importance(
    batches, config.data.batch_size, config.total_epochs
  )


def skipped(loaded: data.DataSet) -> data.SkippedImages:
  """Returns the record of unreadable images; in memory none are."""
  if isinstance(loaded, data.Photos):
    return loaded.skipped
  return data.SkippedImages()


def check_steps(epochs: int, steps_per_epoch: int) -> None:
  """Raises ValueError where a run has more steps than are counted."""
  at_most(
    'the number of steps, epochs times those of one,',
    epochs * steps_per_epoch,
    MOST,
    'that can be counted: lower the epochs',
  )


def ranking_archs(
  config: Config, space: spaces.Space
) -> Int[np.ndarray, 'A E']:
  """Returns all architectures, or a sample of `ranking.archs` of them.

  The sample is a function of the seed.
  """
  wanted, rng = (
    config.ranking.archs,
    generator(config.split_seed, 'ranking_archs'),
  )
  if 'extend' in config.ranking.steps and not space.enumerable:
    raise ValueError(
      f'ranking.combine extend lists a whole space, and {space.name} has '
      f'{space.size:.2g} architectures: leave that step out.'
    )
  if wanted is None and space.enumerable:
    return space.enumerate()
  if wanted is None:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures: set ranking.archs '
      'to how many to rank.'
    )
  at_most('ranking.archs', wanted, space.size, 'architectures')
  return space.subset(rng, wanted)
