"""Prints samplers side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from jaxnas.runtime import table, words

# Results of each label, one for each seed: a correlation.json, or an error.
Results = Mapping[str, Sequence[Mapping[str, Any]]]

# (head of a column, key of a result, factor of its values)
COLUMNS = (
  ('Kendall tau', 'kendall', 1),
  ('Spearman', 'spearman', 1),
  ('top tau', 'top_kendall', 1),
  ('accuracy %', 'best_arch_true_accuracy', 100),
)
WITHOUT_TRUTH = (('accuracy %', 'best_arch_accuracy', 100),)


def show(results: Results) -> None:
  """Prints means and standard deviations over the seeds of each label."""
  finished = [
    result
    for of_seeds in results.values()
    for result in of_seeds
    if 'error' not in result
  ]
  if not finished:
    return
  known = 'kendall' in finished[0]
  columns = COLUMNS if known else WITHOUT_TRUTH
  seeds = max(map(len, results.values()))
  out = Table(
    title=f'ranking of {words.counted(finished[0]["n"], "architecture")}, '
    + words.counted(seeds, 'seed'),
    box=box.SIMPLE_HEAD,
    # The columns leave just enough room for the longest label.
    show_edge=False,
    padding=(0, 1, 0, 0),
  )
  for title in ('', *(title for title, *_ in columns), 'gradients', 'besides'):
    out.add_column(title, justify='right' if title else 'left', no_wrap=True)
  for label, of_seeds in results.items():
    done = [result for result in of_seeds if 'error' not in result]
    cells = [
      spread([result[key] for result in done], factor)
      for _, key, factor in columns
    ]
    cost = [result['compute'] for result in done]
    out.add_row(
      label,
      *cells,
      f'{cost[0]["path_gradients"]:,}' if cost else '-',
      f'{besides(cost[0]):.2f}' if cost else '-',
    )
  if known:
    out.add_section()
    for name, values in finished[0]['baselines'].items():
      figures = (spread([values[key]], 1) for key in ('kendall', 'spearman'))
      out.add_row(f'{name} alone', *figures)
  out.caption = (
    'Figures are means ± standard deviations over seeds. Accuracy is that of '
    'the chosen\narchitecture '
    + ('trained alone.' if known else 'in the supernet.')
    + ' A gradient is that of one path on a training batch; "besides"\n'
    'counts rewards, densities and rebuilding, in epochs of one path.'
  )
  short = [
    f'{label} {len(of_seeds) - failed}/{len(of_seeds)}'
    for label, of_seeds in results.items()
    if (failed := sum('error' in result for result in of_seeds))
  ]
  if short:
    # The longest label leaves no room beside it.
    out.caption += f'\nFewer seeds finished: {", ".join(short)}.'
  table.show(out, width=table.WIDTH)


def besides(cost: Mapping[str, Any]) -> float:
  """Sums the epochs beside training and the ranking that every run has."""
  return sum(
    epochs
    for name, epochs in cost['epochs'].items()
    if name not in ('training', 'ranking')
  )


def spread(values: Sequence[float | None], factor: int) -> str:
  """Writes mean ± sample standard deviation; of one value, the mean alone."""
  defined = [value * factor for value in values if value is not None]
  if not defined:
    return '-'
  digits = 3 if factor == 1 else 2
  mean = f'{np.mean(defined):.{digits}f}'
  if len(defined) == 1:
    return mean
  return f'{mean} ± {np.std(defined, ddof=1):.{digits}f}'
