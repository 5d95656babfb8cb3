"""Ground truth: what architectures reach when they are trained alone."""

import dataclasses
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import runs
from jaxnas.spaces import Space
from jaxnas.tables import files

# How to get the tables that are published.
_PREPARED = {
  'nas_bench_macro': 'python -m jaxnas.prepare nas_bench_macro --dir D',
  'nas_bench_201': (
    'python -m jaxnas.prepare nas_bench_201 --from NATS --dir D --trust_pickle'
  ),
}


@dataclasses.dataclass(frozen=True)
class Table:
  """Accuracies, fractions in [0, 1], of every architecture of a space."""

  space: Space
  accuracy_A: Float[np.ndarray, ' A']
  """Mean over seeds, in the order of `space.enumerate()`."""
  seeds_AxS: Float[np.ndarray, 'A S']
  """Of each seed."""

  def accuracy(
    self, archs_MxE: Int[np.ndarray, 'M E']
  ) -> Float[np.ndarray, ' M']:
    """Mean accuracies of some architectures."""
    return self.accuracy_A[self.space.index(archs_MxE)]


def from_seeds(space: Space, seeds_AxS: Float[np.ndarray, 'A S']) -> Table:
  return Table(space, seeds_AxS.mean(axis=1), seeds_AxS)


def shipped(space: Space, images: str | None = None) -> bool:
  """Whether the package brings a table of this space, on these images."""
  file = _shipped_file(space)
  if images is None or not file.is_file():
    return file.is_file()
  return json.loads(file.read_text('utf-8'))['data'] == images


def load(
  space: Space, file: Path | None = None, images: str | None = None
) -> Table:
  """A table by file, or the one that the package brings.

  Reads, strictly, what `dump` writes, the json of NAS-Bench-Macro and the npz
  of NAS-Bench-201.

  Args:
    space: of the architectures.
    file: of the table; None: the one that the package brings.
    images: the data set that the accuracies are on. None: any; of the npz,
      cifar10.

  Raises:
    FileNotFoundError: no file; says how to get one.
    ValueError: names the file, the entry and what is wrong with it.
  """
  if file is None and not shipped(space):
    command = _PREPARED.get(space.name)
    raise FileNotFoundError(
      f'no table of {space.name} is shipped: give --table FILE'
      + (f'; {command} makes it.' if command else '.')
    )
  source = _shipped_file(space) if file is None else file
  if not source.is_file():
    raise FileNotFoundError(f'table {file} does not exist.')
  try:
    if file is not None and file.suffix == '.npz':
      seeds_AxS = files.read_npz(space, file, images or 'cifar10')
    else:
      seeds_AxS = files.read_json(space, source.read_text('utf-8'), images)
  except (OSError, ValueError) as error:
    # json's own errors and those of decoding are ValueErrors too.
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise ValueError(
      f'table {source}: {str(reason).rstrip(".")}; give a whole table of '
      f'{space.name}.'
    ) from None
  return from_seeds(space, seeds_AxS)


def dump(table: Table, file: Path, **facts: Any) -> None:
  """Writes what `load` reads, all of it or nothing, the keys sorted.

  Args:
    table: of any space.
    file: replaced where it exists.
    facts: where the numbers come from, ready for JSON: data, command, ...
  """
  archs_AxE = table.space.enumerate()
  content = {
    **facts,
    'space': table.space.name,
    'accuracy': {
      table.space.format(arch_E): seeds_S.tolist()
      for arch_E, seeds_S in zip(archs_AxE, table.seeds_AxS, strict=True)
    },
  }
  text = json.dumps(content, indent=2, allow_nan=False, sort_keys=True)
  runs.write_text(file, text + '\n')


def _shipped_file(space: Space) -> Any:
  return importlib.resources.files('jaxnas') / 'truth' / f'{space.name}.json'
