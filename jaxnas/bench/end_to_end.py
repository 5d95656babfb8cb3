"""Seconds from images to a ranking of all architectures by `jaxnas.train`.

A short run: four epochs, the density of every architecture, an epoch debiased
by it, and every architecture ranked. PyTorch does the same path by path; its
seconds are scaled from parts (see `torch_end_to_end`).
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxnas import spaces
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.runtime import files, ledger
from jaxnas.runtime.rng import generator

SPACE = 'nas_bench_macro'
CONFIG = 'macro_cpu.py'
EPOCHS = 5
IMAGES = 25_000
"""To train on; there are as many to validate on, as the config says."""
RANKED_ON = 2000
"""Images to rank on; the same share of them where there are fewer or more."""
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
        'jaxnas.bench.torch_end_to_end:theirs',
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
  """Measures the command, from its start to its last file.

  Compiling counts, unless the user's cache has the programs.

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
    taken = command(argv, workdir)
    show('jaxnas', taken)
    return sum(taken.values())

  return measure


def command(argv: list[str], workdir: Path) -> dict[str, float]:
  """Runs `jaxnas.train`; returns its seconds by the parts of its ledger."""
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, '-m', 'jaxnas.train', *argv, f'--workdir={workdir}'],
    check=True,
  )
  whole = time.perf_counter() - start
  taken = files.read_json(workdir / ledger.FILE, {'seconds': dict})['seconds']
  return {**taken, 'the rest': whole - sum(taken.values())}


def show(side: str, taken: Mapping[str, float]) -> None:
  """Prints the seconds of a side, piece by piece."""
  pieces = ', '.join(f'{name} {value:.1f} s' for name, value in taken.items())
  print(f'{side}: {pieces}', file=sys.stderr)


def write_noise(
  file: Path, space: spaces.Space, images: int, seed: int
) -> None:
  """Writes twice as many images, to divide into training and validation."""
  rng = generator(seed, 'images')
  arrays = {}
  for part, count in (('train', 2 * images), ('test', space.classes)):
    shape = (count, *space.image_shape)
    arrays[f'x_{part}'] = rng.integers(0, 256, shape, np.uint8)
    # Every class is there, however few the images.
    arrays[f'y_{part}'] = np.arange(count, dtype=np.int32) % space.classes
  files.write_npz(file, arrays)
