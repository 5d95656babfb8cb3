"""Samplers side by side, as a table and a picture."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

# Of a label: what correlation.json holds, a result a seed, or its error.
Results = Mapping[str, Sequence[Mapping[str, Any]]]

# Column, key of a result, and what its values are multiplied by.
COLUMNS = (
  ('Kendall tau', 'kendall', 1),
  ('Spearman', 'spearman', 1),
  ('top tau', 'top_kendall', 1),
  ('accuracy %', 'best_arch_true_accuracy', 100),
)
WIDTH = 110
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
  out = RichTable(
    title=f'ranking of {finished[0]["n"]} architectures, {seeds} '
    + ('seeds' if seeds > 1 else 'seed'),
    box=box.SIMPLE_HEAD,
    # What is left has to hold the longest label.
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
    spent = [result['compute'] for result in done]
    out.add_row(
      label,
      *cells,
      f'{spent[0]["path_gradients"]:,}' if spent else '-',
      f'{besides(spent[0]):.2f}' if spent else '-',
    )
  if known:
    out.add_section()
    for name, values in finished[0]['baselines'].items():
      figures = (spread([values[key]], 1) for key in ('kendall', 'spearman'))
      out.add_row(f'{name} alone', *figures)
  out.caption = (
    'mean ± standard deviation over seeds; accuracy: of the chosen one '
    + ('alone' if known else 'in the supernet')
    + ';\ngradients: of one path on a training batch; besides: rewards, '
    'densities, rebuilding, in epochs of one path'
  )
  short = [
    f'{label} {len(of_seeds) - failed}/{len(of_seeds)}'
    for label, of_seeds in results.items()
    if (failed := sum('error' in result for result in of_seeds))
  ]
  if short:
    # A line of its own: the longest label leaves no room beside it.
    out.caption += f';\nof fewer seeds: {", ".join(short)}'
  # Where nobody looks, lines need not break.
  Console(width=None if sys.stdout.isatty() else WIDTH).print(out)


def besides(spent: Mapping[str, Any]) -> float:
  """Epochs that are neither training nor the ranking that all have."""
  return sum(
    epochs
    for name, epochs in spent['epochs'].items()
    if name not in ('training', 'ranking')
  )


def spread(values: Sequence[float | None], factor: int) -> str:
  """Mean ± sample standard deviation; the mean alone of one value."""
  defined = [value * factor for value in values if value is not None]
  if not defined:
    return '-'
  digits = 3 if factor == 1 else 2
  mean = f'{np.mean(defined):.{digits}f}'
  if len(defined) == 1:
    return mean
  return f'{mean} ± {np.std(defined, ddof=1):.{digits}f}'


def draw(results: Results, file: Path) -> None:
  """Kendall's tau of every run, where there is a truth, as a PNG file."""
  from jaxnas import figures

  taus = {
    label: [
      result['kendall']
      for result in of_seeds
      if result.get('kendall') is not None
    ]
    for label, of_seeds in results.items()
  }
  if any(taus.values()):
    figures.dots(taus, file, xlabel="Kendall's tau")
