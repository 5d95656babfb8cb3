"""Images as a config asks for them: loaded, divided and batched."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxnas import data, spaces
from jaxnas.config import Data
from jaxnas.config.validation import at_most
from jaxnas.experiment import own_code
from jaxnas.runtime import rng


def load(given: Data) -> data.DataSet:
  """Reads the data set. Raises ValueError or FileNotFoundError, one line."""
  return data.load(
    given.name,
    given.dir,
    size=given.size,
    workers=given.workers,
    on_error=given.on_error,
    options=given.options,
  )


def space(name: str, loaded: data.DataSet) -> spaces.Space:
  """Returns a space by its name, for images of this size and these classes.

  Raises ValueError where it has none for them.
  """
  return spaces.get(name).on_images(loaded.image_shape, loaded.classes)


def divide(
  loaded: data.DataSet, given: Data, seed: int
) -> tuple[Int[np.ndarray, ' T'], Int[np.ndarray, ' V']]:
  """Returns the indices of training images and of validation images.

  Raises ValueError where the images can't be divided so, or where that leaves a
  class with none to train on, which would be ranked on all the same.
  """
  train_T, validation_V = data.divide(
    loaded.y_train,
    given.train_fraction,
    given.holdout,
    rng.generator(seed, 'split'),
  )
  untrained_V = ~np.isin(loaded.y_train[validation_V], loaded.y_train[train_T])
  if untrained_V.any():
    label = loaded.y_train[validation_V[untrained_V][0]]
    raise ValueError(
      f'data.train_fraction {given.train_fraction} leaves class {label} '
      f'without a training image, of {(loaded.y_train == label).sum()}: raise '
      'it, or give data.holdout, which takes as many images of every class.'
    )
  return train_T, validation_V


def training(
  loaded: data.DataSet,
  indices_T: Int[np.ndarray, ' T'],
  given: Data,
  dtype: Any,
  placing: data.Placing = data.ON_ONE,
) -> data.Training:
  """Returns augmented batches of these images, in a new order each epoch.

  Raises ValueError where the images do not fill a batch, a crop could be beside
  them, or the augmentation of one's own is not as it must be.
  """
  side = min(loaded.image_shape[:2])
  if given.crop_padding >= side:
    raise ValueError(
      f'data.crop_padding is {given.crop_padding}; crops of images of {side} '
      f'pixels would show padding alone: it must be below {side}.'
    )
  shape = given.batch_size, *loaded.image_shape
  return data.training(
    loaded,
    indices_T,
    batch_size=given.batch_size,
    crop_padding=given.crop_padding,
    flip=given.flip,
    own=own_code.function(
      'data.augment',
      given.augment,
      {
        'key': jax.eval_shape(lambda: jax.random.key(0)),
        'images': jax.ShapeDtypeStruct(shape, np.float32),
      },
      shape,
    ),
    dtype=dtype,
    placing=placing,
  )


def with_rewards(
  batches: data.Training,
  loaded: data.DataSet,
  validation_V: Int[np.ndarray, ' V'],
  given: Data,
  dtype: Any,
  placing: data.Placing,
) -> data.Training:
  """Adds validation images, not augmented, that samplers are rewarded on.

  Raises ValueError where those do not fill a batch.
  """
  at_most(
    'data.batch_size of rewards',
    given.batch_size,
    len(validation_V),
    'validation images',
  )
  unchanged = dataclasses.replace(
    given, crop_padding=0, flip=False, augment=None
  )
  rewards = training(loaded, validation_V, unchanged, dtype, placing)
  return data.with_rewards(batches, rewards)
