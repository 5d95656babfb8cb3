"""Draws the marks of charts: lines, dots and bars."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from jaxnas.report import charts
from jaxnas.report.palette import LIGHT, series
from jaxnas.report.sheet import HEIGHT, WIDTH, Sheet, patches

# Points of a line that answer the pointer.
MOST_HOVERED = 300


def chart(chart: charts.Chart, sheet: Sheet) -> None:
  """Draws a chart with all that it shows."""
  panel = sheet.chart(0.0, 0.0, WIDTH, HEIGHT, chart.xlabel, chart.ylabel)
  scale(
    panel,
    chart.marks,
    [*chart.levels.values()],
    diagonal=chart.diagonal,
    ranks=chart.ranks,
  )
  left, right = sorted(panel.get_xlim())
  dashed: dict[str, Any] = {'color': LIGHT['soft'], 'lw': 1, 'ls': (0, (5, 4))}
  if chart.diagonal:
    panel.plot([left, right], [left, right], **dashed)
  for level in chart.levels.values():
    panel.axhline(level, **dashed)
  turns = {n: turn for n, turn in chart.turns.items() if left < turn < right}
  for turn in turns.values():
    panel.axvline(turn, **dashed)
  for number, mark in enumerate(chart.marks):
    gid = f'mark{number}'
    if isinstance(mark, charts.Line):
      _line(chart, mark, panel, gid, sheet.texts, hides(chart, number))
    elif isinstance(mark, charts.Dots):
      _dots(mark, panel, gid, sheet.texts)
    else:
      sheet.texts[gid] = bars(mark, panel, gid)
  for name, level in chart.levels.items():
    _name(panel, name, (0.0, level), ('axes fraction', 'data'), (6.0, 5.0))
  for name, turn in turns.items():
    _name(panel, name, (turn, 0.0), ('data', 'axes fraction'), (5.0, 7.0))


def hides(chart: charts.Chart, number: int) -> bool:
  """Returns True if a line would hide an earlier one, being the same."""
  mark = chart.marks[number]
  return isinstance(mark, charts.Line) and any(
    np.array_equal(mark.x_N, other.x_N) and np.array_equal(mark.y_N, other.y_N)
    for other in chart.marks[:number]
    if isinstance(other, charts.Line)
  )


def _name(
  panel: Axes,
  name: str,
  place: tuple[float, float],
  coordinates: tuple[str, str],
  offset: tuple[float, float],
) -> None:
  """Writes a line's name beside it, on what would hide it otherwise."""
  panel.annotate(
    name,
    place,
    xycoords=coordinates,
    xytext=offset,
    textcoords='offset points',
    fontsize=11.5,
    color=LIGHT['soft'],
    bbox={
      'facecolor': LIGHT['card'],
      'edgecolor': 'none',
      'alpha': 0.8,
      'pad': 1.5,
    },
    zorder=5,
  )


def _points(
  panel: Axes,
  gid: str,
  texts: dict[str, Sequence[str]],
  x_N: Num[np.ndarray, ' N'],
  y_N: Num[np.ndarray, ' N'],
  said: Sequence[str],
  radius: float,
  **look: Any,
) -> None:
  """Draws dots that answer the pointer, those that have a place."""
  kept = np.flatnonzero(np.isfinite(x_N) & np.isfinite(y_N)).tolist()
  if len(kept):
    panel.scatter(
      x_N[kept],
      y_N[kept],
      s=(2 * radius) ** 2,
      gid=gid,
      clip_on=False,
      **{'linewidths': 0, 'zorder': 3, **look},
    )
    texts[gid] = [said[n] for n in kept]


