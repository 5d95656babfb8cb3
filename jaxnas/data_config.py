"""What a Config says of images, as objects."""

import dataclasses

import numpy as np
from jaxtyping import Int

from jaxnas import data, sampler_config, spaces, streams
from jaxnas.config import Config
from jaxnas.nn import target
from jaxnas.validation import at_most


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
    dtype=target.dtype(config.precision),
    placing=placing,
  )


def of_supernet(
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


def with_rewards(
  config: Config,
  loaded: data.DataSet,
  batches: data.Training,
  validation_V: Int[np.ndarray, ' V'],
  placing: data.Placing,
) -> data.Training:
  """The same, with validation images that samplers are rewarded on.

  Raises ValueError where those do not fill a batch.
  """
  at_most(
    'data.batch_size of rewards',
    config.data.batch_size,
    len(validation_V),
    'validation images',
  )
  unchanged = dataclasses.replace(config.data, crop_padding=0, flip=False)
  rewards = training(
    dataclasses.replace(config, data=unchanged), loaded, validation_V, placing
  )
  return data.with_rewards(batches, rewards)
