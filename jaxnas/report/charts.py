"""What a figure shows, before anything draws it: `svg` and `files` do.

`colour` counts runs from 0, so that a run looks alike in every figure.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Num


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """Points joined in their order."""

  label: str
  colour: int
  x_N: Num[np.ndarray, ' N']
  y_N: Num[np.ndarray, ' N']
  low_N: Float[np.ndarray, ' N'] | None = None
  """Of an interval around each, with `high_N`."""
  high_N: Float[np.ndarray, ' N'] | None = None
  dotted: bool = False
  """Mark the points: there are few."""
  texts: Sequence[str] = ()
  """What hovering a point says; without them, its numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots:
  """Points, some of them ringed."""

  label: str
  colour: int
  x_N: Num[np.ndarray, ' N']
  y_N: Num[np.ndarray, ' N']
  texts: Sequence[str] = ()
  ringed_M: Int[np.ndarray, ' M'] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
  """A histogram."""

  label: str
  colour: int
  edges_M: Float[np.ndarray, ' M']
  count_N: Int[np.ndarray, ' N']
  """One less than the edges."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
  """Marks on two axes."""

  name: str
  """Of its files."""
  title: str
  xlabel: str
  ylabel: str
  marks: Sequence[Line | Dots | Bars]
  note: str = ''
  """A sentence below."""
  levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """Lines across, by what they are."""
  turns: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """Lines upwards, by what they are."""
  diagonal: bool = False
  """Show where both axes agree."""
  ranks: bool = False
  """Both axes count from the best, 1, which is at the far end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
  """Values by row and column, as colours."""

  name: str
  title: str
  xlabel: str
  rows: Sequence[str]
  columns: Sequence[str]
  value_RxC: Float[np.ndarray, 'R C']
  unit: str
  note: str = ''
  limits: tuple[float, float] | None = None
  """Of the colours, where several are compared; None: its own."""

  @property
  def square(self) -> bool:
    """Whether rows and columns are the same."""
    return self.rows == self.columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amounts:
  """Bars of parts, a bar a label."""

  name: str
  title: str
  unit: str
  parts: Mapping[str, Mapping[str, float]]
  """By label: amounts by kind."""
  note: str = ''


Figure = Chart | Grid | Amounts


def extent(chart: Chart) -> tuple[float, float, float, float]:
  """(left, right, bottom, top) that holds all marks, with some air."""
  xs: list[float] = []
  ys = [float(level) for level in chart.levels.values()]
  for mark in chart.marks:
    if isinstance(mark, Bars):
      xs += mark.edges_M.tolist()
      ys += [0.0, *mark.count_N.astype(float).tolist()]
      continue
    xs += mark.x_N.astype(float).tolist()
    ys += mark.y_N.astype(float).tolist()
    if isinstance(mark, Line) and mark.low_N is not None:
      ys += mark.low_N.tolist()
    if isinstance(mark, Line) and mark.high_N is not None:
      ys += mark.high_N.tolist()
  if chart.diagonal:
    xs = ys = xs + ys
  left, right = _aired(xs)
  bottom, top = _aired(ys)
  if any(isinstance(mark, Bars) for mark in chart.marks):
    bottom = 0.0
  return left, right, bottom, top


def _aired(values: Sequence[float]) -> tuple[float, float]:
  finite = [value for value in values if np.isfinite(value)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
  return low - air, high + air


def ticks(
  low: float, high: float, *, ranks: bool = False, most: int = 6
) -> list[float]:
  """Round numbers between the two; of ranks also the first."""
  from matplotlib.ticker import MaxNLocator

  places = MaxNLocator(nbins=most - 1, steps=[1, 2, 2.5, 5, 10])
  found = [float(tick) for tick in places.tick_values(low, high)]
  if ranks:
    found = [1.0, *(tick for tick in found if tick > 1)]
  return [tick for tick in found if low <= tick <= high]


def said(tick: float) -> str:
  """A tick as it is written.

  >>> said(2500.0), said(0.5)
  ('2.5k', '0.5')
  """
  return f'{tick / 1000:g}k' if abs(tick) >= 1000 else f'{tick:g}'


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
  """The amounts that are not nothing, largest first."""
  return dict(
    sorted(
      ((kind, amount) for kind, amount in amounts.items() if amount > 0),
      key=lambda pair: -pair[1],
    )
  )


def without_gaps(
  x: Sequence[float | int], y: Sequence[float | int]
) -> tuple[Float[np.ndarray, ' N'], Float[np.ndarray, ' N']]:
  """Pairs of which both are finite."""
  x_N, y_N = np.asarray(x, float), np.asarray(y, float)
  kept_N = np.isfinite(x_N) & np.isfinite(y_N)
  return x_N[kept_N], y_N[kept_N]
