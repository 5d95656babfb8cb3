"""Tables of ground truth: accuracies of architectures trained alone."""

import dataclasses
import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas.runtime import files, inputs, seals
from jaxnas.spaces import Space
from jaxnas.truth import formats

# Commands that make the published tables.
_PREPARED = {
  'nas_bench_macro': 'python -m jaxnas.prepare nas_bench_macro --dir D',
  'nas_bench_201': (
    'python -m jaxnas.prepare nas_bench_201 --from NATS --dir D --trust_pickle'
  ),
}


@dataclasses.dataclass(frozen=True)
class Table:
  """Accuracies of a space's architectures, or of some, fractions in [0, 1]."""

  space: Space
  archs_AxE: Int[np.ndarray, 'A E']
  """Different architectures."""
  seeds_AxS: Float[np.ndarray, 'A S']
  """Accuracies of each seed."""
  unit: str = 'fractions'
  """The unit in which the file has them."""
  source: str = ''
  """The file."""
  images: formats.Images | None = None
  """Images that the accuracies are on, where that is known."""

  @functools.cached_property
  def accuracy_A(self) -> Float[np.ndarray, ' A']:
    """Mean over seeds."""
    return self.seeds_AxS.mean(axis=1)

  @property
  def whole(self) -> bool:
    """True where no architecture of the space is missing."""
    return len(self.archs_AxE) == self.space.size

  def __str__(self) -> str:
    """Writes one line on what it holds.

    >>> import jaxnas.spaces
    >>> str(load(jaxnas.spaces.get('digits'))).partition(': ')[2]
    '81 of 81 architectures, in fractions'
    """
    return f'table {self.source}: {self._count}, in {self.unit}'

  @property
  def _count(self) -> str:
    size = self.space.size
    of = f'{size:,}' if size < 10**9 else f'{float(size):.3g}'
    return f'{len(self.archs_AxE):,} of {of} architectures'

  def on(self, space: Space) -> 'Table':
    """Returns the table, to be held to networks of the space's images.

    Raises ValueError where it is on images of another size or other classes.
    """
    ours = space.image_shape, space.classes
    if self.images is not None and self.images != ours:
      raise ValueError(
        f'table {self.source} is on images of {_shown(self.images)}, and these '
        f'are {_shown(ours)}: give a table on these, such as jaxnas.retrain '
        '--all makes.'
      )
    return self

  def accuracy(
    self, archs_MxE: Int[np.ndarray, 'M E']
  ) -> Float[np.ndarray, ' M']:
    """Mean accuracies of these architectures.

    Raises ValueError where the table lacks one.
    """
    accuracy_M = self.known(archs_MxE)
    lacking_M = np.isnan(accuracy_M)
    if lacking_M.any():
      name = self.space.format(archs_MxE[lacking_M.argmax()])
      raise ValueError(
        f'table {self.source} has {self._count}, and lacks '
        f'{lacking_M.sum():,} of the {len(archs_MxE):,} that are ranked, such '
        f'as {name}: give a table that has them; --ranking.archs N ranks what '
        'retrain --sample N trains.'
      )
    return accuracy_M

  def known(self, archs_MxE: Int[np.ndarray, 'M E']) -> Float[np.ndarray, ' M']:
    """Mean accuracies of these architectures; NaN where the table lacks one."""
    self.space.validate(archs_MxE)
    rows_M = [self._rows.get(key, -1) for key in _keys(archs_MxE)]
    return np.append(self.accuracy_A, np.nan)[rows_M]

  @functools.cached_property
  def _rows(self) -> dict[bytes, int]:
    return {key: a for a, key in enumerate(_keys(self.archs_AxE))}


def _keys(archs_AxE: Int[np.ndarray, 'A E']) -> list[bytes]:
  return [arch_E.tobytes() for arch_E in archs_AxE.astype(np.int32)]


def from_seeds(space: Space, seeds_AxS: Float[np.ndarray, 'A S']) -> Table:
  """Makes the table of a whole space, in the order of its enumeration."""
  return Table(space, space.enumerate(), seeds_AxS)


def shipped(space: Space, images: str | None = None) -> bool:
  """Returns True where the package ships a table of this space and images."""
  file = _shipped_file(space)
  if images is None or not file.is_file():
    return file.is_file()
  return json.loads(file.read_text('utf-8'))['data'] == images


