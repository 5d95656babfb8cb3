"""Images on the device as uint8: indexed, cropped, flipped, scaled in jit."""

import itertools
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jaxnas import streams
from jaxnas.data.images import Images


@struct.dataclass
class DeviceImages:
  """An argument of jitted steps, so that no program holds the images."""

  x_NxHxWxC: UInt8[Array, 'N H W C']
  y_N: Int[Array, ' N']
  mean_C: Float[Array, ' C']
  std_C: Float[Array, ' C']

  @classmethod
  def put(
    cls,
    source: Images,
    x_NxHxWxC: UInt8[np.ndarray, 'N H W C'],
    y_N: Int[np.ndarray, ' N'],
  ) -> 'DeviceImages':
    """Some images of a source, with its mean and standard deviation."""
    return cls(
      jnp.asarray(x_NxHxWxC),
      jnp.asarray(y_N, jnp.int32),
      jnp.asarray(source.mean_C, jnp.float32),
      jnp.asarray(source.std_C, jnp.float32),
    )


@struct.dataclass
class Inputs:
  """What a step needs besides its number."""

  images: DeviceImages
  order_N: Int[Array, ' N']
  """Of the images in this epoch."""
  key: Any
  """Of the augmentation; a step folds its number in."""
  draw_key: Any
  """Of draws by importance; a step folds its number in."""


def feed(
  images: DeviceImages,
  seed: int,
  step: int,
  steps_per_epoch: int,
  everywhere: Callable[[Any], Any] = lambda tree: tree,
) -> Generator[Inputs]:
  """Inputs of a step and of those that follow, without end.

  `everywhere` puts them where the images lie.
  """
  keys = streams.key(seed, 'augment'), streams.key(seed, 'images')
  for epoch in itertools.count(step // steps_per_epoch):
    order_N = epoch_order(seed, epoch, len(images.y_N))
    inputs = Inputs(images, *everywhere((order_N, *keys)))
    while step < (epoch + 1) * steps_per_epoch:
      yield inputs
      step += 1


def epoch_order(seed: int, epoch: int, count: int) -> Int[Array, ' N']:
  """A permutation of the images; a function of (seed, epoch).

  Batches of B are its first count // B * B entries; an epoch drops the rest.
  """
  return jnp.asarray(
    streams.rng(seed, 'order', epoch).permutation(count), jnp.int32
  )


def batch(
  images: DeviceImages,
  indices_B: Int[Array, ' B'],
  key: PRNGKeyArray | None = None,
  *,
  crop_padding: int = 0,
  flip: bool = False,
  dtype: Any = jnp.float32,
) -> tuple[Float[Array, 'B H W C'], Int[Array, ' B']]:
  """Normalised images and labels; augmented where there is a key.

  Args:
    images: on the device.
    indices_B: which of them.
    key: of the augmentation.
    crop_padding: black pixels around the image before a random crop.
    flip: mirror half of the images.
    dtype: of the images.
  """
  x_BxHxWxC = images.x_NxHxWxC[indices_B]
  if key is not None:
    x_BxHxWxC = augment(key, x_BxHxWxC, crop_padding=crop_padding, flip=flip)
  return (
    normalise(x_BxHxWxC, images.mean_C, images.std_C, dtype),
    images.y_N[indices_B],
  )


def normalise(
  x_BxHxWxC: UInt8[Array, 'B H W C'],
  mean_C: Float[Array, ' C'],
  std_C: Float[Array, ' C'],
  dtype: Any = jnp.float32,
) -> Float[Array, 'B H W C']:
  """Pixels to zero mean and unit deviation, in float32 before the cast."""
  return ((x_BxHxWxC / 255.0 - mean_C) / std_C).astype(dtype)


def augment(
  key: PRNGKeyArray,
  x_BxHxWxC: UInt8[Array, 'B H W C'],
  *,
  crop_padding: int,
  flip: bool,
) -> UInt8[Array, 'B H W C']:
  """Random crop of the zero-padded image, then a random mirror, per image.

  The padding is black in raw pixels, so it must come before `normalise`.
  """
  count, height, width, _ = x_BxHxWxC.shape
  crop_key, flip_key = jax.random.split(key)
  if crop_padding:
    corners_Bx2 = jax.random.randint(
      crop_key, (count, 2), 0, 2 * crop_padding + 1
    )
    pad = (crop_padding, crop_padding)
    padded = jnp.pad(x_BxHxWxC, ((0, 0), pad, pad, (0, 0)))
    rows_BxH = corners_Bx2[:, :1] + jnp.arange(height)
    columns_BxW = corners_Bx2[:, 1:] + jnp.arange(width)
    x_BxHxWxC = padded[
      jnp.arange(count)[:, None, None],
      rows_BxH[:, :, None],
      columns_BxW[:, None, :],
    ]
  if flip:
    mirrored_B = jax.random.bernoulli(flip_key, shape=(count,))
    x_BxHxWxC = jnp.where(
      mirrored_B[:, None, None, None], x_BxHxWxC[:, :, ::-1], x_BxHxWxC
    )
  return x_BxHxWxC
