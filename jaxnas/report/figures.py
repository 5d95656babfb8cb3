"""Draws the figures of densities, of a search and of a comparison, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.ticker import MaxNLocator

from jaxnas.experiment.updates import FRACTIONS, Updates
from jaxnas.report import charts, drawing, marks, palette, ranked
from jaxnas.report.palette import LIGHT, series
from jaxnas.report.sheet import (
  HEIGHT,
  NAMES,
  RIGHT,
  WIDTH,
  Sheet,
  shortened,
  style,
  write_png,
)
from jaxnas.searchers import pareto
from jaxnas.searchers.base import State, last_scores
from jaxnas.searchers.cost_table import CostTable
from jaxnas.searchers.findings import index
from jaxnas.spaces import Space

# The height of a row of dots, and of what is below the last.
DOTS, BELOW = 24.0, 52.0


def histogram(
  alphas: Mapping[str, Float[np.ndarray, ' A']], file: Path
) -> None:
  """Draws how many architectures have which density, a panel for each title."""
  lines = 1 + max(title.count('\n') for title in alphas)
  with style():
    sheet = Sheet(
      WIDTH * len(alphas), HEIGHT + 16 * lines, 'Density of the architectures'
    )
    for number, (title, alpha_A) in enumerate(alphas.items()):
      edges_M = charts.edges([alpha_A])
      count_N, _ = np.histogram(alpha_A, edges_M)
      bars = charts.Bars(label='', colour=0, edges_M=edges_M, count_N=count_N)
      panel = sheet.chart(
        WIDTH * number, 16.0 * lines, WIDTH, HEIGHT, 'density', 'architectures'
      )
      marks.scale(panel, [bars])
      marks.bars(bars, panel)
      panel.set_title(title, loc='left')
    write_png(sheet.figure, file)


def updates(rows: Sequence[Updates], file: Path) -> None:
  """Draws effective updates from the worst-off on, the rules side by side."""
  chart = ranked.updates_chart(
    {
      f'{row.rule.replace("_", "-")} {row.fraction:.2g}': row.update_A
      for row in rows
      # As many as there are colours.
      if row.fraction != FRACTIONS[0]
    },
    name='updates',
    title='Effective updates',
  )
  with style():
    write_png(drawing.draw(chart).figure, file)


def dots(
  rows: Mapping[str, Sequence[float]], file: Path, *, title: str, xlabel: str
) -> None:
  """Draws a row of dots for each label, and a bar at the mean of each row."""
  tall = DOTS * len(rows)
  with style():
    sheet = Sheet(WIDTH, tall + BELOW, title)
    panel = sheet.axes(NAMES, 0.0, WIDTH - NAMES - RIGHT, tall)
    panel.grid(axis='x', color=LIGHT['rule'], lw=1)
    for row, values in enumerate(rows.values()):
      panel.plot(values, [row] * len(values), 'o', color=series(0), alpha=0.62)
      if len(values) > 1:
        panel.plot(np.mean(values), row, '|', color=LIGHT['ink'], markersize=14)
    panel.set_yticks(
      range(len(rows)),
      labels=[shortened(label) for label in rows],
      fontsize=11,
    )
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.set_xlabel(xlabel)
    write_png(sheet.figure, file)


def scatter(
  x_N: Float[np.ndarray, ' N'],
  y_N: Float[np.ndarray, ' N'],
  file: Path,
  *,
  title: str,
  xlabel: str,
  ylabel: str,
  colour: Int[np.ndarray, ' N'],
  colour_label: str,
  front_M: Int[np.ndarray, ' M'],
  marked: int,
) -> None:
  """Draws dots by colour, a line through some of them, a ring around one."""
  with style():
    sheet = Sheet(WIDTH, HEIGHT + 60, title)
    panel = sheet.chart(0.0, 0.0, WIDTH - 70, HEIGHT + 60, xlabel, ylabel)
    dots = panel.scatter(
      x_N, y_N, c=colour, s=14, alpha=0.7, cmap=palette.SCALE
    )
    line_M = front_M[np.argsort(x_N[front_M])]
    panel.plot(
      x_N[line_M], y_N[line_M], color=LIGHT['ink'], lw=1, label='front'
    )
    panel.plot(
      x_N[marked],
      y_N[marked],
      'o',
      ms=12,
      mfc='none',
      mec=series(1),
      mew=2,
      ls='none',
      label='found',
    )
    panel.legend(loc='best', frameon=False, fontsize=11.5)
    key = sheet.axes(WIDTH - 64, 24.0, 12.0, HEIGHT - 20)
    bar = sheet.figure.colorbar(
      dots, cax=key, label=colour_label, ticks=MaxNLocator(5, integer=True)
    )
    bar.outline.set_visible(False)
    write_png(sheet.figure, file)


def matrix(
  distance_AxA: Float[np.ndarray, 'A A'], file: Path, *, title: str
) -> None:
  """Draws distances between architectures in the order given, densest first.

  The diagonal stays blank: its zeros would take most of the colours.
  """
  count = len(distance_AxA)
  names = [str(number) for number in range(1, count + 1)]
  grid = charts.Grid(
    name='distances',
    title=title,
    xlabel='architectures, densest first',
    rows=names,
    columns=names,
    value_RxC=np.where(np.eye(count, dtype=bool), np.nan, distance_AxA),
    unit='distance',
  )
  with style():
    write_png(drawing.draw(grid).figure, file)


def comparison(
  results: Mapping[str, Sequence[Mapping[str, Any]]], file: Path
) -> None:
  """Draws Kendall's tau of every run, if any has one.

  Args:
    results: the results of each label, one for each seed.
    file: the PNG file.
  """
  taus = {
    label: [
      result['kendall']
      for result in of_seeds
      if result.get('kendall') is not None
    ]
    for label, of_seeds in results.items()
  }
  if any(taus.values()):
    title, xlabel = "Kendall's tau of every run", "Kendall's tau"
    dots(taus, file, title=title, xlabel=xlabel)


def search(
  space: Space,
  found: State,
  best_E: Int[np.ndarray, ' E'],
  file: Path,
  costs: CostTable | None = None,
) -> None:
  """Draws accuracy against a cost, their front, and the best one.

  The cost is the table's where there is one, else multiply-adds.
  """
  last_U = last_scores(found)
  archs_UxE = found.archs_VxE[last_U]
  if costs is None:
    cost_U, unit = (
      space.costs(archs_UxE).macs_A / 1e6,
      'multiply-adds, millions',
    )
  else:
    cost_U, unit = costs.of(archs_UxE), costs.unit
  accuracy_U = found.accuracy_V[last_U]
  scatter(
    cost_U,
    accuracy_U * 100,
    file,
    title='Architectures of the search',
    xlabel=unit,
    ylabel='accuracy with shared weights, %',
    colour=found.generation_V[last_U],
    colour_label='generation',
    front_M=pareto.front(np.column_stack([accuracy_U, -cost_U])),
    marked=int(np.flatnonzero(last_U == index(found, best_E))[0]),
  )
