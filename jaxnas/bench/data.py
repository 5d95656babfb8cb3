"""Batches to train on: ours against PyTorch's DataLoader.

Photos are decoded from the same JPEG files by as many processes as there are
cores; CIFAR's images lie on the device, or in the memory of the workers. Both
sides end with normalised float32 images on the device, and nothing trains.
PyTorch's sides are in `torch_data`.
"""

import contextlib
import io
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnas import data
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.data import Images, Training, cifar
from jaxnas.runtime.rng import generator

PHOTOS = 256
CIFAR = 50_000
SIZE = 224
"""Pixels of a side of the crops of photos."""
PADDING = 4
"""Pixels around CIFAR's images before they are cropped."""
SIDES = (500, 375)
"""Pixels of photos, as most of ImageNet's have; every other one is upright."""


def cases(options: Options) -> list[Case]:
  """Images/s of photos and of CIFAR."""
  workers = len(os.sched_getaffinity(0))
  photos = {
    'photos': options.images or PHOTOS,
    'size': SIZE,
    'batch_size': options.batch_size or 64,
    'workers': workers,
    'seed': options.seed,
  }
  resident = {
    'images': options.images or CIFAR,
    'batch_size': options.batch_size or 512,
    'seed': options.seed,
  }
  return [
    Case(
      'data',
      f'JPEG photos to {SIZE}x{SIZE}, {workers} workers, against DataLoader',
      'images/s',
      Side(f'{__name__}:ours_photos', photos),
      Side('jaxnas.bench.torch_data:theirs_photos', photos),
    ),
    Case(
      'data',
      f'CIFAR in memory, cropped, against DataLoader of {workers} workers',
      'images/s',
      Side(f'{__name__}:ours_cifar', resident),
      Side(
        'jaxnas.bench.torch_data:theirs_cifar', {**resident, 'workers': workers}
      ),
    ),
  ]


def ours_photos(
  *, photos: int, size: int, batch_size: int, workers: int, seed: int
) -> Callable[[], float]:
  """Feeds batches as a run on ImageNet gets them."""
  folder = write_photos(photos, seed)
  loaded = data.load('imagenet', folder.name, size=size, workers=workers)
  training = data.training(
    loaded,
    np.arange(photos),
    batch_size=batch_size,
    crop_padding=0,
    flip=True,
    dtype=jnp.float32,
  )
  batches = while_used(folder, ours(training, seed))
  return rate(batches, batch_size, workers, _wait_for_jax)


def ours_cifar(
  *, images: int, batch_size: int, seed: int
) -> Callable[[], float]:
  """Keeps images on the device, and crops them there."""
  training = cifar_training(noise(images, seed), batch_size)
  return rate(ours(training, seed), batch_size, 8, _wait_for_jax)


def cifar_training(source: Images, batch_size: int) -> Training:
  """Returns the pipeline of a run that trains on all images of a source."""
  return data.training(
    source,
    np.arange(len(source.y_train)),
    batch_size=batch_size,
    crop_padding=PADDING,
    flip=True,
    dtype=jnp.float32,
  )


def ours(training: Training, seed: int) -> Generator[Any]:
  """Yields the batches that steps would see, without end."""

  @jax.jit
  def batch(inputs, step):
    _, indices_B = training.order.draw((), inputs, step)
    return training.batch(inputs, step, indices_B)

  with contextlib.closing(training.feed(seed, 0)) as feed:
    for step, inputs in enumerate(feed):
      yield batch(inputs, step)


def noise(images: int, seed: int) -> Images:
  """Makes a source that is like CIFAR-10 in everything but its pixels."""
  rng = generator(seed, 'images')
  x_NxHxWxC = rng.integers(0, 256, (images, 32, 32, 3), np.uint8)
  y_N = rng.integers(10, size=images).astype(np.int32)
  moments = np.array(cifar.CIFAR10.mean_C), np.array(cifar.CIFAR10.std_C)
  return Images(x_NxHxWxC, y_N, x_NxHxWxC[:1], y_N[:1], 10, *moments)


def write_photos(count: int, seed: int) -> tempfile.TemporaryDirectory:
  """Makes a folder for `data.load('imagenet')`; it goes when it is let go."""
  folder = tempfile.TemporaryDirectory(prefix='jaxnas-photos-')
  for index in range(count):
    content = photo(seed, index)
    for split in ('train', 'val')[: 2 if index < 2 else 1]:
      file = Path(folder.name, split, str(index % 2), f'{index:05d}.jpeg')
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(content)
  return folder


def photo(seed: int, index: int) -> bytes:
  """Makes a JPEG file of noise at three scales: about 100 kB, as ImageNet's."""
  rng = generator(seed, 'photo', index)
  width, height = SIDES if index % 2 else SIDES[::-1]

  def at_scale(scale: int) -> UInt8[np.ndarray, 'H W C']:
    shape = (height // scale, width // scale, 3)
    coarse = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    return np.asarray(coarse.resize((width, height)))

  x_HxWxC = 0.5 * at_scale(64) + 0.2 * at_scale(8) + 0.3 * at_scale(2)
  file = io.BytesIO()
  Image.fromarray(x_HxWxC.astype(np.uint8)).save(file, 'JPEG', quality=90)
  return file.getvalue()


def rate(
  batches: Generator[Any],
  batch_size: int,
  workers: int,
  wait: Callable[[Any], None],
) -> Callable[[], float]:
  """Measures images/s of a pipeline that runs on between measurements."""
  # A worker makes at most four batches before anybody asks.
  ahead, timed = 4 * workers + 2, 8 * max(workers, 1)

  def take(count: int) -> None:
    for _ in range(count - 1):
      next(batches)
    wait(next(batches))

  def measure() -> float:
    take(ahead)
    start = time.perf_counter()
    take(timed)
    return timed * batch_size / (time.perf_counter() - start)

  take(1)
  # At exit too, while there is an interpreter to end processes and threads.
  weakref.finalize(measure, batches.close)
  return measure


def _wait_for_jax(batch: Any) -> None:
  jax.block_until_ready(batch)


def while_used(folder: Any, batches: Generator[Any]) -> Generator[Any]:
  """Yields the batches, and deletes the folder after them."""
  with folder:
    yield from batches
