"""From a Config to the objects it names; nothing below knows of a Config."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import (
  data,
  data_config,
  density_config,
  logging_config,
  rebuilding,
  sampler_config,
  samplers,
  spaces,
  streams,
  supernets,
)
from jaxnas.config import Config, Mesh, of_experiment
from jaxnas.held_out import HeldOut, splits
from jaxnas.nn import target
from jaxnas.nn.layers import MOMENTUM
from jaxnas.training import mesh, optimizer, step
from jaxnas.validation import MOST, at_most


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What training and ranking a supernet needs."""

  config: Config
  space: spaces.Space
  net: Any
  """Normalised by each batch's statistics."""
  trained_net: Any
  """The same, with the running statistics that training keeps, if any."""
  sampler: samplers.Sampler
  init_state: Callable[[], step.TrainState]
  step_fn: step.Step
  training: data.Training
  held_out: HeldOut
  ranking_archs_AxE: Int[np.ndarray, 'A E']
  skipped: set[str]
  """Names of images that could not be read so far."""

  @property
  def paths(self) -> int:
    """Architectures in a step."""
    return samplers.paths(self.sampler)

  @property
  def steps(self) -> int:
    """Of the whole run, the warm-up among them."""
    return self.config.total_epochs * self.training.steps_per_epoch

  @property
  def warmup_steps(self) -> int:
    """Steps before the density is estimated."""
    return self.config.warmup_epochs * self.training.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class StandAloneExperiment:
  """What training architectures alone needs."""

  space: spaces.Space
  net: supernets.StandAlone
  optimizer: Any
  training: data.Training
  test: data.Split
  skipped: set[str]
  """Names of images that could not be read so far."""


def facts(config: Config) -> dict[str, Any]:
  """What a checkpoint says of its experiment, ready for JSON."""
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
  """Raises ValueError where the space has no such option."""
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


def sgd(config: Config, epochs: int, steps_per_epoch: int) -> Any:
  """The optimizer over `epochs` epochs."""
  given = config.optimizer
  return optimizer.sgd(
    optimizer.cosine(
      given.peak_lr,
      given.floor_lr,
      epochs * steps_per_epoch,
      warmup_steps=given.lr_warmup_steps,
      steps_per_update=1 if given.schedule == 'step' else steps_per_epoch,
    ),
    momentum=given.momentum,
    nesterov=given.nesterov,
    weight_decay=given.weight_decay,
    decay_all=given.decay == 'all',
    clip_norm=given.clip_norm,
    freeze_unused=given.freeze_unused,
  )


def stand_alone(config: Config, arch: str | None) -> StandAloneExperiment:
  """Raises ValueError or FileNotFoundError, one line, before any work.

  Args:
    config: of the experiment.
    arch: the only architecture to train, in the space's notation; None:
      any of them, with one compiled program for all.
  """
  logging_config.check(config)
  if config.mesh != Mesh():
    raise ValueError(
      'mesh is of training a supernet; architectures alone are trained on one '
      'device: leave mesh.data and mesh.paths at 1.'
    )
  loaded = data_config.images(config)
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  fixed = None if arch is None else tuple(space.parse(arch).tolist())
  if fixed is None:
    space.enumerate()  # says so where that is not possible
  batches = data_config.training(
    config, loaded, data_config.divide(config, loaded)[0]
  )
  check_steps(config.retrain.epochs, batches.steps_per_epoch)
  net = network(config, space, affine=True, momentum=MOMENTUM)
  return StandAloneExperiment(
    space=space,
    net=supernets.StandAlone(net, fixed),
    optimizer=sgd(config, config.retrain.epochs, batches.steps_per_epoch),
    training=batches,
    test=data.split(
      loaded,
      'test',
      np.arange(len(loaded.y_test)),
      target.dtype(config.precision),
    ),
    skipped=getattr(loaded, 'skipped', set()),
  )


