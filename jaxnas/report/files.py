"""Figures as PNG and SVG files, for papers and slides."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from jaxnas.figures import DPI
from jaxnas.report import charts
from jaxnas.report.grid import limits
from jaxnas.report.svg import kinds, shown_turns

# Of runs, in their order; page.css has the same.
COLOURS = (
  '#2b6cb0',
  '#d9663b',
  '#2f9e6e',
  '#a8479f',
  '#b58a16',
  '#4aa3c7',
  '#c2455a',
  '#6b6f7b',
)

# Rows of a square that are named.
MOST_NAMES = 32


def save(drawn: charts.Figure, folder: Path) -> list[Path]:
  """Writes NAME.png and NAME.svg, and returns where they are."""
  size = (6.4, 4.2)
  if isinstance(drawn, charts.Grid):
    size = (6.4, 5.6 if drawn.square else 1.4 + 0.2 * len(drawn.rows))
  if isinstance(drawn, charts.Amounts):
    size = (6.4, 1.2 + 0.45 * len(drawn.parts))
  figure = Figure(figsize=size, layout='constrained')
  panel = figure.subplots()
  # Names come from files: a dollar in one is no formula.
  with rc_context({'text.parse_math': False, 'svg.hashsalt': drawn.name}):
    if isinstance(drawn, charts.Chart):
      _chart(drawn, panel)
    elif isinstance(drawn, charts.Grid):
      _grid(drawn, panel, figure)
    else:
      _amounts(drawn, panel)
    panel.set_title(drawn.title, fontsize='medium')
    panel.spines[['top', 'right']].set_visible(False)
    files = [folder / f'{drawn.name}.{kind}' for kind in ('png', 'svg')]
    for file in files:
      metadata = {'Date': None} if file.suffix == '.svg' else None
      figure.savefig(file, dpi=DPI, metadata=metadata)
  return files


def _chart(chart: charts.Chart, panel: Any) -> None:
  for mark in chart.marks:
    colour = COLOURS[mark.colour % len(COLOURS)]
    if isinstance(mark, charts.Line):
      panel.plot(
        mark.x_N,
        mark.y_N,
        '.-' if mark.dotted else '-',
        color=colour,
        label=mark.label,
      )
      if mark.low_N is not None and mark.high_N is not None:
        panel.fill_between(
          mark.x_N, mark.low_N, mark.high_N, color=colour, alpha=0.18, lw=0
        )
    elif isinstance(mark, charts.Dots):
      size = 14 if len(mark.x_N) <= 1000 else 3
      panel.scatter(
        mark.x_N, mark.y_N, s=size, color=colour, alpha=0.6, label=mark.label
      )
      if mark.ringed_M is not None:
        panel.scatter(
          mark.x_N[mark.ringed_M],
          mark.y_N[mark.ringed_M],
          s=42,
          facecolors='none',
          edgecolors='black',
        )
    else:
      panel.stairs(
        mark.count_N,
        mark.edges_M,
        fill=True,
        color=colour,
        alpha=0.6,
        label=mark.label,
      )
  left, right, bottom, top = charts.extent(chart)
  panel.set_xlim(*((right, left) if chart.ranks else (left, right)))
  panel.set_ylim(*((top, bottom) if chart.ranks else (bottom, top)))
  if chart.diagonal:
    panel.plot([left, right], [left, right], '--', color='grey', lw=1)
  for name, level in chart.levels.items():
    panel.axhline(level, linestyle='--', color='grey', lw=1)
    panel.annotate(
      name, (right, level), ha='right', va='bottom', color='grey', fontsize=8
    )
  for name, turn in shown_turns(chart).items():
    panel.axvline(turn, linestyle='--', color='grey', lw=1)
    panel.annotate(name, (turn, top), va='top', color='grey', fontsize=8)
  if chart.ranks:
    panel.set_xticks(charts.ticks(left, right, ranks=True))
    panel.set_yticks(charts.ticks(bottom, top, ranks=True))
  panel.set_xlabel(chart.xlabel)
  panel.set_ylabel(chart.ylabel)
  panel.grid(axis='y', alpha=0.3)
  if len(chart.marks) > 1:
    panel.legend(fontsize='small')


def _grid(grid: charts.Grid, panel: Any, figure: Figure) -> None:
  low, high = limits(grid)
  image = panel.imshow(grid.value_RxC, aspect='auto', vmin=low, vmax=high)
  every = math.ceil(len(grid.rows) / MOST_NAMES) if grid.square else 1
  named = range(0, len(grid.rows), every)
  panel.set_yticks(named, [grid.rows[r] for r in named], fontsize=7)
  shown = np.unique(
    np.linspace(0, len(grid.columns) - 1, 8).round().astype(int)
  )
  # Names of a square stand on the left.
  shown = [] if grid.square else shown
  panel.set_xticks(shown, [grid.columns[c] for c in shown])
  panel.set_xlabel(grid.xlabel)
  figure.colorbar(image, ax=panel, label=grid.unit)


def _amounts(amounts: charts.Amounts, panel: Any) -> None:
  labels, left_L = [*amounts.parts], np.zeros(len(amounts.parts))
  for kind in kinds(amounts):
    value_L = np.array([row.get(kind, 0.0) for row in amounts.parts.values()])
    panel.barh(range(len(labels)), value_L, left=left_L, label=kind)
    left_L += value_L
  panel.set_yticks(range(len(labels)), labels)
  panel.invert_yaxis()
  panel.set_xlabel(amounts.unit)
  panel.legend(fontsize='small')