def load(
  space: Space,
  file: Path | None = None,
  images: str | None = None,
  column: str | None = None,
) -> Table:
  """Loads a table from a file, or the one that the package ships.

  Reads strictly: what `dump` writes, the json of NAS-Bench-Macro and the npz
  of NAS-Bench-201, each of all architectures or of some, in percent or in
  fractions.

  Args:
    space: of the architectures.
    file: of the table; None loads the shipped one.
    images: the data set on which accuracies must be; None accepts any, and
      reads cifar10 from an npz.
    column: the accuracies to take, though they are on other images: a column of
      an npz, or the data that a json names.

  Raises:
    FileNotFoundError: there is no file; the message says how to get one.
    ValueError: names the file, the entry and what is wrong with it.
  """
  if file is None and column is not None:
    raise ValueError(
      f'--table_column {column} is of a table: give --table FILE.'
    )
  if file is None and not shipped(space):
    command = _PREPARED.get(space.name)
    raise FileNotFoundError(
      f'no table of {space.name} is shipped: give --table FILE'
      + (f'; {command} makes it.' if command else '.')
    )
  source = _shipped_file(space) if file is None else file
  inputs.check_file(source, 'table')
  try:
    if file is not None and file.suffix == '.npz':
      read = formats.read_npz(space, file, images or 'cifar10', column)
    else:
      content = source.read_bytes() if file is None else files.read_bytes(file)
      read = formats.read_json(space, content, column or images)
  except (OSError, ValueError) as error:
    # json's own errors and those of decoding are ValueErrors too.
    reason = error.strerror if isinstance(error, OSError) else str(error)
    example = space.format(space.largest())
    raise ValueError(
      f'table {source}: {str(reason).rstrip(".")}; give a table of '
      f'{space.name}, such as {{"{example}": 0.93, ...}} in JSON.'
    ) from None
  return Table(
    space,
    *_in_order(space, read.archs_AxE, read.seeds_AxS),
    read.unit,
    f'{source}, {column}' if column else str(source),
    # Who names a column takes it whatever it is of.
    None if column else read.images,
  )


def _in_order(
  space: Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  seeds_AxS: Float[np.ndarray, 'A S'],
) -> tuple[Int[np.ndarray, 'A E'], Float[np.ndarray, 'A S']]:
  """Sorts both as the space enumerates, where it does."""
  if not space.enumerable:
    return archs_AxE, seeds_AxS
  order_A = np.argsort(space.index(archs_AxE))
  return archs_AxE[order_A], seeds_AxS[order_A]


def find(
  space: Space,
  images: str,
  file: Path | None,
  run: Path | None,
  column: str | None = None,
) -> Table | None:
  """Returns the table given, else the run's, else the one shipped, else None.

  Args:
    space: the architectures, for the images at hand.
    images: the data set that the accuracies must be on.
    file: the table given, if any.
    run: a run directory, which keeps the table that it was held to; None: a
      new one.
    column: as in `load`, of the table given.

  Raises as `load`, and ValueError for a table on images of another size or
  other classes.
  """
  if file is None and column is None:
    if run is not None and (run / 'table.json').exists():
      file = run / 'table.json'
    elif not shipped(space, images):
      return None
  return load(space, file, images, column).on(space)


def _shown(images: formats.Images) -> str:
  shape, classes = images
  return f'{"x".join(map(str, shape))} in {classes} classes'


def dump(table: Table, file: Path, **metadata: Any) -> None:
  """Writes a table that `load` reads, whole or not at all, with sorted keys.

  Args:
    table: of any space.
    file: replaced where it exists.
    metadata: origin of the numbers, ready for JSON: data, command, ...
  """
  if table.images is not None:
    shape, classes = table.images
    metadata |= {'image_shape': [*shape], 'classes': classes}
  content = {
    **metadata,
    'space': table.space.name,
    'accuracy': {
      table.space.format(arch_E): seeds_S.tolist()
      for arch_E, seeds_S in zip(table.archs_AxE, table.seeds_AxS, strict=True)
    },
  }
  content = seals.sealed(content)
  text = json.dumps(content, indent=2, allow_nan=False, sort_keys=True)
  files.write_text(file, text + '\n')


def _shipped_file(space: Space) -> Any:
  return importlib.resources.files('jaxnas') / 'truth' / f'{space.name}.json'
