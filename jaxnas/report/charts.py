"""Describes what a figure shows; `drawing` draws it.

`colour` is the number of a run, or a name that `palette` knows, so that one
thing looks alike in every figure, and no two things do.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Num


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """Points joined in their order."""

  label: str
  colour: int | str
  x_N: Num[np.ndarray, ' N']
  y_N: Num[np.ndarray, ' N']
  low_N: Float[np.ndarray, ' N'] | None = None
  """Lower ends of the intervals around the points, drawn as a band."""
  high_N: Float[np.ndarray, ' N'] | None = None
  """Upper ends of the intervals."""
  dotted: bool = False
  """Points are marked, as they are few."""
  texts: Sequence[str] = ()
  """The page says them when the pointer is on a point; without them, it says
  the numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots:
  """Points, some of them ringed."""

  label: str
  colour: int | str
  x_N: Num[np.ndarray, ' N']
  y_N: Num[np.ndarray, ' N']
  texts: Sequence[str] = ()
  ringed_M: Int[np.ndarray, ' M'] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
  """A histogram."""

  label: str
  colour: int | str
  edges_M: Float[np.ndarray, ' M']
  count_N: Int[np.ndarray, ' N']
  """Counts between neighbouring edges: N = M - 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
  """Marks on two axes."""

  name: str
  """The name of its files, without a suffix."""
  title: str
  xlabel: str
  ylabel: str
  marks: Sequence[Line | Dots | Bars]
  note: str = ''
  """Sentences below the figure."""
  levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """Heights of lines across the chart, by their names."""
  turns: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """Places of upright lines, by their names."""
  diagonal: bool = False
  """A line shows where both axes agree."""
  ranks: bool = False
  """Both axes are ranks: the best, 1, is at the far end."""


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
  """Values of the first and last colour, shared by grids that are compared;
  None: the smallest and largest of this grid."""

  @property
  def square(self) -> bool:
    """Rows and columns are the same things."""
    return self.rows == self.columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amounts:
  """A bar for each label, made of a part for each kind."""

  name: str
  title: str
  unit: str
  parts: Mapping[str, Mapping[str, float]]
  """Amounts by kind, by label."""
  note: str = ''


Figure = Chart | Grid | Amounts

# A mark with more dots makes a page slow; ringed ones are always drawn.
MOST_DOTS = 1500


def legend(figure: Figure) -> list[tuple[int | str, str]]:
  """(colour, label) of all that a reader has to tell apart; one needs none."""
  if isinstance(figure, Amounts):
    return [(kind, kind) for kind in kinds(figure)]
  if isinstance(figure, Chart) and len(figure.marks) > 1:
    return [(mark.colour, mark.label) for mark in figure.marks]
  return []


def notes(figure: Figure) -> str:
  """The sentences below a figure: its own, and how many dots are left out."""
  thin = [
    f'{len(mark.x_N):,} dots, of which {len(thinned(mark)):,} are drawn.'
    for mark in getattr(figure, 'marks', ())
    if isinstance(mark, Dots) and len(mark.x_N) > MOST_DOTS
  ]
  return ' '.join([figure.note, *thin]).strip()


def thinned(mark: Dots) -> Int[np.ndarray, ' M']:
  """Indices of the dots that are drawn, the same at each call."""
  count = len(mark.x_N)
  if count <= MOST_DOTS:
    return np.arange(count)
  drawn = np.random.default_rng(0).choice(count, MOST_DOTS, replace=False)
  ringed = [] if mark.ringed_M is None else mark.ringed_M
  return np.union1d(drawn, np.asarray(ringed, int))


def extent(
  marks: Sequence[Line | Dots | Bars],
  levels: Sequence[float] = (),
  *,
  diagonal: bool = False,
) -> tuple[float, float, float, float]:
  """(left, right, bottom, top) that holds all marks, with some air."""
  xs: list[float] = []
  ys = [float(level) for level in levels]
  for mark in marks:
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
  if diagonal:
    xs = ys = xs + ys
  left, right = _aired(xs)
  bottom, top = _aired(ys)
  if any(isinstance(mark, Bars) for mark in marks):
    bottom = 0.0
  return left, right, bottom, top


def _aired(values: Sequence[float]) -> tuple[float, float]:
  finite = [value for value in values if np.isfinite(value)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
  return low - air, high + air


def limits(grid: Grid) -> tuple[float, float]:
  """Smallest and largest value that its colours tell apart."""
  if grid.limits is not None:
    return grid.limits
  finite = grid.value_RxC[np.isfinite(grid.value_RxC)]
  return (
    (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
  )


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
  """The amounts above zero, largest first."""
  return dict(
    sorted(
      ((kind, amount) for kind, amount in amounts.items() if amount > 0),
      key=lambda pair: -pair[1],
    )
  )


def kinds(amounts: Amounts) -> list[str]:
  """Kinds with an amount above zero, in an order that all bars share."""
  return [
    *dict.fromkeys(
      kind for row in amounts.parts.values() for kind in shares(row)
    )
  ]


def edges(
  values: Sequence[Float[np.ndarray, ' A']],
) -> Float[np.ndarray, ' M']:
  """Edges of histograms that stand in one chart, finer for more values."""
  least = min(map(len, values))
  bins = int(np.clip(2 * np.sqrt(least), 10, 60))
  return np.histogram_bin_edges(np.concatenate(values), bins)


def without_gaps(
  x: Sequence[float | int], y: Sequence[float | int]
) -> tuple[Float[np.ndarray, ' N'], Float[np.ndarray, ' N']]:
  """The pairs of which both numbers are finite."""
  x_N, y_N = np.asarray(x, float), np.asarray(y, float)
  kept_N = np.isfinite(x_N) & np.isfinite(y_N)
  return x_N[kept_N], y_N[kept_N]
