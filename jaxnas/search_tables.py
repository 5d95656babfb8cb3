"""What a search has found, as rows, a table and a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import tables
from jaxnas.spaces import Space

if TYPE_CHECKING:
  from jaxnas.searchers import State


def rows(space: Space, found: 'State') -> list[dict[str, Any]]:
  """All that was scored, in that order, ready for JSON."""
  costs = space.costs(found.archs_VxE)
  return [
    {
      'generation': int(generation),
      'arch': space.format(arch_E),
      'accuracy': float(accuracy),
      'params': int(params),
      'macs': int(macs),
    }
    for generation, arch_E, accuracy, params, macs in zip(
      found.generation_V,
      found.archs_VxE,
      found.accuracy_V,
      costs.params_A,
      costs.macs_A,
      strict=True,
    )
  ]


def index(found: 'State', arch_E: Int[np.ndarray, ' E']) -> int:
  """Of the last score of an architecture."""
  same_V = (found.archs_VxE == arch_E).all(axis=1)
  return int(np.flatnonzero(same_V)[-1])


def row(
  space: Space,
  arch_E: Int[np.ndarray, ' E'],
  found: 'State',
  table: tables.Table | None,
) -> dict[str, Any]:
  """What is known of one architecture, ready for JSON."""
  out = rows(space, found)[index(found, arch_E)]
  if table is not None:
    out['true_accuracy'] = float(table.accuracy(arch_E[None])[0])
  return out


def show(
  space: Space,
  found: 'State',
  top_N: Int[np.ndarray, ' N'],
  best_E: Int[np.ndarray, ' E'],
  table: tables.Table | None,
) -> None:
  """Prints the best ones; a star marks what nothing scored is better than in
  accuracy, parameters and multiply-adds at once.
  """
  from jaxnas.searchers import last_scores

  out = RichTable(
    title=f'the best of {len(last_scores(found))} architectures',
    box=box.SIMPLE_HEAD,
  )
  # MobileNet's names are longer than a line.
  out.add_column('', overflow='fold')
  for name in ('supernet', 'parameters', 'multiply-adds', 'front'):
    out.add_column(name, justify='right')
  if table is not None:
    out.add_column('alone', justify='right')
  best, on_front = index(found, best_E), {*front(space, found).tolist()}
  everything = rows(space, found)
  for v in [best, *(v for v in top_N.tolist() if v != best)]:
    one = everything[v]
    cells = [
      one['arch'],
      f'{one["accuracy"]:.2%}',
      f'{one["params"]:,}',
      f'{one["macs"]:,}',
      '*' if v in on_front else '',
    ]
    if table is not None:
      cells.append(f'{table.accuracy(found.archs_VxE[[v]])[0]:.2%}')
    out.add_row(*cells)
  out.caption = 'the first is the one found; supernet: with shared weights'
  Console().print(out)


def front(space: Space, found: 'State') -> Int[np.ndarray, ' F']:
  """Indices of what no other is better than in accuracy, parameters and
  multiply-adds at once."""
  from jaxnas.searchers import last_scores, pareto

  last_U = last_scores(found)
  costs = space.costs(found.archs_VxE[last_U])
  return last_U[
    pareto.front(
      np.column_stack([found.accuracy_V[last_U], -np.stack(costs, axis=1)])
    )
  ]


def draw(
  space: Space, found: 'State', best_E: Int[np.ndarray, ' E'], file: Path
) -> None:
  """Accuracy against multiply-adds, the front of these two, and the best."""
  from jaxnas import figures
  from jaxnas.searchers import last_scores, pareto

  last_U = last_scores(found)
  macs_U = space.costs(found.archs_VxE[last_U]).macs_A
  accuracy_U = found.accuracy_V[last_U]
  figures.scatter(
    macs_U / 1e6,
    accuracy_U * 100,
    file,
    xlabel='multiply-adds, millions',
    ylabel='accuracy with shared weights, %',
    colour=found.generation_V[last_U],
    colour_label='generation',
    front_M=pareto.front(np.column_stack([accuracy_U, -macs_U])),
    marked=int(np.flatnonzero(last_U == index(found, best_E))[0]),
  )
