"""NATS-Bench's topology space, which is NAS-Bench-201, as arrays.

Dong et al. 2021 publish it as pickles: one file of everything, or a folder with
a file for each architecture. Not run on the real single file.
"""

import numbers
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas.runtime import pickles, progress
from jaxnas.spaces import Space
from jaxnas.truth import formats

# Data set and part of its images, as the benchmark calls them.
_TESTS = {
  'cifar10': ('cifar10', 'ori-test'),
  'cifar100': ('cifar100', 'x-test'),
  'imagenet16_120': ('ImageNet16-120', 'x-test'),
}
_EPOCHS = 200
_META = 'meta.pickle.pbz2'
TAKEN = (
  'NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder NATS-tss-v1_0-3ffb9-simple'
)


def check(source: Path) -> None:
  """Raises an error where a source can't be the benchmark, before it is read.

  Raises:
    FileNotFoundError: a folder lacks the file that all others are listed in.
    ValueError: a file does not begin as a pickle does.
  """
  if not source.is_dir():
    if not pickles.begins(source):
      raise ValueError(f'{source} is no pickle: give {TAKEN}.')
  elif not (source / _META).is_file():
    raise FileNotFoundError(f'{source} lacks {_META}: give {TAKEN}.')


def read(source: Path, space: Space) -> dict[str, np.ndarray]:
  """Reads test accuracies after 200 epochs, means over all seeds published.

  Args:
    source: the folder NATS-tss-v1_0-3ffb9-simple, or the file
      NATS-tss-v1_0-3ffb9.pickle.pbz2 where memory holds all of it.
    space: nas_bench_201; each of its architectures must be there once.

  Returns:
    ops (int8; rows in the benchmark's order, a column a position), op_names,
    and percent as float32: cifar10_test, cifar100_test, imagenet16_test.

  Raises:
    FileNotFoundError: names the file that is missing.
    ValueError: names the file, the architecture and what is wrong with it.
  """
  folder = source.is_dir()
  content = pickles.read(source / _META if folder else source)
  archs = _entry(f'{source}', content, 'meta_archs', list)
  ops_AxE = _ops(source, archs, space)
  infos = {} if folder else _entry(f'{source}', content, 'arch2infos', dict)
  accuracies = np.zeros((len(archs), len(_TESTS)), np.float32)
  with progress.bar('reading architectures', len(archs)) as advance:
    for a, arch in enumerate(archs):
      if folder:
        info = pickles.read(source / f'{a:06d}.pickle.pbz2')
      elif a in infos:
        info = infos[a]
      else:
        raise ValueError(f'{source}: architecture {a}, {arch}, is missing.')
      accuracies[a] = _accuracies(f'{source}: architecture {a}', arch, info)
      advance(1, '')
  return {
    'ops': ops_AxE,
    'op_names': np.array(space.ops[0]),
    **{
      formats.COLUMNS[images]: accuracies[:, column]
      for column, images in enumerate(_TESTS)
    },
  }


def _ops(source: Path, archs: list, space: Space) -> Int[np.ndarray, 'A E']:
  ops_AxE = np.zeros((len(archs), space.positions), np.int8)
  for a, arch in enumerate(archs):
    try:
      ops_AxE[a] = space.parse(str(arch))
    except ValueError as error:
      raise ValueError(f'{source}: architecture {a}: {error}') from error
  try:
    formats.rows(space, ops_AxE)
  except ValueError as error:
    raise ValueError(f'{source}: {error}') from error
  return ops_AxE


def _accuracies(where: str, arch: str, info: Any) -> list[float]:
  """Mean accuracies on each of `_TESTS`, in percent."""
  trained = _entry(where, info, str(_EPOCHS), dict)
  if (other := _entry(where, trained, 'arch_str', str)) != arch:
    raise ValueError(f'{where} is announced as {arch} and is {other:.120}.')
  # Keys are (data set, seed).
  results = _entry(where, trained, 'all_results', dict)
  out = []
  for data, part in _TESTS.values():
    seeds = [key for key in results if isinstance(key, tuple) and data in key]
    if not seeds:
      raise ValueError(f'{where} lacks {data!r}.')
    percents = [
      _percent(f'{where}, {data}, seed {key[-1]}', results[key], part)
      for key in seeds
    ]
    out.append(sum(percents) / len(percents))
  return out


def _percent(where: str, result: Any, part: str) -> float:
  accuracies = _entry(where, result, 'eval_acc1es', dict)
  key = f'{part}@{_EPOCHS - 1}'
  value = _entry(where, accuracies, key, numbers.Real)
  if not 0 <= value <= 100:
    raise ValueError(f'{where} has {value} at {key!r}, no percentage.')
  return float(value)


def _entry(where: str, content: Any, key: str, kind: type) -> Any:
  if not isinstance(content, dict) or key not in content:
    raise ValueError(f'{where} lacks {key!r}.')
  if not isinstance(content[key], kind):
    raise ValueError(
      f'{where} has a {type(content[key]).__name__} at {key!r}; it must be a '
      f'{kind.__name__}.'
    )
  return content[key]
