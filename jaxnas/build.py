"""From a Config to the objects it names; nothing below knows of a Config."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxnas import (
  data,
  density_config,
  rebuilding,
  runs,
  sampler_config,
  samplers,
  spaces,
  streams,
  supernets,
)
from jaxnas.config import Config, Mesh, flatten, of_experiment
from jaxnas.held_out import HeldOut, splits
from jaxnas.nn.layers import MOMENTUM
from jaxnas.training import mesh, metrics, optimizer, step
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


def dtype(precision: str) -> Any:
  """Of the computation; 'auto' is bfloat16 where there is an accelerator."""
  if precision == 'auto':
    precision = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  return jnp.dtype(precision)


def facts(config: Config) -> dict[str, Any]:
  """What a checkpoint says of its experiment, ready for JSON."""
  return {**of_experiment(config), 'precision': str(dtype(config.precision))}


def images(config: Config) -> data.DataSet:
  """Raises ValueError or FileNotFoundError."""
  given = config.data
  return data.load(
    given.name,
    given.dir,
    size=given.size,
    workers=given.workers,
    on_error=given.on_error,
  )


def divide(
  config: Config, loaded: data.DataSet
) -> tuple[Int[np.ndarray, ' T'], Int[np.ndarray, ' V']]:
  """Indices of training and validation images."""
  return data.divide(
    loaded.y_train,
    config.data.train_fraction,
    config.data.holdout,
    streams.rng(config.seed, 'split'),
  )


def training(
  config: Config,
  loaded: data.DataSet,
  indices_T: Int[np.ndarray, ' T'],
  placing: data.Placing = data.ON_ONE,
) -> data.Training:
  """Raises ValueError where the images do not fill a batch."""
  return data.training(
    loaded,
    indices_T,
    batch_size=config.data.batch_size,
    crop_padding=config.data.crop_padding,
    flip=config.data.flip,
    dtype=dtype(config.precision),
    placing=placing,
  )


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
    dtype=dtype(config.precision),
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


def check_extras(config: Config) -> None:
  """Raises ValueError where a package for logging is missing."""
  for extra, module in (('tensorboard', 'tensorboardX'), ('wandb', 'wandb')):
    wanted = getattr(config.logging, extra)
    if wanted and importlib.util.find_spec(module) is None:
      raise ValueError(f"logging.{extra} needs pip install 'jaxnas[{extra}]'.")


def mirrors(config: Config, workdir: Path) -> list[metrics.Mirror]:
  """Where rows of metrics go besides their file."""
  out: list[metrics.Mirror] = []
  if not runs.writes():
    return out
  if config.logging.tensorboard:
    out.append(metrics.tensorboard(workdir / 'tensorboard'))
  if config.logging.wandb:
    out.append(metrics.weights_and_biases(workdir, flatten(config)))
  return out


def stand_alone(config: Config, arch: str | None) -> StandAloneExperiment:
  """Raises ValueError or FileNotFoundError, one line, before any work.

  Args:
    config: of the experiment.
    arch: the only architecture to train, in the space's notation; None:
      any of them, with one compiled program for all.
  """
  check_extras(config)
  if config.mesh != Mesh():
    raise ValueError(
      'mesh is of training a supernet; architectures alone are trained on one '
      'device: leave mesh.data and mesh.paths at 1.'
    )
  loaded = images(config)
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  fixed = None if arch is None else tuple(space.parse(arch).tolist())
  if fixed is None:
    space.enumerate()  # says so where that is not possible
  batches = training(config, loaded, divide(config, loaded)[0])
  check_steps(config.retrain.epochs, batches.steps_per_epoch)
  net = network(config, space, affine=True, momentum=MOMENTUM)
  return StandAloneExperiment(
    space=space,
    net=supernets.StandAlone(net, fixed),
    optimizer=sgd(config, config.retrain.epochs, batches.steps_per_epoch),
    training=batches,
    test=data.split(
      loaded, 'test', np.arange(len(loaded.y_test)), dtype(config.precision)
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
  config: Config, loaded: data.DataSet | None = None
) -> Experiment:
  """Raises ValueError or FileNotFoundError, one line, before any work.

  `loaded` are the config's images, where they are at hand.
  """
  check_extras(config)
  layout = mesh.layout(
    config.mesh.data, config.mesh.paths, config.supernet.bn_groups
  )
  placing = data.ON_ONE if layout is None else layout.placing
  loaded = images(config) if loaded is None else loaded
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  member = network(config, space, affine=config.supernet.affine)
  train_T, validation_V = divide(config, loaded)
  batches = batches_of(config, space, loaded, train_T, placing)
  check_steps(config.total_epochs, batches.steps_per_epoch)
  sampler = sampler_config.sampler(
    config, space, member, batches.steps_per_epoch
  )
  check_paths(config, samplers.paths(sampler))
  net = member
  if config.sampler.name == 'mixture':
    net = supernets.Mixture(member, config.sampler.members)
  if sampler.rewards:
    at_most(
      'data.batch_size of rewards',
      config.data.batch_size,
      len(validation_V),
      'validation images',
    )
    rewards = data.training(
      loaded,
      validation_V,
      batch_size=config.data.batch_size,
      crop_padding=0,
      flip=False,
      dtype=dtype(config.precision),
      placing=placing,
    )
    batches = data.with_rewards(batches, rewards)
  held_out = splits(
    config, loaded, train_T, validation_V, dtype(config.precision)
  )
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


def batches_of(
  config: Config,
  space: spaces.Space,
  loaded: data.DataSet,
  train_T: Int[np.ndarray, ' T'],
  placing: data.Placing,
) -> data.Training:
  """Those of a supernet: under its budget, in the order its sampler asks for.

  Raises ValueError where images that are streamed should be drawn by
  importance.
  """
  batches = training(config, loaded, train_T, placing)
  batches = batches._replace(
    steps_per_epoch=sampler_config.steps_per_epoch(
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
