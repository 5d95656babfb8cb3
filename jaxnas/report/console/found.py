"""Prints the architectures that a search has found."""

import numpy as np
from jaxtyping import Int

from jaxnas import truth
from jaxnas.report.text import aligned
from jaxnas.runtime import table, words
from jaxnas.searchers.base import State, last_scores
from jaxnas.searchers.cost_table import CostTable
from jaxnas.searchers.findings import front, index, rows, tied
from jaxnas.spaces import Space


def show(
  space: Space,
  found: State,
  top_N: Int[np.ndarray, ' N'],
  best_E: Int[np.ndarray, ' E'],
  truths: truth.Table | None,
  costs: CostTable | None = None,
) -> None:
  """Prints the best architectures; a star marks those of the Pareto front."""
  alone = [] if truths is None else ['alone']
  out = table.table(
    f'the best of {words.counted(len(last_scores(found)), "architecture")}',
    [
      '',
      'supernet',
      'parameters',
      'multiply-adds',
      *([] if costs is None else [costs.unit]),
      'front',
      *alone,
    ],
  )
  best, on_front = index(found, best_E), {*front(space, found, costs).tolist()}
  everything = rows(space, found, costs)
  for v in [best, *(v for v in top_N.tolist() if v != best)]:
    one = everything[v]
    cells = [
      one['arch'],
      f'{one["accuracy"]:.2%}',
      f'{one["params"]:,}',
      f'{one["macs"]:,}',
      *([aligned(one['cost'])] if 'cost' in one else []),
      '*' if v in on_front else '',
    ]
    if truths is not None:
      known = truths.known(found.archs_VxE[[v]])[0]
      cells.append('-' if np.isnan(known) else f'{known:.2%}')
    out.add_row(*cells)
  out.caption = (
    'The first one is the one found. "supernet" is the accuracy with shared '
    'weights. A star on the front: none that was scored is at least as good '
    'in accuracy and all costs, and better in one.'
  )
  if (count := tied(found, best_E)) > 1:
    out.caption += f' {count:,} architectures have the accuracy of the first.'
  table.show(out)
