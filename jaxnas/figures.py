"""Figures of densities and distances, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DPI = 150
COLOUR = '#3b6ea5'


def histogram(
  alphas: Mapping[str, Float[np.ndarray, ' A']], file: Path
) -> None:
  """How many architectures have which density: a panel for each, by title."""
  figure = Figure(figsize=(3.6 * len(alphas) + 0.4, 3.2), layout='constrained')
  panels = figure.subplots(1, len(alphas), squeeze=False)[0]
  for panel, (title, alpha_A) in zip(panels, alphas.items(), strict=True):
    bins = int(np.clip(2 * np.sqrt(len(alpha_A)), 10, 60))
    panel.hist(alpha_A, bins=bins, color=COLOUR)
    panel.set_title(title, fontsize='medium')
    panel.set_xlabel(r'density $\alpha$')
    panel.locator_params(axis='x', nbins=5)
    panel.locator_params(axis='y', integer=True)
    panel.spines[['top', 'right']].set_visible(False)
  panels[0].set_ylabel('architectures')
  figure.savefig(file, dpi=DPI)


def dots(
  rows: Mapping[str, Sequence[float]], file: Path, *, xlabel: str
) -> None:
  """A row of dots for each label, the first on top, and a bar at their mean."""
  figure = Figure(figsize=(6.0, 0.32 * len(rows) + 1.0), layout='constrained')
  panel = figure.subplots()
  for row, values in enumerate(rows.values()):
    panel.plot(values, [row] * len(values), 'o', color=COLOUR, alpha=0.6)
    if len(values) > 1:
      panel.plot(np.mean(values), row, '|', color='black', markersize=14)
  panel.set_yticks(range(len(rows)), list(rows))
  panel.set_ylim(len(rows) - 0.5, -0.5)
  panel.set_xlabel(xlabel)
  panel.grid(axis='x', alpha=0.3)
  panel.spines[['top', 'right', 'left']].set_visible(False)
  figure.savefig(file, dpi=DPI)


def scatter(
  x_N: Float[np.ndarray, ' N'],
  y_N: Float[np.ndarray, ' N'],
  file: Path,
  *,
  xlabel: str,
  ylabel: str,
  colour: Int[np.ndarray, ' N'],
  colour_label: str,
  front_M: Int[np.ndarray, ' M'],
  marked: int,
) -> None:
  """Dots by colour, a line through some of them, and a ring around one."""
  figure = Figure(figsize=(6.0, 4.2), layout='constrained')
  panel = figure.subplots()
  dots = panel.scatter(x_N, y_N, c=colour, s=14, alpha=0.7)
  line_M = front_M[np.argsort(x_N[front_M])]
  panel.plot(x_N[line_M], y_N[line_M], color='black', lw=1, label='front')
  panel.plot(
    x_N[marked], y_N[marked], 'o', ms=12, mfc='none', mec='red', label='found'
  )
  panel.set_xlabel(xlabel)
  panel.set_ylabel(ylabel)
  panel.legend(loc='best')
  panel.spines[['top', 'right']].set_visible(False)
  figure.colorbar(
    dots, ax=panel, label=colour_label, ticks=MaxNLocator(integer=True)
  )
  figure.savefig(file, dpi=DPI)


def matrix(
  distance_AxA: Float[np.ndarray, 'A A'], file: Path, *, title: str
) -> None:
  """Distances between architectures in the order given, densest first.

  The diagonal stays blank: its zeros would take most of the colours.
  """
  count = len(distance_AxA)
  shown_AxA = np.where(np.eye(count, dtype=bool), np.nan, distance_AxA)
  figure = Figure(figsize=(6.0, 5.0), layout='constrained')
  panel = figure.subplots()
  image = panel.imshow(shown_AxA, extent=(0.5, count + 0.5, count + 0.5, 0.5))
  panel.set_title(title)
  panel.set_xlabel('architecture, densest first')
  panel.set_ylabel('architecture, densest first')
  ticks = [1, *(round(count * part / 4) for part in (1, 2, 3)), count]
  panel.set_xticks(sorted({*ticks} - {0}))
  panel.set_yticks(sorted({*ticks} - {0}))
  figure.colorbar(image, ax=panel, label='distance')
  figure.savefig(file, dpi=DPI)
