"""Keeps images on the device as they come, and prepares batches in jit."""

import itertools
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from jaxnas.data.images import Images
from jaxnas.data.placing import ON_ONE, Placing
from jaxnas.nn import target
from jaxnas.runtime import rng

# An augmentation of one's own: (key, x_BxHxWxC) -> x_BxHxWxC, floats.
Own = Callable[[PRNGKeyArray, Array], Array]

# What is folded into the key of a step for it.
OWN = 2


@struct.dataclass
class DeviceImages:
  """Images as an argument of jitted steps, so that no program holds them.

  An image is a row of P pixels. Were its height and width axes, a TPU would lay
  out all images anew in every step, to have some of them in a batch.
  """

  x_NxP: Num[Array, 'N P']
  y_N: Int[Array, ' N']
  mean_C: Float[Array, ' C']
  std_C: Float[Array, ' C']
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  """H, W, C."""

  @classmethod
  def put(
    cls,
    source: Images,
    x_NxHxWxC: Num[np.ndarray, 'N H W C'],
    y_N: Int[np.ndarray, ' N'],
  ) -> 'DeviceImages':
    """Puts some images of a source on the device, with the source's moments."""
    count, *shape = x_NxHxWxC.shape
    return cls(
      jnp.asarray(x_NxHxWxC.reshape(count, math.prod(shape))),
      jnp.asarray(y_N, jnp.int32),
      jnp.asarray(source.mean_C, jnp.float32),
      jnp.asarray(source.std_C, jnp.float32),
      tuple(shape),
    )

  def pixels(self, indices_B: Int[Any, ' B']) -> Num[Array, 'B H W C']:
    """Returns some of the images."""
    return self.x_NxP[indices_B].reshape(len(indices_B), *self.shape)


@struct.dataclass
class Inputs:
  """Inputs of a step besides its number."""

  images: DeviceImages
  order_N: Int[Array, ' N']
  """Order of the images in this epoch."""
  key: Any
  """Key of the augmentation; a step folds its number in."""
  draw_key: Any
  """Key of draws by importance; a step folds its number in."""


