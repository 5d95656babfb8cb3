"""Provides the paper that figures are drawn on, measured in points.

The body of a figure holds its axes. Above it a head has the title and the
legend, which a page shows as text instead.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxnas.report.palette import LIGHT, series
from jaxnas.runtime import files

# The width of a body, and what surrounds every figure.
WIDTH, PAD = 520.0, 14.0
# Charts: the height of the body, and what surrounds the axes.
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330.0, 62.0, 16.0, 14.0, 52.0
# The room for the names of rows, and how many characters fit.
NAMES, MOST_OF_A_NAME = 190.0, 28
# The head: the title, and a row of the legend.
TITLE, ENTRY = 26.0, 18.0

DPI = 150
STYLE: Mapping[str, Any] = {
  'font.size': 12.5,
  'text.color': LIGHT['ink'],
  'axes.labelcolor': LIGHT['ink'],
  # Names come from files: a dollar in one is no formula.
  'text.parse_math': False,
  'svg.fonttype': 'none',
}


@contextmanager
def style(name: str = 'jaxnas') -> Iterator[None]:
  """Everything is drawn and saved within it; a name gives the same SVG ids."""
  settings: Any = {**STYLE, 'svg.hashsalt': name}
  with rc_context(settings):
    yield


class Sheet:
  """A figure whose lengths are points, from its top left corner.

  Args:
    width: points of its body, which `PAD` surrounds.
    height: points of its body.
    title: above the body.
    entries: (colour, label) of the legend below the title.

  Attributes:
    figure: what matplotlib draws and saves.
    body: left, top, width and height of the body, for the page.
    texts: what the page says about each dot or bar, by the id of its group.
    cells: the names and values of a grid as JSON, by the id of its image.
  """

  def __init__(
    self,
    width: float,
    height: float,
    title: str,
    entries: Sequence[tuple[int | str, str]] = (),
  ) -> None:
    longest = max((len(label) for _, label in entries), default=1)
    columns = max(1, int(width // (7.0 * longest + 36)))
    rows = math.ceil(len(entries) / columns)
    title = '\n'.join(
      line
      for part in title.splitlines()
      for line in textwrap.wrap(part, int(width // 9))
    )
    lines = title.count('\n')
    self.top = PAD + TITLE + ENTRY * (lines + rows) + (6.0 if rows else 0.0)
    self.size = (width + 2 * PAD, self.top + height + PAD)
    self.figure = Figure(
      figsize=(self.size[0] / 72, self.size[1] / 72), facecolor=LIGHT['card']
    )
    self.texts: dict[str, Sequence[str]] = {}
    self.cells: dict[str, str] = {}
    self.figure.patch.set_gid('background')
    self.body = (PAD, self.top, width, height)
    self.figure.text(
      PAD / self.size[0],
      1 - PAD / self.size[1],
      title,
      va='top',
      fontsize=13.5,
      fontweight='bold',
      gid='title',
    )
    if entries:
      self.figure.legend(
        handles=[Patch(color=series(n), label=label) for n, label in entries],
        loc='upper left',
        bbox_to_anchor=(
          PAD / self.size[0],
          1 - (PAD + TITLE + ENTRY * lines) / self.size[1],
        ),
        ncols=columns,
        fontsize=11.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=0.8,
        handleheight=0.8,
        labelcolor=LIGHT['soft'],
      ).set_gid('legend')

  def axes(self, x: float, y: float, width: float, height: float) -> Axes:
    """Plain axes at a place of the body, without a frame or ticks."""
    whole_x, whole_y = self.size
    panel = self.figure.add_axes(
      (
        (PAD + x) / whole_x,
        1 - (self.top + y + height) / whole_y,
        width / whole_x,
        height / whole_y,
      ),
      facecolor='none',
    )
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, labelcolor=LIGHT['soft'], pad=7)
    panel.set_axisbelow(True)
    return panel

  def chart(
    self,
    x: float,
    y: float,
    width: float,
    height: float,
    xlabel: str,
    ylabel: str,
  ) -> Axes:
    """Axes with a line below, rules across, and two labels, within an area."""
    wide, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    panel = self.axes(x + LEFT, y + TOP, wide, tall)
    panel.spines['bottom'].set_visible(True)
    panel.spines['bottom'].set_color(LIGHT['soft'])
    panel.grid(axis='y', color=LIGHT['rule'], lw=1)
    panel.set_xlabel(xlabel, va='baseline')
    panel.set_ylabel(ylabel, va='baseline')
    panel.xaxis.set_label_coords(0.5, -(BOTTOM - 10) / tall)
    panel.yaxis.set_label_coords((15 - LEFT) / wide, 0.5)
    return panel


def patches(
  panel: Axes, gid: str, bars: Sequence[Patch], colour: str, **look: Any
) -> None:
  """Draws bars that answer the pointer."""
  panel.add_collection(
    PatchCollection(
      bars,
      facecolor=(colour, 0.62),
      edgecolor='none',
      gid=gid,
      clip_on=False,
      **look,
    ),
    autolim=False,
  )


def shortened(name: str) -> str:
  """Cuts a name that would leave its column."""
  most = MOST_OF_A_NAME
  return name if len(name) <= most else f'{name[: most - 1]}…'


def write_png(figure: Figure, file: Path) -> None:
  """Writes a figure as PNG, whole or not at all."""
  with files.whole(file) as stream:
    figure.savefig(stream, format='png', dpi=DPI)
