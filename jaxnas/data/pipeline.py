"""Makes batches of a data set, in memory or streamed from its files."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxnas.data import device, stream
from jaxnas.data.images import Images
from jaxnas.data.importance import by_importance
from jaxnas.data.order import Order, shuffled
from jaxnas.data.photos import Photos
from jaxnas.data.placing import ON_ONE, Placing
from jaxnas.runtime import rng

DataSet = Images | Photos


class Training(NamedTuple):
  """Batches to train on, a function of (seed, step)."""

  feed: Callable[[int, int], Generator[Any]]
  """(seed, step) -> inputs of that step and of those that follow."""
  batch: Callable[[Any, Int[Array, ''], Any], tuple[Array, Array]]
  """(inputs, step, indices_B) -> images as the network takes them and labels,
  in jit; the indices are those of `order`."""
  steps_per_epoch: int
  """Number of batches that the images fill; a budget may want fewer."""
  images: int
  """Number of images to train on."""
  order: Order = Order()
  reward: Callable[[Any, Int[Array, '']], tuple[Array, Array]] | None = None
  """(inputs, step) -> validation images and labels, in jit, where the feed
  brings them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Normalise:
  """Turns pixels into the inputs of a network."""

  mean_C: Float[np.ndarray, ' C']
  """Mean of the training pixels, as floats."""
  std_C: Float[np.ndarray, ' C']
  dtype: Any
  pixels: Any = np.uint8
  """Type in which pixels come: bytes, or float32 as they are."""

  def __call__(
    self, x_BxHxWxC: Num[Array, 'B H W C']
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
  """Indices below `count` -> images as they are kept and labels, on the
  device."""
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
  own: device.Own | None = None,
  placing: Placing = ON_ONE,
) -> Training:
  """Makes augmented batches of some training images.

  Args:
    images: the data set. Images in memory are cropped with `crop_padding`,
      streamed ones to random parts.
    indices_T: the training images to use.
    batch_size: B; an epoch drops the rest of T / B.
    crop_padding: black pixels around an image before a random crop.
    flip: mirror half of the images.
    dtype: type of the network's inputs.
    own: a further augmentation; see `device.batch`.
    placing: puts batches on the devices of training.

  Raises ValueError where the images do not fill a batch.
  """
  steps = len(indices_T) // batch_size
  if steps == 0:
    raise ValueError(
      f'data.batch_size {batch_size} is above the {len(indices_T)} training '
      'images.'
    )
  if isinstance(images, Photos):
    return _streamed(images, indices_T, batch_size, flip, dtype, own, placing)
  resident = placing.everywhere(
    device.DeviceImages.put(
      images, images.x_train[indices_T], images.y_train[indices_T]
    )
  )

  def batch(inputs: device.Inputs, step, indices_B):
    return device.batch(
      inputs.images,
      indices_B,
      jax.random.fold_in(inputs.key, step),
      crop_padding=crop_padding,
      flip=flip,
      dtype=dtype,
      own=own,
      placing=placing,
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
  own: device.Own | None,
  placing: Placing,
) -> Training:
  normalise = Normalise(images.mean_C, images.std_C, dtype)

  def feed(seed, step):
    batches = stream.feed(
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
    return batches if own is None else with_key(batches, seed)

  def with_key(batches, seed):
    key = placing.everywhere(rng.key(seed, 'augment'))
    with contextlib.closing(batches):
      for x_BxHxWxC, y_B in batches:
        yield x_BxHxWxC, y_B, key

  def batch(inputs, step, indices_B):
    del indices_B
    x_BxHxWxC, y_B, *key = inputs
    if own is not None:
      key = jax.random.fold_in(key[0], step)
      x_BxHxWxC = own(key, device.as_floats(x_BxHxWxC))
    return normalise(x_BxHxWxC), y_B

  return Training(feed, batch, len(indices_T) // batch_size, len(indices_T))


def with_rewards(training: Training, validation: Training) -> Training:
  """Puts a batch of validation beside each batch of training."""

  def feed(seed, step):
    with (
      contextlib.closing(training.feed(seed, step)) as inputs,
      contextlib.closing(
        validation.feed(rng.child_seed(seed, 'rewards'), step)
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
  """Draws the images by importance instead.

  Args:
    training: batches of images in memory.
    batch_size: B.
    epochs: number of epochs in the whole run.
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
  """Takes some images of the 'train' or 'test' part."""
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
  normalise = dataclasses.replace(normalise, pixels=images.x_train.dtype)
  x_NxHxWxC, y_N = getattr(images, f'x_{part}'), getattr(images, f'y_{part}')
  resident = device.DeviceImages.put(
    images, x_NxHxWxC[indices_M], y_N[indices_M]
  )
  return Split(
    lambda indices_B: (resident.pixels(indices_B), resident.y_N[indices_B]),
    len(indices_M),
    normalise,
  )
