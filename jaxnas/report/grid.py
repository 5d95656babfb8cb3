"""Grids as SVG: values by row and column, as colours."""

import math
from collections.abc import Iterator

import numpy as np

from jaxnas.report import charts
from jaxnas.report.tags import RIGHT, WIDTH, tag, text

# What a label takes, a row, what stands below the rows, and the key.
NAMES, ROW, BOTTOM, KEY = 190.0, 15.0, 52.0, 46.0

# All rows of a square together, and a label of theirs.
SQUARE, LINE = 330.0, 12.0


def height(grid: charts.Grid) -> float:
  return row_height(grid) * len(grid.rows) + BOTTOM + KEY


def row_height(grid: charts.Grid) -> float:
  """A line each; rows of a square are as narrow as its columns."""
  return min(ROW, SQUARE / len(grid.rows)) if grid.square else ROW


def elements(grid: charts.Grid) -> Iterator[str]:
  low, high = limits(grid)
  width = (WIDTH - NAMES - RIGHT) / max(len(grid.columns), 1)
  tall = row_height(grid)
  before = '' if grid.square else f'{grid.xlabel} '
  labelled = math.ceil(LINE / tall)
  for r, row in enumerate(grid.rows):
    if r % labelled == 0:
      # A row's name is cut on paper; hovering says all of it.
      middle = tall * (r + 0.5) + 4
      yield text(NAMES - 8, middle, _shortened(row), 'row end')
    for c, column in enumerate(grid.columns):
      value = float(grid.value_RxC[r, c])
      known = math.isfinite(value)
      yield tag(
        'rect',
        x=NAMES + width * c,
        y=tall * r,
        width=width + 0.3,
        height=tall + 0.3,
        class_=None if known else 'unknown',
        fill=colour(value, low, high) if known else None,
        data_t=f'{row}\n{before}{column}\n{grid.unit} '
        + (f'{value:.4g}' if known else 'undefined'),
      )
  bottom = tall * len(grid.rows)
  every = math.ceil(len(grid.columns) / 8) or 1
  # Names of a square stand on the left.
  for c in [] if grid.square else range(0, len(grid.columns), every):
    middle = NAMES + width * (c + 0.5)
    yield text(middle, bottom + 18, str(grid.columns[c]), 'tick middle')
  yield text(
    (NAMES + WIDTH - RIGHT) / 2, bottom + 40, grid.xlabel, 'label middle'
  )
  steps = 40
  key = (WIDTH - NAMES - RIGHT) / steps
  for step in range(steps):
    yield tag(
      'rect',
      x=NAMES + key * step,
      y=float(bottom + BOTTOM),
      width=key + 0.3,
      height=9,
      fill=colour(step / (steps - 1), 0.0, 1.0),
    )
  below = bottom + BOTTOM + 26
  yield text(NAMES, below, f'{low:.3g}', 'tick')
  yield text(WIDTH - RIGHT, below, f'{high:.3g}', 'tick end')
  yield text((NAMES + WIDTH - RIGHT) / 2, below, grid.unit, 'label middle')


def colour(value: float, low: float, high: float) -> str:
  """Of a cell."""
  from matplotlib import colormaps, colors

  share = (value - low) / (high - low) if high > low else 0.5
  return colors.to_hex(colormaps['viridis'](share))


def limits(grid: charts.Grid) -> tuple[float, float]:
  """Smallest and largest value that its colours tell apart."""
  if grid.limits is not None:
    return grid.limits
  finite = grid.value_RxC[np.isfinite(grid.value_RxC)]
  return (
    (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
  )


def _shortened(name: str, most: int = 28) -> str:
  return name if len(name) <= most else f'{name[: most - 1]}…'
