"""From a Config to the objects it names; nothing below knows of a Config."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import data, density, samplers, spaces, streams, supernets
from jaxnas.config import Config
from jaxnas.training import optimizer, step


@dataclasses.dataclass(frozen=True)
class Split:
  """Images of one purpose on the device, prepared without augmentation."""

  images: data.DeviceImages
  dtype: Any

  def __len__(self) -> int:
    return len(self.images.y_N)

  def batch(
    self, indices_B: Int[np.ndarray, ' B']
  ) -> tuple[Float[Array, 'B H W C'], Int[Array, ' B']]:
    return data.batch(self.images, jnp.asarray(indices_B), dtype=self.dtype)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What training and ranking a supernet needs."""

  config: Config
  space: spaces.Space
  archs_AxE: Int[np.ndarray, 'A E']
  net: Any
  sampler: samplers.Sampler
  init_state: Callable[[], step.TrainState]
  step_fn: step.Step
  train: Split
  ranking: Split
  density: Split
  ranking_archs_AxE: Int[np.ndarray, 'A E']
  steps_per_epoch: int

  @property
  def warmup_steps(self) -> int:
    """Steps before the density is estimated."""
    return self.config.warmup_epochs * self.steps_per_epoch

  def order(self, epoch: int) -> Int[Array, ' N']:
    """Order of the training images in an epoch."""
    return data.epoch_order(self.config.seed, epoch, len(self.train))


def dtype(precision: str) -> Any:
  """Of the computation; 'auto' is bfloat16 where there is an accelerator."""
  if precision == 'auto':
    precision = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  return jnp.dtype(precision)


def images(config: Config, space: spaces.Space) -> data.Images:
  """Raises ValueError where the images do not fit the space."""
  loaded = data.load(config.data.name, config.data.dir)
  if loaded.x_train.shape[1:] != space.image_shape:
    raise ValueError(
      f'space {space.name} takes images of {_size(space.image_shape)}; data '
      f'{config.data.name} has {_size(loaded.x_train.shape[1:])}.'
    )
  if loaded.classes != space.classes:
    raise ValueError(
      f'space {space.name} has {space.classes} classes; data '
      f'{config.data.name} has {loaded.classes}.'
    )
  return loaded


def training_images(
  config: Config, loaded: data.Images
) -> tuple[Int[np.ndarray, ' T'], Int[np.ndarray, ' V'], int]:
  """Indices of training and validation images, and the steps of an epoch.

  Raises ValueError where they do not fill a batch.
  """
  train_T, validation_V = data.split(
    len(loaded.y_train),
    config.data.train_fraction,
    streams.rng(config.seed, 'split'),
  )
  steps_per_epoch = len(train_T) // config.data.batch_size
  if steps_per_epoch == 0:
    raise ValueError(
      f'data.batch_size {config.data.batch_size} is above the {len(train_T)} '
      'training images.'
    )
  return train_T, validation_V, steps_per_epoch


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
    clip_norm=given.clip_norm,
    freeze_unused=given.freeze_unused,
  )


def experiment(config: Config) -> Experiment:
  """Raises ValueError or FileNotFoundError, one line, before any work."""
  for extra, module in (('tensorboard', 'tensorboardX'), ('wandb', 'wandb')):
    wanted = getattr(config.logging, extra)
    if wanted and importlib.util.find_spec(module) is None:
      raise ValueError(f"logging.{extra} needs pip install 'jaxnas[{extra}]'.")
  seed = config.seed
  space = spaces.get(config.space)
  archs_AxE = space.enumerate()
  loaded = images(config, space)
  compute = dtype(config.precision)

  def split(x_NxHxWxC, y_N, indices_M) -> Split:
    return Split(
      data.DeviceImages.put(loaded, x_NxHxWxC[indices_M], y_N[indices_M]),
      compute,
    )

  train_M, validation_M, steps_per_epoch = training_images(config, loaded)
  train = split(loaded.x_train, loaded.y_train, train_M)
  if config.ranking.split == 'test':
    x_rank, y_rank = loaded.x_test, loaded.y_test
    pool_M = np.arange(len(y_rank))
  else:
    x_rank, y_rank, pool_M = loaded.x_train, loaded.y_train, validation_M
  ranking_M = streams.rng(seed, 'ranking').permutation(pool_M)
  wanted = config.ranking.images or len(ranking_M)
  _at_most('ranking.images', wanted, len(ranking_M), 'images')
  needed = config.density.batches * config.density.batch_size
  density_M = streams.rng(seed, 'density').permutation(validation_M)
  if config.debiases and config.density.file is None:
    _at_most(
      'density.batches * density.batch_size',
      needed,
      len(density_M),
      'validation images',
    )
  ranking_archs_AxE = archs_AxE
  if config.ranking.archs is not None:
    _at_most(
      'ranking.archs', config.ranking.archs, len(archs_AxE), 'architectures'
    )
    chosen = streams.rng(seed, 'ranking_archs').choice(
      len(archs_AxE), config.ranking.archs, replace=False
    )
    ranking_archs_AxE = archs_AxE[np.sort(chosen)]
  net = supernets.build(space, dtype=compute, affine=config.supernet.affine)
  sampler = samplers.debiased(
    samplers.PROPOSALS[config.sampler.name](
      archs_AxE, paths=config.sampler.paths
    ),
    archs_AxE,
    paths=config.sampler.paths,
  )
  updates = sgd(config, config.warmup_epochs + config.epochs, steps_per_epoch)
  built = Experiment(
    config=config,
    space=space,
    archs_AxE=archs_AxE,
    net=net,
    sampler=sampler,
    init_state=lambda: step.init_state(
      net, sampler, updates, space.image_shape, archs_AxE, seed
    ),
    step_fn=step.make_step(
      net,
      sampler,
      updates,
      augmented(config, compute),
      archs_AxE=archs_AxE,
      batch_size=config.data.batch_size,
      steps_per_epoch=steps_per_epoch,
      seed=seed,
    ),
    train=train,
    ranking=split(x_rank, y_rank, ranking_M[:wanted]),
    density=split(loaded.x_train, loaded.y_train, density_M[:needed]),
    ranking_archs_AxE=ranking_archs_AxE,
    steps_per_epoch=steps_per_epoch,
  )
  if config.debiases:
    _check_density(built)
  return built


def _check_density(experiment: Experiment) -> None:
  """What the density will need after the warm-up."""
  wanted, archs_AxE = experiment.config.density, experiment.archs_AxE
  if wanted.file is not None:
    density.load(Path(wanted.file), archs_AxE)
    return
  params = jax.eval_shape(experiment.init_state).params
  density.select(experiment.net, params, archs_AxE, wanted.tensors)


def augmented(config: Config, compute: Any) -> Callable[..., Any]:
  """(images, indices_B, key) -> augmented batch, in jit."""

  def batch(images, indices_B, key):
    return data.batch(
      images,
      indices_B,
      key,
      crop_padding=config.data.crop_padding,
      flip=config.data.flip,
      dtype=compute,
    )

  return batch


def _at_most(name: str, value: int, most: int, unit: str) -> None:
  if value > most:
    raise ValueError(f'{name} is {value}; there are {most} {unit}.')


def _size(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape))
