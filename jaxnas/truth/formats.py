"""Strict readers of the formats that tables come in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas.runtime import files, seals, strict_json
from jaxnas.spaces import Space
from jaxnas.truth import units

# Columns of the npz, by data set.
COLUMNS = {
  'cifar10': 'cifar10_test',
  'cifar100': 'cifar100_test',
  'imagenet16_120': 'imagenet16_test',
}
# NAS-Bench-Macro's means equal those of its values to this part of them.
MEAN_TOLERANCE = 2e-8


# Height, width and channels of images, and the number of classes.
Images = tuple[tuple[int, ...], int]

# Images that tables published by others are made on.
PUBLISHED: dict[str, Images] = {
  'cifar10': ((32, 32, 3), 10),
  'cifar100': ((32, 32, 3), 100),
  'imagenet16_120': ((16, 16, 3), 120),
}


class Read(NamedTuple):
  """The content of a table."""

  archs_AxE: Int[np.ndarray, 'A E']
  seeds_AxS: Float[np.ndarray, 'A S']
  """Accuracies of each seed, fractions."""
  unit: str
  """The unit in which they came."""
  images: Images | None = None
  """Images that they are on, where the table says or it is known."""


def read_json(
  space: Space, text: str | bytes, images: str | None = None
) -> Read:
  """Reads what `table.dump` writes, or the json of NAS-Bench-Macro.

  Args:
    space: of the architectures.
    text: the json.
    images: the data set that the table must be of, where it names one; None
      accepts any.

  Raises ValueError naming the entry and what is wrong with it.
  """
  content = strict_json.loads(text)
  if isinstance(content, dict) and seals.SEAL in content:
    try:
      content = seals.opened(content)
    except ValueError as error:
      raise ValueError(
        f'{error}, so it was changed or damaged since it was written: restore '
        'it from a copy'
      ) from None
  if images is not None and isinstance(content, dict):
    data = content.get('data', images)
    if data != images:
      raise ValueError(
        f'is of images {data!r}, not {images!r}; --table_column {data} takes '
        'them all the same.'
      )
  elif isinstance(content, dict):
    images = content.get('data')
  return _seeds(space, content, images if isinstance(images, str) else None)


def read_npz(
  space: Space, file: Path, images: str, column: str | None = None
) -> Read:
  """Reads NAS-Bench-201 as `python -m jaxnas.prepare nas_bench_201` writes it.

  Args:
    space: nas_bench_201.
    file: an npz with ops, op_names and the column of `images`.
    images: the data set, a key of `COLUMNS` where there is no `column`.
    column: a column of accuracies; None: that of `images`.

  Returns and raises as `read_json`.
  """
  if space.name != 'nas_bench_201':
    raise ValueError(f'an npz is of space nas_bench_201, not {space.name}.')
  if column is None and images not in COLUMNS:
    raise ValueError(
      f'has no accuracies on {images!r}, only on {", ".join(COLUMNS)}; '
      '--table_column takes others, such as cifar10_test.'
    )
  name = column or images
  column = COLUMNS.get(name, name)
  # Columns are called by their images, and then by the part of them.
  for known, test in COLUMNS.items():
    if column.startswith(test.removesuffix('test')):
      images = known
  keys = ('ops', 'op_names', column)
  arrays = files.read_npz(file, keys)
  names = tuple(arrays['op_names'].ravel().tolist())
  if names != space.ops[0]:
    raise ValueError(
      f'op_names are {", ".join(map(str, names))}; they must be '
      f'{", ".join(space.ops[0])}.'
    )
  ops_AxE, values_A = arrays['ops'], arrays[column]
  space.validate(ops_AxE)
  check_once(space, ops_AxE)
  if values_A.dtype.kind != 'f' or values_A.shape != (len(ops_AxE),):
    raise ValueError(
      f'{column} is {values_A.dtype} of shape {values_A.shape}; it must be '
      f'floats of shape {(len(ops_AxE),)}.'
    )
  seeds_Ax1, unit = units.fractions(
    values_A.astype(np.float64)[:, None],
    images,
    lambda a: f'{column} of {space.format(ops_AxE[a])}',
  )
  made_on = PUBLISHED.get(images)
  return Read(ops_AxE.astype(np.int32), seeds_Ax1, unit, made_on)


def check_once(space: Space, archs_AxE: Int[np.ndarray, 'A E']) -> None:
  """Raises ValueError where there is no architecture, or one is there twice."""
  if not len(archs_AxE):
    raise ValueError('has no architectures.')
  _, first_D, counts_D = np.unique(
    archs_AxE, axis=0, return_index=True, return_counts=True
  )
  if counts_D.max() > 1:
    name = space.format(archs_AxE[first_D[counts_D.argmax()]])
    raise ValueError(f'architecture {name} is there more than once.')


def rows(
  space: Space, ops_AxE: Int[np.ndarray, 'A E']
) -> Int[np.ndarray, ' A']:
  """Row of each arch in `space.enumerate()`, where each occurs exactly once.

  Raises ValueError naming an arch that is wrong, missing or there twice.
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