def _line(
  chart: charts.Chart,
  mark: charts.Line,
  panel: Axes,
  gid: str,
  texts: dict[str, Sequence[str]],
  dashed: bool,
) -> None:
  colour = series(mark.colour)
  if mark.low_N is not None and mark.high_N is not None:
    panel.fill_between(
      mark.x_N, mark.low_N, mark.high_N, color=colour, alpha=0.16, lw=0
    )
  style: Any = (0, (4, 4)) if dashed else '-'
  panel.plot(mark.x_N, mark.y_N, color=colour, lw=2, ls=style, clip_on=False)
  count = len(mark.x_N)
  hovered = range(0, count, math.ceil(count / MOST_HOVERED) or 1)
  said = [
    mark.texts[n]
    if mark.texts
    else f'{mark.label}\n{chart.xlabel} {mark.x_N[n]:.6g}\n{mark.y_N[n]:.4g}'
    for n in hovered
  ]
  _points(
    panel,
    gid if mark.dotted else f'{gid}-hidden',
    texts,
    mark.x_N[hovered],
    mark.y_N[hovered],
    said,
    3.2,
    color=colour,
    alpha=None if mark.dotted else 0.0,
  )


def _dots(
  mark: charts.Dots, panel: Axes, gid: str, texts: dict[str, Sequence[str]]
) -> None:
  drawn_M = charts.thinned(mark)
  many = len(drawn_M)
  radius = 4.2 if many <= 100 else 3.2 if many <= 400 else 2.2
  ringed_M = np.isin(drawn_M, [] if mark.ringed_M is None else mark.ringed_M)
  said = [*mark.texts] or [mark.label] * len(mark.x_N)
  rings = {'edgecolors': LIGHT['ink'], 'linewidths': 1.6, 'zorder': 4}
  for name, some_M, more, look in (
    (gid, drawn_M[~ringed_M], 0.0, {'alpha': 0.62}),
    (f'{gid}-ringed', drawn_M[ringed_M], 1.4, rings),
  ):
    _points(
      panel,
      name,
      texts,
      mark.x_N[some_M],
      mark.y_N[some_M],
      [said[n] for n in some_M.tolist()],
      radius + more,
      facecolors=series(mark.colour),
      **look,
    )


def bars(mark: charts.Bars, panel: Axes, gid: str = 'bars') -> list[str]:
  """Draws a histogram, a point between its bars; returns what each bar says."""
  said, drawn = [], []
  low, high = panel.get_xlim()
  gap = (high - low) / (panel.bbox.width * 72 / panel.figure.dpi)
  for left, right, count in zip(
    mark.edges_M[:-1], mark.edges_M[1:], mark.count_N, strict=True
  ):
    if count:
      drawn.append(Rectangle((left, 0), right - left - gap, count))
      said.append(f'{mark.label}\n{left:.4g} to {right:.4g}\n{count}')
  patches(panel, gid, drawn, series(mark.colour), zorder=2)
  return said


def ticks(
  low: float, high: float, *, ranks: bool = False, counts: bool = False
) -> list[float]:
  """Round numbers between the two; ranks begin with 1, counts are whole."""
  places = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=counts)
  found = [float(tick) for tick in places.tick_values(low, high)]
  if ranks:
    found = [1.0, *(tick for tick in found if tick > 1)]
  return [tick for tick in found if low <= tick <= high]


def tick_text(tick: float) -> str:
  """Writes a tick in few characters.

  >>> tick_text(2500.0), tick_text(0.5)
  ('2.5k', '0.5')
  """
  return f'{tick / 1000:g}k' if abs(tick) >= 1000 else f'{tick:g}'


def scale(
  panel: Axes,
  marks: Sequence[charts.Line | charts.Dots | charts.Bars],
  levels: Sequence[float] = (),
  *,
  diagonal: bool = False,
  ranks: bool = False,
) -> None:
  """Gives axes the limits and round ticks that hold all marks."""
  left, right, bottom, top = charts.extent(marks, levels, diagonal=diagonal)
  counts = any(isinstance(mark, charts.Bars) for mark in marks)
  for axis, places in (
    (panel.xaxis, ticks(left, right, ranks=ranks)),
    (panel.yaxis, ticks(bottom, top, ranks=ranks, counts=counts)),
  ):
    axis.set_ticks(places, labels=[tick_text(tick) for tick in places])
  panel.set_xlim(*((right, left) if ranks else (left, right)))
  panel.set_ylim(*((top, bottom) if ranks else (bottom, top)))
