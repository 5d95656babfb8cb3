"""From a data set to batches, in memory or streamed from its files."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxnas import streams
from jaxnas.data import device, stream
from jaxnas.data.images import Images
from jaxnas.data.importance import by_importance
from jaxnas.data.order import Order, shuffled
from jaxnas.data.photos import Photos
from jaxnas.data.placing import ON_ONE, Placing

DataSet = Images | Photos


class Training(NamedTuple):
  """The batches of training, a function of (seed, step)."""

  feed: Callable[[int, int], Generator[Any]]
  """(seed, step) -> inputs of that step and of those that follow."""
  batch: Callable[[Any, Int[Array, ''], Any], tuple[Array, Array]]
  """(inputs, step, indices_B) -> images as the network takes them and labels,
  in jit; the indices are those of `order`."""
  steps_per_epoch: int
  """As many as the images fill; a budget may want fewer."""
  images: int
  """How many there are to train on."""
  order: Order = Order()
  reward: Callable[[Any, Int[Array, '']], tuple[Array, Array]] | None = None
  """(inputs, step) -> validation images and labels, in jit, where the feed
  brings them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Normalise:
  """Pixels as a network takes them."""

  mean_C: Float[np.ndarray, ' C']
  """Of training pixels, in [0, 1]."""
  std_C: Float[np.ndarray, ' C']
  dtype: Any

  def __call__(
    self, x_BxHxWxC: UInt8[Array, 'B H W C']
  ) -> Float[Array, 'B H W C']:
    mean_C, std_C = (
      jnp.asarray(moment_C, jnp.float32)
      for moment_C in (self.mean_C, self.std_C)
    )
    return device.normalise(x_BxHxWxC, mean_C, std_C, self.dtype)


@dataclasses.dataclass(frozen=True)
class Split:
  """Images of one purpose, prepared without augmentation."""

  read: Callable[[Int[np.ndarray, ' B']], tuple[Any, Any]]
  """Indices below `count` -> uint8 images and labels, on the device."""
  count: int
  normalise: Normalise

  def __len__(self) -> int:
    return self.count

  def batch(
    self, indices_B: Int[np.ndarray, ' B']
  ) -> tuple[Float[Array, 'B H W C'], Int[Array, ' B']]:
    x_BxHxWxC, y_B = self.read(indices_B)
    return self.normalise(x_BxHxWxC), y_B


def training(
  images: DataSet,
  indices_T: Int[np.ndarray, ' T'],
  *,
  batch_size: int,
  crop_padding: int,
  flip: bool,
  dtype: Any,
  placing: Placing = ON_ONE,
) -> Training:
  """Augmented batches of some training images.

  Args:
    images: the data set. One in memory is cropped with `crop_padding`; a
      streamed one to random parts of the image.
    indices_T: which of its training images.
    batch_size: B; an epoch drops the rest of T / B.
    crop_padding: black pixels around an image before a random crop.
    flip: mirror half of the images.
    dtype: of the images.
    placing: on the devices of training.

  Raises ValueError where they do not fill a batch.
  """
  steps = len(indices_T) // batch_size
  if steps == 0:
    raise ValueError(
      f'data.batch_size {batch_size} is above the {len(indices_T)} training '
      'images.'
    )
  if isinstance(images, Photos):
    return _streamed(images, indices_T, batch_size, flip, dtype, placing)
  resident = placing.everywhere(
    device.DeviceImages.put(
      images, images.x_train[indices_T], images.y_train[indices_T]
    )
  )

  def batch(inputs: device.Inputs, step, indices_B):
    return placing.within(
      device.batch(
        inputs.images,
        indices_B,
        jax.random.fold_in(inputs.key, step),
        crop_padding=crop_padding,
        flip=flip,
        dtype=dtype,
      )
    )

  return Training(
    lambda seed, step: device.feed(
      resident, seed, step, steps, placing.everywhere
    ),
    batch,
    steps,
    len(indices_T),
    shuffled(steps, batch_size),
  )


def _streamed(
  images: Photos,
  indices_T: Int[np.ndarray, ' T'],
  batch_size: int,
  flip: bool,
  dtype: Any,
  placing: Placing,
) -> Training:
  normalise = Normalise(images.mean_C, images.std_C, dtype)

  def feed(seed, step):
    return stream.feed(
      images.train,
      indices_T,
      seed=seed,
      batch_size=batch_size,
      size=images.size,
      flip=flip,
      workers=images.workers,
      on_error=images.on_error,
      skipped=images.skipped,
      placing=placing,
    )(step)

  def batch(inputs, step, indices_B):
    del step, indices_B
    x_BxHxWxC, y_B = inputs
    return normalise(x_BxHxWxC), y_B

  return Training(feed, batch, len(indices_T) // batch_size, len(indices_T))


def with_rewards(training: Training, validation: Training) -> Training:
  """The batches of training, each with one of validation beside it."""

  def feed(seed, step):
    with (
      contextlib.closing(training.feed(seed, step)) as inputs,
      contextlib.closing(
        validation.feed(streams.child(seed, 'rewards'), step)
      ) as others,
    ):
      yield from zip(inputs, others, strict=True)

  def draw(state, inputs, step):
    return training.order.draw(state, inputs[0], step)

  def reward(inputs, step):
    _, indices_B = validation.order.draw((), inputs[1], step)
    return validation.batch(inputs[1], step, indices_B)

  return training._replace(
    feed=feed,
    batch=lambda inputs, *drawn: training.batch(inputs[0], *drawn),
    order=training.order._replace(draw=draw),
    reward=reward,
  )


def with_importance(
  training: Training, batch_size: int, epochs: int
) -> Training:
  """The same images, drawn by importance.

  Args:
    training: of images in memory.
    batch_size: B.
    epochs: of the whole run.
  """
  return training._replace(
    order=by_importance(
      training.images,
      batch_size,
      steps_per_epoch=training.steps_per_epoch,
      epochs=epochs,
    )
  )


def split(
  images: DataSet, part: str, indices_M: Int[np.ndarray, ' M'], dtype: Any
) -> Split:
  """Some images of the 'train' or 'test' part."""
  normalise = Normalise(images.mean_C, images.std_C, dtype)
  if isinstance(images, Photos):

    def read(indices_B: Int[np.ndarray, ' B']) -> tuple[Any, Any]:
      x_BxHxWxC, y_B = stream.read(
        getattr(images, part),
        indices_M[indices_B],
        size=images.size,
        on_error=images.on_error,
        skipped=images.skipped,
      )
      return jnp.asarray(x_BxHxWxC), jnp.asarray(y_B)

    return Split(read, len(indices_M), normalise)
  x_NxHxWxC, y_N = getattr(images, f'x_{part}'), getattr(images, f'y_{part}')
  resident = device.DeviceImages.put(
    images, x_NxHxWxC[indices_M], y_N[indices_M]
  )
  return Split(
    lambda indices_B: (resident.x_NxHxWxC[indices_B], resident.y_N[indices_B]),
    len(indices_M),
    normalise,
  )
