"""Costs that a table gives: of each op at each position, or of architectures.

Such a cost, measured on some machine, is a limit and an objective of a search
beside parameters and multiply-adds.
"""

import csv
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas.runtime import files, kinds
from jaxnas.spaces import Space

# What a JSON file holds: either `positions` or `archs`.
KIND = {
  'unit?': str,
  'base?': kinds.NUMBER,
  'positions?': [{'*': kinds.NUMBER}],
  'archs?': {'*': kinds.NUMBER},
}

BY_OP, BY_ARCH = ['position', 'op', 'cost'], ['arch', 'cost']


@dataclasses.dataclass(frozen=True, eq=False)
class CostTable:
  """A cost of every architecture of a space."""

  space: Space
  unit: str
  """Unit of the cost, such as ms."""
  digest: str
  """Digest of the file."""
  base: float = 0.0
  """Cost that all architectures have in common."""
  by_op: tuple[Float[np.ndarray, ' O'], ...] = ()
  """Costs of the ops at each position, which are added to the base."""
  by_arch: Float[np.ndarray, ' A'] | None = None
  """Costs in the order of the enumeration, instead of those of ops."""

  def of(self, archs_AxE: Int[np.ndarray, 'A E']) -> Float[np.ndarray, ' A']:
    if self.by_arch is not None:
      return self.by_arch[self.space.index(archs_AxE)]
    of_ops = [cost_O[archs_AxE[:, e]] for e, cost_O in enumerate(self.by_op)]
    return self.base + np.sum(of_ops, axis=0)


def load(file: Path, space: Space) -> CostTable:
  """Reads a table, as JSON or, where its name ends so, as CSV.

  JSON has `positions`, a list of {op: cost} whose sums, with `base`, are costs;
  or `archs`, {architecture: cost}. CSV has the columns position, op and cost,
  or arch and cost. An op is its name or its number.

  Raises FileNotFoundError, or Damaged where an op or an architecture is missing
  or unknown.
  """

  def parse(content: bytes) -> CostTable:
    if file.suffix.lower() == '.csv':
      given = _of_csv(content.decode('utf-8-sig'))
    else:
      given = files.json_object(content, KIND)
    of = {
      'space': space,
      'unit': given.get('unit', 'cost'),
      'digest': hashlib.sha256(content).hexdigest(),
    }
    if ('positions' in given) == ('archs' in given):
      raise ValueError('it must have either positions or archs')
    if 'archs' in given:
      return CostTable(**of, by_arch=_by_arch(space, given['archs']))
    base = _finite(given.get('base', 0.0), 'base')
    return CostTable(**of, base=base, by_op=_by_op(space, given['positions']))

  return files.parsed(file, parse)


def _of_csv(text: str) -> dict[str, Any]:
  """Returns rows of a CSV as the object that JSON would have."""
  header, *rows = list(csv.reader(text.splitlines())) or [[]]
  header = [name.strip() for name in header]
  if header not in (BY_OP, BY_ARCH):
    raise ValueError(
      f'its first line is {",".join(header)!r:.80}; it must be '
      f'{",".join(BY_OP)} or {",".join(BY_ARCH)}'
    )
  archs: dict[str, float] = {}
  positions: dict[int, dict[str, float]] = {}
  for number, row in enumerate(rows, 2):
    if not row:
      continue
    try:
      *keys, cost = (cell.strip() for cell in row)
      if header == BY_ARCH:
        into, (key,) = archs, keys
      else:
        position, key = keys
        into = positions.setdefault(int(position), {})
      value = float(cost)
    except ValueError:
      raise ValueError(
        f'line {number} is {",".join(row)!r:.80}; it must be {",".join(header)}'
      ) from None
    if key in into:
      raise ValueError(f'line {number} has {key!r:.80} for the second time')
    into[key] = value
  if header == BY_ARCH:
    return {'archs': archs}
  if sorted(positions) != [*range(len(positions))]:
    raise ValueError(f'its positions are {sorted(positions)}, not 0, 1, ...')
  return {'positions': [positions[e] for e in range(len(positions))]}


def _by_op(
  space: Space, positions: list[Mapping[str, Any]]
) -> tuple[Float[np.ndarray, ' O'], ...]:
  if len(positions) != space.positions:
    raise ValueError(
      f'it has {len(positions)} positions; {space.name} has {space.positions}'
    )
  return tuple(
    np.array([_cost_of_op(given, e, o, name) for o, name in enumerate(names)])
    if len(given) == len(names)
    else _wrong_ops(space, e, given)
    for e, (names, given) in enumerate(zip(space.ops, positions, strict=True))
  )


def _cost_of_op(
  given: Mapping[str, Any], position: int, op: int, name: str
) -> float:
  where = f'{name} at position {position}'
  for key in (name, str(op)):
    if key in given:
      return _finite(given[key], where)
  raise ValueError(f'it lacks op {where}')


def _wrong_ops(space: Space, position: int, given: Mapping[str, Any]) -> Any:
  raise ValueError(
    f'its ops at position {position} are {", ".join(given)}; {space.name} has '
    f'{", ".join(space.ops[position])}'
  )


def _by_arch(space: Space, given: Mapping[str, Any]) -> Float[np.ndarray, ' A']:
  if not space.enumerable:
    raise ValueError(
      f'it lists architectures, and {space.name} has {space.size:.2g}: give '
      'costs of positions and ops'
    )
  cost_A = np.full(len(space.enumerate()), np.nan)
  for text, cost in given.items():
    cost_A[space.index(space.parse(text)[None])] = _finite(cost, text)
  if (missing_A := np.isnan(cost_A)).any():
    name = space.format(space.enumerate()[missing_A.argmax()])
    raise ValueError(
      f'it lacks {missing_A.sum():,} of {len(cost_A):,} architectures, such as '
      f'{name}'
    )
  return cost_A


def _finite(value: float, where: str) -> float:
  if not math.isfinite(value):
    raise ValueError(f'the cost of {where} is {value}')
  return float(value)