def check_steps(epochs: int, steps_per_epoch: int) -> None:
  """Raises ValueError where a run has more steps than are counted."""
  at_most(
    'the number of steps, epochs times those of one,',
    epochs * steps_per_epoch,
    MOST,
    'that can be counted: lower the epochs',
  )


def experiment(
  config: Config,
  loaded: data.DataSet | None = None,
  described: Sequence[Any] | None = None,
) -> Experiment:
  """Raises ValueError or FileNotFoundError, one line, before any work.

  Args:
    config: of the experiment.
    loaded: its images, where they are at hand.
    described: devices of another machine, to compile the step for. Arrays,
      which can't be put there, stay here.
  """
  logging_config.check(config)
  layout = mesh.layout(
    config.mesh.data, config.mesh.paths, config.supernet.bn_groups, described
  )
  placing = data.ON_ONE if layout is None else layout.placing
  if described is not None:
    placing = dataclasses.replace(placing, everywhere=data.ON_ONE.everywhere)
  loaded = data_config.images(config) if loaded is None else loaded
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  member = network(config, space, affine=config.supernet.affine)
  train_T, validation_V = data_config.divide(config, loaded)
  batches = data_config.of_supernet(config, space, loaded, train_T, placing)
  check_steps(config.total_epochs, batches.steps_per_epoch)
  sampler = sampler_config.sampler(
    config, space, member, batches.steps_per_epoch
  )
  check_paths(config, samplers.paths(sampler))
  net = member
  if config.sampler.name == 'mixture':
    net = supernets.Mixture(member, config.sampler.members)
  if sampler.rewards:
    batches = data_config.with_rewards(
      config, loaded, batches, validation_V, placing
    )
  held_out = splits(config, loaded, train_T, validation_V)
  trained_net = net
  if config.supernet.bn_running:
    trained_net = supernets.with_momentum(net, MOMENTUM)
  first, archs_AxF = sampler.init(), None
  if space.enumerable:
    archs_AxF = sampler.route(first, space.enumerate())
    rebuilding.check(config, net, archs_AxF, len(held_out.rebuild))
  density_config.check(config, space, net, archs_AxF)
  updates = sgd(config, config.total_epochs, batches.steps_per_epoch)
  count = samplers.counter(space)
  some_1xE = np.zeros((1, space.positions), np.int32)
  return Experiment(
    config=config,
    space=space,
    net=net,
    trained_net=trained_net,
    sampler=sampler,
    init_state=lambda: placing.everywhere(
      step.init_state(
        trained_net,
        sampler,
        updates,
        count,
        supernets.init(
          trained_net, sampler.route(first, some_1xE)[0], config.seed
        ),
        images=batches.order.init(),
      )
    ),
    step_fn=step.make_step(
      trained_net,
      sampler,
      updates,
      batches,
      count,
      seed=config.seed,
      label_smoothing=config.optimizer.label_smoothing,
      reward_every=config.sampler.reward_every,
      groups=config.supernet.bn_groups,
      layout=layout,
    ),
    training=batches,
    held_out=held_out,
    ranking_archs_AxE=ranking_archs(config, space),
    skipped=getattr(loaded, 'skipped', set()),
  )


def check_paths(config: Config, paths: int) -> None:
  """Raises ValueError where a mesh cannot share so many paths evenly."""
  if paths % config.mesh.paths:
    raise ValueError(
      f'mesh.paths {config.mesh.paths} does not divide the {paths} '
      f'architectures of a step of sampler {config.sampler.name}: set '
      'mesh.paths or sampler.paths.'
    )


def ranking_archs(
  config: Config, space: spaces.Space
) -> Int[np.ndarray, 'A E']:
  """All, or as many as `ranking.archs` says, drawn with a fixed seed."""
  wanted, rng = config.ranking.archs, streams.rng(config.seed, 'ranking_archs')
  if wanted is None and space.enumerable:
    return space.enumerate()
  if wanted is None:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures: set ranking.archs '
      'to how many to rank.'
    )
  at_most('ranking.archs', wanted, space.size, 'architectures')
  return space.some(rng, wanted)
