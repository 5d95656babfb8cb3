"""Figures as SVG for a page, whose style sheet colours them.

What hovering says stands in `data-t`, escaped; page.js shows it as text.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas.report import charts, grid
from jaxnas.report.tags import RIGHT, WIDTH, element, tag, text

HEIGHT, LEFT, TOP, BOTTOM = 330.0, 62.0, 14.0, 52.0

# Of one mark: more make a page slow. Ringed ones are always among them.
MOST_DOTS = 1500
MOST_HOVERED = 300

Scale = Callable[[float], float]


def figure(drawn: charts.Figure) -> str:
  """An svg element, as wide as what it stands in."""
  if isinstance(drawn, charts.Chart):
    return element(drawn.title, HEIGHT, [*_chart(drawn)])
  if isinstance(drawn, charts.Grid):
    return element(drawn.title, grid.height(drawn), [*grid.elements(drawn)])
  return element(drawn.title, 34.0 * len(drawn.parts) + 8, [*_amounts(drawn)])


def thinned(mark: charts.Dots) -> Int[np.ndarray, ' M']:
  """Indices of the dots that a page draws, the same at each call."""
  count = len(mark.x_N)
  if count <= MOST_DOTS:
    return np.arange(count)
  drawn = np.random.default_rng(0).choice(count, MOST_DOTS, replace=False)
  ringed = [] if mark.ringed_M is None else mark.ringed_M
  return np.union1d(drawn, np.asarray(ringed, int))


def shown_turns(chart: charts.Chart) -> dict[str, float]:
  """Those within the axes."""
  left, right, *_ = charts.extent(chart)
  return {
    name: turn for name, turn in chart.turns.items() if left < turn < right
  }


def kinds(amounts: charts.Amounts) -> list[str]:
  """That there is something of, in an order that all bars share."""
  return [
    *dict.fromkeys(
      kind for row in amounts.parts.values() for kind in charts.shares(row)
    )
  ]


def _scales(chart: charts.Chart) -> tuple[Scale, Scale]:
  left, right, bottom, top = charts.extent(chart)
  if chart.ranks:
    left, right, bottom, top = right, left, top, bottom
  wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
  return (
    lambda x: LEFT + wide * (x - left) / (right - left),
    lambda y: TOP + high * (top - y) / (top - bottom),
  )


def _chart(chart: charts.Chart) -> Iterator[str]:
  x, y = _scales(chart)
  yield from _axes(chart, x, y)
  if chart.diagonal:
    left, right, *_ = charts.extent(chart)
    yield tag(
      'line', x1=x(left), y1=y(left), x2=x(right), y2=y(right), class_='level'
    )
  for level in chart.levels.values():
    yield tag(
      'line',
      x1=LEFT,
      x2=WIDTH - RIGHT,
      y1=y(level),
      y2=y(level),
      class_='level',
    )
  turns = shown_turns(chart)
  for turn in turns.values():
    yield tag(
      'line',
      x1=x(turn),
      x2=x(turn),
      y1=TOP,
      y2=HEIGHT - BOTTOM,
      class_='level',
    )
  for mark in chart.marks:
    if isinstance(mark, charts.Line):
      yield from _line(chart, mark, x, y)
    elif isinstance(mark, charts.Dots):
      yield from _dots(mark, x, y)
    else:
      yield from _bars(mark, x, y)
  # Above what they would be lost among.
  for name, level in chart.levels.items():
    yield text(LEFT + 6, y(level) - 5, name, 'name')
  for name, turn in turns.items():
    yield text(x(turn) + 5, HEIGHT - BOTTOM - 7, name, 'name')


def _axes(chart: charts.Chart, x: Scale, y: Scale) -> Iterator[str]:
  left, right, bottom, top = charts.extent(chart)
  for at in charts.ticks(bottom, top, ranks=chart.ranks):
    yield tag(
      'line', x1=LEFT, x2=WIDTH - RIGHT, y1=y(at), y2=y(at), class_='grid'
    )
    yield text(LEFT - 8, y(at) + 4, charts.said(at), 'tick end')
  for at in charts.ticks(left, right, ranks=chart.ranks):
    yield text(x(at), HEIGHT - BOTTOM + 20, charts.said(at), 'tick middle')
  yield tag(
    'line',
    x1=LEFT,
    x2=WIDTH - RIGHT,
    y1=HEIGHT - BOTTOM,
    y2=HEIGHT - BOTTOM,
    class_='axis',
  )
  middle = (LEFT + WIDTH - RIGHT) / 2
  yield text(middle, HEIGHT - 10, chart.xlabel, 'label middle')
  yield text(
    0.0,
    0.0,
    chart.ylabel,
    'label middle',
    transform=f'translate(15 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)',
  )


def _line(
  chart: charts.Chart, mark: charts.Line, x: Scale, y: Scale
) -> Iterator[str]:
  series = f's{mark.colour}'
  if mark.low_N is not None and mark.high_N is not None:
    upper = zip(mark.x_N, mark.high_N, strict=True)
    lower = zip(mark.x_N[::-1], mark.low_N[::-1], strict=True)
    yield tag(
      'polygon',
      points=_points([*upper, *lower], x, y),
      class_=f'band {series}',
    )
  pairs = [*zip(mark.x_N, mark.y_N, strict=True)]
  yield tag('polyline', points=_points(pairs, x, y), class_=f'line {series}')
  every = math.ceil(len(pairs) / MOST_HOVERED) or 1
  for n in range(0, len(pairs), every):
    at, value = pairs[n]
    text = (
      mark.texts[n]
      if mark.texts
      else f'{mark.label}\n{chart.xlabel} {at:.6g}\n{value:.4g}'
    )
    yield tag(
      'circle',
      cx=x(at),
      cy=y(value),
      r=3.2 if mark.dotted else 0,
      class_=f'dot {series}',
      data_t=text,
    )


def _dots(mark: charts.Dots, x: Scale, y: Scale) -> Iterator[str]:
  drawn = thinned(mark)
  ringed = set() if mark.ringed_M is None else {*mark.ringed_M.tolist()}
  # Many dots are small.
  radius = 4.2 if len(drawn) <= 100 else 3.2 if len(drawn) <= 400 else 2.2
  # Rings on top.
  for n in sorted(drawn.tolist(), key=lambda n: n in ringed):
    yield tag(
      'circle',
      cx=x(float(mark.x_N[n])),
      cy=y(float(mark.y_N[n])),
      r=radius + 1.4 if n in ringed else radius,
      class_=f'dot s{mark.colour}' + (' ringed' if n in ringed else ''),
      data_t=mark.texts[n] if mark.texts else mark.label,
    )


def _bars(mark: charts.Bars, x: Scale, y: Scale) -> Iterator[str]:
  for left, right, count in zip(
    mark.edges_M[:-1], mark.edges_M[1:], mark.count_N, strict=True
  ):
    if count:
      yield tag(
        'rect',
        x=x(left),
        y=y(count),
        width=max(x(right) - x(left) - 1, 1),
        height=y(0) - y(count),
        class_=f'bar s{mark.colour}',
        data_t=f'{mark.label}\n{left:.4g} to {right:.4g}\n{count}',
      )


def _amounts(amounts: charts.Amounts) -> Iterator[str]:
  names = kinds(amounts)
  most = max((sum(row.values()) for row in amounts.parts.values()), default=1)
  for r, (label, row) in enumerate(amounts.parts.items()):
    top, at = 34.0 * r, 0.0
    total = sum(row.values())
    yield text(0.0, top + 11, f'{label}: {total:.4g} {amounts.unit}', 'row')
    for kind, amount in charts.shares(row).items():
      width = WIDTH * amount / (most or 1)
      yield tag(
        'rect',
        x=at,
        y=top + 16,
        width=max(width - 1, 0.5),
        height=13,
        class_=f'bar k{names.index(kind)}',
        data_t=f'{label}\n{kind}\n{amount:.4g} {amounts.unit}',
      )
      at += width


def _points(pairs: Sequence[tuple[Any, Any]], x: Scale, y: Scale) -> str:
  return ' '.join(f'{x(float(a)):.1f},{y(float(b)):.1f}' for a, b in pairs)
