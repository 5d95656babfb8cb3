"""From a Config to the objects it names; nothing below knows of a Config."""

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxnas import data, density_config, samplers, spaces, streams, supernets
from jaxnas.config import Config, flatten
from jaxnas.training import metrics, optimizer, step


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What training and ranking a supernet needs."""

  config: Config
  space: spaces.Space
  net: Any
  sampler: samplers.Sampler
  init_state: Callable[[], step.TrainState]
  step_fn: step.Step
  training: data.Training
  ranking: data.Split
  density: data.Split
  ranking_archs_AxE: Int[np.ndarray, 'A E']
  skipped: set[str]
  """Names of images that could not be read so far."""

  @property
  def paths(self) -> int:
    """Architectures in a step."""
    drawn = jax.eval_shape(
      lambda: self.sampler.sample(self.sampler.init(), jax.random.key(0))
    )
    return drawn.shape[0]

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
  config: Config, loaded: data.DataSet, indices_T: Int[np.ndarray, ' T']
) -> data.Training:
  """Raises ValueError where the images do not fill a batch."""
  return data.training(
    loaded,
    indices_T,
    batch_size=config.data.batch_size,
    crop_padding=config.data.crop_padding,
    flip=config.data.flip,
    dtype=dtype(config.precision),
  )


def network(
  config: Config,
  space: spaces.Space,
  *,
  affine: bool = False,
  running: bool = False,
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
    running=running,
    activation=activation,
  )


def proposal(
  config: Config, space: spaces.Space, steps_per_epoch: int
) -> samplers.Sampler:
  """What debiasing multiplies, given those options that it names.

  Raises ValueError where it cannot serve the space, or is asked for rewards
  that it does not read.
  """
  epochs = config.warmup_epochs + config.epochs
  options = {
    **dataclasses.asdict(config.sampler),
    'steps_per_epoch': steps_per_epoch,
    'epochs': epochs,
    'warmup_steps': config.warmup_epochs * steps_per_epoch,
    'steps': epochs * steps_per_epoch,
    'clip_norm': config.optimizer.clip_norm,
  }
  make = samplers.PROPOSALS[config.sampler.name]
  named = inspect.signature(make).parameters
  made = make(
    space, **{name: v for name, v in options.items() if name in named}
  )
  if config.sampler.reward_every != 1 and not made.rewards:
    raise ValueError(
      'sampler.reward_every is of samplers that read rewards; '
      f'{config.sampler.name} reads none.'
    )
  return made


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
  loaded = images(config)
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  fixed = None if arch is None else tuple(space.parse(arch).tolist())
  if fixed is None:
    space.enumerate()  # says so where that is not possible
  batches = training(config, loaded, divide(config, loaded)[0])
  net = network(config, space, affine=True, running=True)
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


def experiment(config: Config) -> Experiment:
  """Raises ValueError or FileNotFoundError, one line, before any work."""
  check_extras(config)
  seed, compute = config.seed, dtype(config.precision)
  loaded = images(config)
  space = spaces.get(config.space).on_images(loaded.image_shape, loaded.classes)
  net = network(config, space, affine=config.supernet.affine)
  train_T, validation_V = divide(config, loaded)
  batches = training(config, loaded, train_T)
  sampler = density_config.sampler(
    config, space, net, proposal(config, space, batches.steps_per_epoch)
  )
  density_config.check(config, space, net)
  rewards = None
  if sampler.rewards:
    rewards = data.training(
      loaded,
      validation_V,
      batch_size=config.data.batch_size,
      crop_padding=0,
      flip=False,
      dtype=compute,
    )
    batches = data.with_rewards(batches, rewards)

  part = 'test' if config.ranking.split == 'test' else 'train'
  pool_M = np.arange(len(loaded.y_test)) if part == 'test' else validation_V
  ranking_M = streams.rng(seed, 'ranking').permutation(pool_M)
  if not len(ranking_M):
    raise ValueError(
      'there are no validation images to rank on: lower data.train_fraction, '
      'or set ranking.split test.'
    )
  wanted = config.ranking.images or len(ranking_M)
  at_most('ranking.images', wanted, len(ranking_M), 'images')
  needed = config.density.batches * config.density.batch_size
  density_M = streams.rng(seed, 'density').permutation(validation_V)
  if density_config.estimates(config):
    at_most(
      'density.batches * density.batch_size',
      needed,
      len(density_M),
      'validation images',
    )

  updates = sgd(
    config, config.warmup_epochs + config.epochs, batches.steps_per_epoch
  )
  count = samplers.counter(space)
  some_arch_E = np.zeros(space.positions, np.int32)
  return Experiment(
    config=config,
    space=space,
    net=net,
    sampler=sampler,
    init_state=lambda: step.init_state(
      net, sampler, updates, count, supernets.init(net, some_arch_E, seed)
    ),
    step_fn=step.make_step(
      net,
      sampler,
      updates,
      batches.batch,
      count,
      seed=seed,
      label_smoothing=config.optimizer.label_smoothing,
      reward_batch=batches.reward,
      reward_every=config.sampler.reward_every,
    ),
    training=batches,
    ranking=data.split(loaded, part, ranking_M[:wanted], compute),
    density=data.split(loaded, 'train', density_M[:needed], compute),
    ranking_archs_AxE=ranking_archs(config, space),
    skipped=getattr(loaded, 'skipped', set()),
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


def at_most(name: str, value: int, most: int, unit: str) -> None:
  """Raises ValueError where more are asked for than there are."""
  if value > most:
    raise ValueError(f'{name} is {value}; there are {most} {unit}.')