def _seeds(space: Space, content: Any, images: str | None) -> Read:
  """Reads accuracies of each seed, in the order of the file."""
  if not isinstance(content, dict):
    raise ValueError(f'a {type(content).__name__}, not an object.')
  own = 'accuracy' in content
  if own and content.get('space') != space.name:
    raise ValueError(
      f'is of space {content.get("space")!r}, not {space.name!r}.'
    )
  read = _own_entries if own else _macro_entries
  if not own and any(type(value) in (int, float) for value in content.values()):
    read = _flat_entries
  entries = dict(read(content['accuracy'] if own else content))
  names = [*entries]
  archs = [_arch(space, name) for name in names]
  rows = [*entries.values()]
  for name, row in zip(names, rows, strict=True):
    if len(row) != len(rows[0]):
      raise ValueError(
        f'{name!r} has {len(row)} seeds, {names[0]!r} {len(rows[0])}.'
      )
  archs_AxE = np.array(archs, np.int32).reshape(-1, space.positions)
  check_once(space, archs_AxE)
  seeds_AxS, unit = units.fractions(
    np.array(rows, np.float64), images, lambda a: repr(names[a])
  )
  made_on = _made_on(content) if own else None
  if read is _macro_entries:
    made_on = PUBLISHED['cifar10']
  return Read(archs_AxE, seeds_AxS, unit, made_on)


def _made_on(content: dict) -> Images | None:
  """Reads the images that a table of ours names; None where it names none."""
  shape, classes = content.get('image_shape'), content.get('classes')
  if shape is None and classes is None:
    return None
  if isinstance(shape, list) and len(shape) == 3 and type(classes) is int:
    height, width, channels = shape
    if all(type(side) is int for side in shape):
      return (height, width, channels), classes
  raise ValueError(
    f'image_shape {shape!r:.40} and classes {classes!r:.40} are no images.'
  )


def _arch(space: Space, name: str) -> Int[np.ndarray, ' E']:
  """Reads an architecture. Raises ValueError for one of another notation."""
  try:
    arch_E = space.parse(name)
    if space.format(arch_E) == name:
      return arch_E
  except ValueError:
    pass
  raise ValueError(f'{name!r:.200} is no architecture of {space.name}.')


def _own_entries(accuracy: Any) -> Iterator[tuple[str, list[float]]]:
  if not isinstance(accuracy, dict):
    raise ValueError("'accuracy' is no object.")
  for name, values in accuracy.items():
    yield name, _numbers(name, values)


def _flat_entries(content: dict) -> Iterator[tuple[str, list[float]]]:
  """Reads what people write by hand: {"0121": 0.93, ...}."""
  for name, value in content.items():
    yield name, _numbers(name, [value])


def _macro_entries(content: dict) -> Iterator[tuple[str, list[float]]]:
  for name, entry in content.items():
    if not isinstance(entry, dict):
      raise ValueError(f'{name!r} is {entry!r:.40}, not an object.')
    for key in ('test_acc', 'mean_acc'):
      if key not in entry:
        raise ValueError(f'{name!r} lacks {key!r}.')
    values = _numbers(name, entry['test_acc'])
    (mean,) = _numbers(name, [entry['mean_acc']])
    expected = sum(values) / len(values)
    if abs(mean - expected) > MEAN_TOLERANCE * max(abs(expected), 1e-2):
      raise ValueError(f'{name!r}: mean_acc {mean} is not that of test_acc.')
    yield name, values


def _numbers(name: str, values: Any) -> list[float]:
  if not isinstance(values, list) or not values:
    raise ValueError(
      f'{name!r} has {values!r:.40}, not a list of accuracies, one a seed.'
    )
  for value in values:
    if type(value) not in (int, float):
      raise ValueError(
        f'{name!r} has accuracy {value!r:.40}; it must be a number.'
      )
  return [float(value) for value in values]
