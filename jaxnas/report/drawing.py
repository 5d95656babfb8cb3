"""Draws charts, grids and amounts with matplotlib, each of them once.

The page and the PNG and SVG files are made from the same drawing.
"""

import json
import math
from typing import Any

import numpy as np
from matplotlib.patches import Patch, Rectangle

from jaxnas.report import charts, marks, palette
from jaxnas.report.palette import LIGHT, series
from jaxnas.report.sheet import (
  HEIGHT,
  NAMES,
  RIGHT,
  WIDTH,
  Sheet,
  patches,
  shortened,
)

# Grids: the height of a row, what is below the rows, and the key of the
# colours; all rows of a square together, and a name of theirs.
ROW, BELOW, KEY, SQUARE, NAME = 15.0, 52.0, 46.0, 330.0, 12.0
# Amounts: the room of a bar with its label.
AMOUNT = 34.0


def draw(figure: charts.Figure) -> Sheet:
  """Draws a figure; call it, and save what it returns, within `style`."""
  sheet = Sheet(WIDTH, height(figure), figure.title, charts.legend(figure))
  if isinstance(figure, charts.Chart):
    marks.chart(figure, sheet)
  elif isinstance(figure, charts.Grid):
    _grid(figure, sheet)
  else:
    _amounts(figure, sheet)
  return sheet


def height(figure: charts.Figure) -> float:
  """Points of the body of a figure."""
  if isinstance(figure, charts.Chart):
    return HEIGHT
  if isinstance(figure, charts.Grid):
    return _row_height(figure) * len(figure.rows) + BELOW + KEY
  return AMOUNT * len(figure.parts) + 4


def _row_height(grid: charts.Grid) -> float:
  """A row has a line; rows of a square are as narrow as its columns."""
  return min(ROW, SQUARE / len(grid.rows)) if grid.square else ROW


def _grid(grid: charts.Grid, sheet: Sheet) -> None:
  low, high = charts.limits(grid)
  tall, wide = _row_height(grid), WIDTH - NAMES - RIGHT
  bottom = tall * len(grid.rows)
  panel = sheet.axes(NAMES, 0.0, wide, bottom)
  # Undefined values show what is behind the image.
  panel.set_facecolor(LIGHT['rule'])
  image: dict[str, Any] = {
    'aspect': 'auto',
    'interpolation': 'none',
    'cmap': palette.SCALE,
  }
  panel.imshow(grid.value_RxC, vmin=low, vmax=high, gid='cells', **image)
  named = range(0, len(grid.rows), math.ceil(NAME / tall))
  panel.set_yticks(
    named,
    labels=[shortened(grid.rows[r]) for r in named],
    fontsize=11,
    color=LIGHT['ink'],
  )
  # Names of a square stand on the left alone.
  every = math.ceil(len(grid.columns) / 8) or 1
  shown = [] if grid.square else range(0, len(grid.columns), every)
  panel.set_xticks(shown, labels=[grid.columns[c] for c in shown])
  key = sheet.axes(NAMES, bottom + BELOW, wide, 9.0)
  key.imshow(np.linspace(0, 1, 64)[None], **image)
  key.set_xticks([])
  key.set_yticks([])
  for x, y, text, colour, side in (
    (0.5, bottom + 40, grid.xlabel, 'ink', 'center'),
    (0.0, bottom + BELOW + 26, f'{low:.3g}', 'soft', 'left'),
    (1.0, bottom + BELOW + 26, f'{high:.3g}', 'soft', 'right'),
    (0.5, bottom + BELOW + 26, grid.unit, 'ink', 'center'),
  ):
    panel.text(
      x,
      1 - y / bottom,
      text,
      color=LIGHT[colour],
      ha=side,
      transform=panel.transAxes,
    )
  sheet.cells['cells'] = json.dumps(
    {
      'rows': [*grid.rows],
      'columns': [
        name if grid.square else f'{grid.xlabel} {name}'
        for name in grid.columns
      ],
      'unit': grid.unit,
      'values': [
        [float(f'{value:.4g}') if np.isfinite(value) else None for value in row]
        for row in grid.value_RxC
      ],
    },
    separators=(',', ':'),
  )


def _amounts(amounts: charts.Amounts, sheet: Sheet) -> None:
  *_, tall = sheet.body
  panel = sheet.axes(0.0, 0.0, WIDTH, tall)
  panel.set(xlim=(0, WIDTH), ylim=(tall, 0), xticks=[], yticks=[])
  most = max((sum(row.values()) for row in amounts.parts.values()), default=1)
  parts: dict[str, list[tuple[Patch, str]]] = {}
  for number, (label, row) in enumerate(amounts.parts.items()):
    top, at, total = AMOUNT * number, 0.0, sum(row.values())
    text = f'{label}: {total:.4g} {amounts.unit}'
    panel.text(0, top + 11, text, fontsize=11)
    for kind, amount in charts.shares(row).items():
      width = WIDTH * amount / (most or 1)
      parts.setdefault(kind, []).append(
        (
          Rectangle((at, top + 16), max(width - 1, 0.5), 13),
          f'{label}\n{kind}\n{amount:.4g} {amounts.unit}',
        )
      )
      at += width
  for number, kind in enumerate(charts.kinds(amounts)):
    bars, said = zip(*parts[kind], strict=True)
    patches(panel, f'part{number}', bars, series(kind))
    sheet.texts[f'part{number}'] = said
