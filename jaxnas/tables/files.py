"""The formats that tables come in, read strictly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import runs, strict_json
from jaxnas.spaces import Space

# The npz's column of each data set.
COLUMNS = {
  'cifar10': 'cifar10_test',
  'cifar100': 'cifar100_test',
  'imagenet16_120': 'imagenet16_test',
}
# Percent. NAS-Bench-Macro's means are those of its values to the last digit.
MEAN_TOLERANCE = 1e-6


def read_json(
  space: Space, text: str, images: str | None = None
) -> Float[np.ndarray, 'A S']:
  """What `tables.dump` writes, or the json of NAS-Bench-Macro.

  Args:
    space: of the architectures.
    text: the json.
    images: the data set that it must be of, where it says of which it is.

  Returns fractions, rows in the order of `space.enumerate()`.

  Raises ValueError naming the entry and what is wrong with it.
  """
  content = strict_json.loads(text)
  if images is not None and isinstance(content, dict):
    data = content.get('data', images)
    if data != images:
      raise ValueError(f'is of images {data!r}, not {images!r}.')
  return _seeds(space, content)


def read_npz(space: Space, file: Path, images: str) -> Float[np.ndarray, 'A 1']:
  """NAS-Bench-201 as `python -m jaxnas.prepare nas_bench_201` writes it.

  Args:
    space: nas_bench_201.
    file: an npz with ops, op_names and the column; others are not read.
    images: the data set, a key of `COLUMNS`.

  Returns and raises as `read_json`.
  """
  if space.name != 'nas_bench_201':
    raise ValueError(f'an npz is of space nas_bench_201, not {space.name}.')
  if images not in COLUMNS:
    raise ValueError(
      f'has no accuracies on {images!r}, only on {", ".join(COLUMNS)}.'
    )
  column = COLUMNS[images]
  keys = ('ops', 'op_names', column)
  arrays = runs.read_npz(file, keys)
  names = tuple(arrays['op_names'].ravel().tolist())
  if names != space.ops[0]:
    raise ValueError(
      f'op_names are {", ".join(map(str, names))}; they must be '
      f'{", ".join(space.ops[0])}.'
    )
  ops_AxE, percent_A = arrays['ops'], arrays[column]
  space.validate(ops_AxE)
  a_A = rows(space, ops_AxE)
  if percent_A.dtype.kind != 'f' or percent_A.shape != a_A.shape:
    raise ValueError(
      f'{column} is {percent_A.dtype} of shape {percent_A.shape}; it must be '
      f'floats of shape {a_A.shape}.'
    )
  # NaN compares false.
  wrong_A = ~((percent_A >= 0) & (percent_A <= 100))
  if wrong_A.any():
    a = wrong_A.argmax()
    raise ValueError(
      f'{space.format(ops_AxE[a])} has {column} {percent_A[a]}; it must be '
      'in [0, 100].'
    )
  seeds_AxS = np.empty((space.size, 1))
  seeds_AxS[a_A, 0] = percent_A.astype(np.float64) / 100
  return seeds_AxS


def rows(
  space: Space, ops_AxE: Int[np.ndarray, 'A E']
) -> Int[np.ndarray, ' A']:
  """Row of each arch in `space.enumerate()`, if each is there once.

  Raises ValueError naming what is no architecture, missing or there twice.
  """
  a_A = space.index(ops_AxE)
  counts_A = np.bincount(a_A, minlength=space.size)
  for a, problem in (
    (counts_A.argmax(), 'is there more than once'),
    (counts_A.argmin(), 'is missing'),
  ):
    if counts_A[a] != 1:
      name = space.format(space.enumerate()[a])
      raise ValueError(f'architecture {name} {problem}.')
  return a_A


def _seeds(space: Space, content: Any) -> Float[np.ndarray, 'A S']:
  """Rows in the order of the space's enumeration."""
  if not isinstance(content, dict):
    raise ValueError(f'a {type(content).__name__}, not an object.')
  if 'accuracy' in content:
    if content.get('space') != space.name:
      raise ValueError(
        f'is of space {content.get("space")!r}, not {space.name!r}.'
      )
    entries = dict(_own_entries(content['accuracy']))
  else:
    entries = dict(_macro_entries(content))
  index = {
    space.format(arch_E): a for a, arch_E in enumerate(space.enumerate())
  }
  for name in entries:
    if name not in index:
      raise ValueError(f'{name!r} is no architecture of {space.name}.')
  for name in index:
    if name not in entries:
      raise ValueError(f'architecture {name!r} is missing.')
  rows = [entries[name] for name in index]
  for name, row in zip(index, rows, strict=True):
    if len(row) != len(rows[0]):
      raise ValueError(
        f'{name!r} has {len(row)} seeds, {next(iter(index))!r} {len(rows[0])}.'
      )
  return np.array(rows, np.float64)


def _own_entries(accuracy: Any) -> Iterator[tuple[str, list[float]]]:
  if not isinstance(accuracy, dict):
    raise ValueError("'accuracy' is no object.")
  for name, values in accuracy.items():
    yield name, _numbers(name, values, most=1.0)


def _macro_entries(content: dict) -> Iterator[tuple[str, list[float]]]:
  for name, entry in content.items():
    if not isinstance(entry, dict):
      raise ValueError(f'{name!r} is {entry!r:.40}, not an object.')
    for key in ('test_acc', 'mean_acc'):
      if key not in entry:
        raise ValueError(f'{name!r} lacks {key!r}.')
    values = _numbers(name, entry['test_acc'], most=100.0)
    (mean,) = _numbers(name, [entry['mean_acc']], most=100.0)
    if abs(mean - sum(values) / len(values)) > MEAN_TOLERANCE:
      raise ValueError(f'{name!r}: mean_acc {mean} is not that of test_acc.')
    yield name, [value / 100 for value in values]


def _numbers(name: str, values: Any, *, most: float) -> list[float]:
  if not isinstance(values, list) or not values:
    raise ValueError(f'{name!r} has {values!r:.40}, not a list of accuracies.')
  for value in values:
    if type(value) not in (int, float) or not 0 <= value <= most:
      raise ValueError(
        f'{name!r} has accuracy {value!r:.40}; it must be a number in '
        f'[0, {most:g}].'
      )
  return [float(value) for value in values]
