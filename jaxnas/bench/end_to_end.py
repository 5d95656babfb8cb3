"""From images to a ranking of all architectures: `jaxnas.train` as it is.

A short run: four epochs, the density of every architecture, an epoch debiased
by it, and every architecture ranked. PyTorch does the same path by path; its
seconds are scaled from parts (see `torch_end_to_end`).
"""

import contextlib
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import runs, spaces, streams
from jaxnas.bench.cases import Case, Options, Side

SPACE = 'nas_bench_macro'
CONFIG = 'macro_cpu.py'
EPOCHS = 5
IMAGES = 25_000
"""To train on; there are as many to validate on, as the config says."""
RANKED_ON = 2000
"""As a share of the images, where there are fewer or more."""
DENSITY_IMAGES = 64
RANKING_BATCH = 500
MEMORY_GB = 10.0
"""Enough to keep the gradients of all, as PyTorch does."""


def cases(options: Options) -> list[Case]:
  """Seconds of the whole; `options` make it smaller."""
  images = options.images or IMAGES
  given = {
    'space': SPACE,
    'archs': options.archs,
    'images': images,
    'ranked_on': max(images * RANKED_ON // IMAGES, 1),
    'epochs': EPOCHS,
    'batch_size': options.batch_size or 64,
    'seed': options.seed,
  }
  data_dir = None if options.data_dir is None else str(options.data_dir)
  count = options.archs or spaces.get(SPACE).size
  return [
    Case(
      'end_to_end',
      f'{SPACE}: {EPOCHS} epochs of {images} images, density, ranking of '
      f'{count} on {given["ranked_on"]}, PyTorch scaled',
      's',
      Side(f'{__name__}:ours', {**given, 'data_dir': data_dir}),
      Side(
        f'{__name__}:torch_by_path',
        {**given, 'steps': 50, 'gradients': 32, 'ranked': 100},
      ),
      rounds=1,
    )
  ]


def ours(
  *,
  space: str,
  archs: int | None,
  images: int,
  ranked_on: int,
  epochs: int,
  batch_size: int,
  seed: int,
  data_dir: str | None,
) -> Callable[[], float]:
  """The command, from reading its images to its last file.

  What it compiles counts, unless the user's cache has it.

  Args:
    space: whose architectures.
    archs: how many are ranked; None: all. The density is always of all.
    images: to train on, where there is no `data_dir`.
    ranked_on: validation images.
    epochs: of training, the last of them debiased.
    batch_size: of training.
    seed: of everything.
    data_dir: a folder with CIFAR-10; None: noise.
  """
  folder = tempfile.TemporaryDirectory(prefix='jaxnas-end-to-end-')
  name, source = 'cifar10', data_dir
  if source is None:
    name, source = 'arrays', str(Path(folder.name, 'images.npz'))
    write_noise(Path(source), spaces.get(space), images, seed)
  flags = {
    'config': CONFIG,
    'seed': seed,
    'space': space,
    'warmup_epochs': epochs - 1,
    'epochs': 1,
    'data.name': name,
    'data.dir': source,
    'data.train_fraction': 0.5,
    'data.batch_size': batch_size,
    'density.batch_size': min(DENSITY_IMAGES, images),
    'density.memory_gb': MEMORY_GB,
    'ranking.archs': archs,
    'ranking.images': ranked_on,
    'ranking.batch_size': RANKING_BATCH,
  }
  argv = [f'--{name}={value}' for name, value in flags.items()]

  def measure() -> float:
    workdir = Path(tempfile.mkdtemp(dir=folder.name), 'run')
    taken = command([*argv, f'--workdir={workdir}'])
    show('jaxnas', taken)
    return sum(taken.values())

  return measure


def torch_by_path(
  *,
  space: str,
  archs: int | None,
  images: int,
  ranked_on: int,
  epochs: int,
  batch_size: int,
  seed: int,
  steps: int,
  gradients: int,
  ranked: int,
) -> Callable[[], float]:
  """Scaled seconds of the same; the last three are what is timed."""
  from jaxnas.bench import torch_end_to_end, torch_step

  torch_step.use_pinned_cores()
  of = spaces.get(space)
  whole = torch_end_to_end.Whole(
    of,
    archs or of.size,
    steps=epochs * (images // batch_size),
    batch_size=batch_size,
    density_images=min(DENSITY_IMAGES, images),
    ranking_images=ranked_on,
    ranking_batch=RANKING_BATCH,
    seed=seed,
  )

  def measure() -> float:
    taken = torch_end_to_end.seconds(
      whole, steps=steps, gradients=gradients, ranked=ranked
    )
    show('PyTorch, scaled', taken)
    return sum(taken.values())

  return measure


def command(argv: list[str]) -> dict[str, float]:
  """Runs jaxnas.train; seconds of training, density, ranking and the rest."""
  from jaxnas import density_config, ranking, train

  taken: dict[str, float] = defaultdict(float)
  start = time.perf_counter()
  with (
    _timed(taken, 'training', train, 'train_supernet'),
    _timed(taken, 'density', density_config, 'estimate'),
    _timed(taken, 'ranking', ranking, 'predict'),
  ):
    train.main(argv)
  whole = time.perf_counter() - start
  # The density is estimated within training.
  taken['training'] -= taken['density']
  return {**taken, 'the rest': whole - sum(taken.values())}


def show(side: str, taken: Mapping[str, float]) -> None:
  pieces = ', '.join(f'{name} {value:.1f} s' for name, value in taken.items())
  print(f'{side}: {pieces}', file=sys.stderr)


def write_noise(
  file: Path, space: spaces.Space, images: int, seed: int
) -> None:
  """Twice as many to divide into training and validation, as an npz."""
  rng = streams.rng(seed, 'images')
  arrays = {}
  for part, count in (('train', 2 * images), ('test', space.classes)):
    shape = (count, *space.image_shape)
    arrays[f'x_{part}'] = rng.integers(0, 256, shape, np.uint8)
    # Every class is there, however few the images.
    arrays[f'y_{part}'] = np.arange(count, dtype=np.int32) % space.classes
  runs.write_npz(file, arrays)


@contextlib.contextmanager
def _timed(
  taken: dict[str, float], piece: str, module: Any, name: str
) -> Iterator[None]:
  """Adds up what a function of a module takes: the command has no clock."""
  real = getattr(module, name)

  @functools.wraps(real)
  def timed(*args, **kwargs):
    start = time.perf_counter()
    try:
      return real(*args, **kwargs)
    finally:
      taken[piece] += time.perf_counter() - start

  setattr(module, name, timed)
  try:
    yield
  finally:
    setattr(module, name, real)
