"""Ground truth: what architectures reach when they are trained alone."""

import dataclasses
import importlib.resources
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import runs
from jaxnas.spaces import Space

# Percent. NAS-Bench-Macro's means are those of its values to the last digit.
MEAN_TOLERANCE = 1e-6


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


def shipped(space: Space) -> bool:
  """Whether the package brings a table of this space."""
  return _shipped_file(space).is_file()


def load(space: Space, file: Path | None = None) -> Table:
  """A table by file, or the one that the package brings.

  Reads the format of `dump` and the json of NAS-Bench-Macro, strictly.

  Raises:
    FileNotFoundError: no file; says how to get one.
    ValueError: names the file, the entry and what is wrong with it.
  """
  if file is None and not shipped(space):
    raise FileNotFoundError(
      f'no table of {space.name} is shipped: give --table FILE'
      + (
        '; python -m jaxnas.prepare nas_bench_macro --dir D fetches it.'
        if space.name == 'nas_bench_macro'
        else '.'
      )
    )
  source = _shipped_file(space) if file is None else file
  if not source.is_file():
    raise FileNotFoundError(f'table {file} does not exist.')
  try:
    content = json.loads(
      source.read_text(encoding='utf-8'),
      object_pairs_hook=_without_duplicates,
    )
    _check_finite('', content)
    return from_seeds(space, _seeds(space, content))
  except RecursionError:
    raise ValueError(f'table {source}: is nested too deeply.') from None
  except ValueError as error:
    # json's own errors and those of decoding are ValueErrors too.
    raise ValueError(f'table {source}: {error}') from None


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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  out: dict[str, Any] = {}
  for key, value in pairs:
    if key in out:
      raise ValueError(f'{key!r} stands there twice.')
    out[key] = value
  return out


def _check_finite(where: str, value: Any) -> None:
  # Python reads NaN, Infinity and 1e999, which no JSON may hold.
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f'{where} is {value}, no finite number.')
  if isinstance(value, dict):
    for key, inner in value.items():
      _check_finite(f'{where}[{key!r}]', inner)
  elif isinstance(value, list):
    for i, inner in enumerate(value):
      _check_finite(f'{where}[{i}]', inner)
