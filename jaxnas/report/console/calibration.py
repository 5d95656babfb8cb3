"""Prints what a calibration says of the architectures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import truth
from jaxnas.report.text import interval, number
from jaxnas.runtime import table
from jaxnas.truth.calibration import Posterior

# Architectures that are listed.
SHOWN = 10

NAMES = {
  'raw': 'supernet alone',
  'without': 'no supernet, same k',
  'run': 'supernet and k',
}


def show(
  ranked: Any,
  found: Posterior,
  result: Mapping[str, Any],
  truths: truth.Table | None,
) -> None:
  """Prints how well the calibration orders, and the best architectures."""
  k, known = result['k'], result['trained']
  out = table.table(
    f'calibration by {k} architectures trained alone',
    ['', 'tau left out [95%]', 'tau of others [95%]'],
  )
  for key, name in NAMES.items():
    cells = [
      f'{number(one["kendall"])} {interval(one)}' if one else ''
      for one in (result['left_out'].get(key), result['held_out'].get(key))
    ]
    if any(cells):
      out.add_row(name, *cells)
  others = result['held_out'].get('raw', {}).get('n', 0)
  out.caption = (
    f'"Left out" predicts each of the {k} from the rest of them; "of others" '
    f'are {others:,} architectures outside the {k} whose truth is known.'
  )
  table.show(out)
  best_N = np.argsort(-found.mean_A, kind='stable')[:SHOWN]
  out = table.table(
    f'the best of {result["n"]:,} architectures',
    ['', 'accuracy alone', 'supernet', 'known'],
  )
  truth_N = np.full(len(best_N), np.nan)
  if truths is not None:
    truth_N = truths.known(ranked.archs_AxE[best_N])
  for row, true in zip(best_N, truth_N, strict=True):
    name = ranked.space.format(ranked.archs_AxE[row])
    true = known.get(name, true)
    out.add_row(
      name,
      f'{found.mean_A[row]:.2%} ± {found.std_A[row]:.2%}',
      f'{ranked.score_A[row]:.2%}',
      '' if np.isnan(true) else f'{true:.2%}',
    )
  table.show(out)


def suggest(names: Sequence[str], asked: int, file: Path) -> None:
  """Prints the architectures to train next, one a line.

  They are fewer than asked for where the run ranked no more that are not
  trained yet.
  """
  fewer = (
    f' (all {len(names)} that were ranked and not trained; asked were {asked})'
    if len(names) < asked
    else ''
  )
  print(f'to train next{fewer}, also in {file}:')
  for name in names:
    print(f'  {name}')