def feed(
  images: DeviceImages,
  seed: int,
  step: int,
  steps_per_epoch: int,
  everywhere: Callable[[Any], Any] = lambda tree: tree,
) -> Generator[Inputs]:
  """Yields the inputs of a step and of those that follow, without end.

  `everywhere` puts them on the devices of the images.
  """
  keys = rng.key(seed, 'augment'), rng.key(seed, 'images')
  for epoch in itertools.count(step // steps_per_epoch):
    order_N = epoch_order(seed, epoch, len(images.y_N))
    inputs = Inputs(images, *everywhere((order_N, *keys)))
    while step < (epoch + 1) * steps_per_epoch:
      yield inputs
      step += 1


def epoch_order(seed: int, epoch: int, count: int) -> Int[Array, ' N']:
  """Returns a permutation of the images, a function of (seed, epoch).

  Batches of B are its first count // B * B entries; an epoch drops the rest.
  """
  return jnp.asarray(
    rng.generator(seed, 'order', epoch).permutation(count), jnp.int32
  )


class Changes(NamedTuple):
  """Numbers of the augmentation of each image; None: it is left out."""

  corners_Bx2: Int[Array, 'B 2'] | None = None
  """Upper left corner of a crop in the padded image."""
  mirrored_B: Bool[Array, ' B'] | None = None


def batch(
  images: DeviceImages,
  indices_B: Int[Array, ' B'],
  key: PRNGKeyArray | None = None,
  *,
  crop_padding: int = 0,
  flip: bool = False,
  dtype: Any = jnp.float32,
  own: Own | None = None,
  placing: Placing = ON_ONE,
) -> tuple[Float[Array, 'B H W C'], Int[Array, ' B']]:
  """Returns normalised images and labels; augments them where `key` is given.

  Every device has all numbers of the batch, and makes its own images of it. An
  augmentation of one's own may mix images: every device then makes all.

  Args:
    images: all images, on the device.
    indices_B: images of the batch.
    key: randomness of the augmentation.
    crop_padding: black pixels around the image before a random crop.
    flip: mirror half of the images.
    dtype: type of the returned images.
    own: a further augmentation, after crop and flip and before `normalise`.
    placing: of the devices, in a jitted program.
  """
  changes = Changes()
  if key is not None:
    changes = drawn(key, len(indices_B), crop_padding=crop_padding, flip=flip)

  def prepared(images: DeviceImages, rows: Any) -> Any:
    indices, changes = rows
    x = changed(images.pixels(indices), changes, crop_padding)
    return normalise(x, images.mean_C, images.std_C, dtype)

  numbers = placing.within((indices_B, changes))
  labels_B = placing.within(images.y_N[indices_B])
  if key is not None and own is not None:
    x = changed(images.pixels(indices_B), changes, crop_padding)
    x = own(jax.random.fold_in(key, OWN), as_floats(x))
    x = normalise(x, images.mean_C, images.std_C, dtype)
    return placing.within(x), labels_B
  return placing.by_rows(prepared)(images, numbers), labels_B


def normalise(
  x_BxHxWxC: Num[Array, 'B H W C'],
  mean_C: Float[Array, ' C'],
  std_C: Float[Array, ' C'],
  dtype: Any = jnp.float32,
) -> Float[Array, 'B H W C']:
  """Scales pixels to zero mean and unit deviation in float32, then casts."""
  return ((as_floats(x_BxHxWxC) - mean_C) / std_C).astype(dtype)


def as_floats(x_BxHxWxC: Num[Array, 'B H W C']) -> Float[Array, 'B H W C']:
  """Returns bytes as 0 to 1, and floats as they are."""
  if jnp.issubdtype(x_BxHxWxC.dtype, jnp.floating):
    return x_BxHxWxC
  return x_BxHxWxC / 255.0


def augment(
  key: PRNGKeyArray,
  x_BxHxWxC: Num[Array, 'B H W C'],
  *,
  crop_padding: int,
  flip: bool,
) -> Num[Array, 'B H W C']:
  """Crops each zero-padded image at random, then mirrors it at random."""
  changes = drawn(key, len(x_BxHxWxC), crop_padding=crop_padding, flip=flip)
  return changed(x_BxHxWxC, changes, crop_padding)


def drawn(
  key: PRNGKeyArray, count: int, *, crop_padding: int, flip: bool
) -> Changes:
  """Draws the numbers of `augment`."""
  crop_key, flip_key = jax.random.split(key)
  corners_Bx2 = mirrored_B = None
  if crop_padding:
    corners_Bx2 = jax.random.randint(
      crop_key, (count, 2), 0, 2 * crop_padding + 1
    )
  if flip:
    mirrored_B = jax.random.bernoulli(flip_key, shape=(count,))
  return Changes(corners_Bx2, mirrored_B)


def changed(
  x_BxHxWxC: Num[Array, 'B H W C'], changes: Changes, crop_padding: int
) -> Num[Array, 'B H W C']:
  """Crops and mirrors each image as its numbers say.

  The padding is black in raw pixels, so it must come before `normalise`.
  """
  _, height, width, _ = x_BxHxWxC.shape
  if changes.corners_Bx2 is not None:
    pad = (crop_padding, crop_padding)
    padded = jnp.pad(x_BxHxWxC, ((0, 0), pad, pad, (0, 0)))
    cut = _selected if target.backend() == 'tpu' else _gathered
    x_BxHxWxC = cut(padded, changes.corners_Bx2, height, width)
  if changes.mirrored_B is not None:
    mirrored = changes.mirrored_B[:, None, None, None]
    x_BxHxWxC = jnp.where(mirrored, x_BxHxWxC[:, :, ::-1], x_BxHxWxC)
  return x_BxHxWxC


def _gathered(
  padded: Num[Array, 'B _ _ C'],
  corners_Bx2: Int[Array, 'B 2'],
  height: int,
  width: int,
) -> Num[Array, 'B H W C']:
  """Cuts a part of each image, pixel by pixel."""
  rows_BxH = corners_Bx2[:, :1] + jnp.arange(height)
  columns_BxW = corners_Bx2[:, 1:] + jnp.arange(width)
  return padded[
    jnp.arange(len(padded))[:, None, None],
    rows_BxH[:, :, None],
    columns_BxW[:, None, :],
  ]


def _selected(
  padded: Num[Array, 'B _ _ C'],
  corners_Bx2: Int[Array, 'B 2'],
  height: int,
  width: int,
) -> Num[Array, 'B H W C']:
  """Selects among all the parts, where gathering pixels is slow.

  A TPU gathers one after the other. A CPU takes 57 ms for 512 images of CIFAR
  instead of 0.5, since it makes all parts.
  """
  x = padded
  for axis, side in (1, height), (2, width):
    at_B = jnp.expand_dims(corners_Bx2[:, axis - 1], (1, 2, 3))
    whole, x = x, jax.lax.slice_in_dim(x, 0, side, axis=axis)
    for at in range(1, whole.shape[axis] - side + 1):
      part = jax.lax.slice_in_dim(whole, at, at + side, axis=axis)
      x = jnp.where(at_B == at, part, x)
  return x
