"""Makes the figures of training: curves, correlation, time and compute."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.report import charts
from jaxnas.report.folders import Run

CURVES = (
  ('loss', 'Training loss', 'loss'),
  ('accuracy', 'Training accuracy', 'accuracy, %'),
  ('gradient_norm', 'Norm of the gradient', 'norm'),
  ('images_per_s', 'Speed', 'images/s'),
)

# Costs that rank architectures without training, by their name in files.
BASELINES = {'params': 'parameters', 'macs': 'multiply-adds'}
SPEED = 'Rows in which a checkpoint, a density or a ranking fell are slower.'


def curves(runs: Sequence[Run]) -> list[charts.Figure]:
  """Draws each number of metrics.jsonl, the runs side by side."""
  out: list[charts.Figure] = []
  for key, title, ylabel in CURVES:
    factor = 100 if key == 'accuracy' else 1
    lines = []
    for colour, run in enumerate(runs):
      rows = [
        row
        for row in [*_joint(run, runs, key), *run.metrics]
        if key in row and 'epoch' in row
      ]
      x_N, y_N = charts.without_gaps(
        [row['epoch'] for row in rows], [row[key] * factor for row in rows]
      )
      if len(x_N):
        lines.append(
          charts.Line(
            label=run.label,
            colour=colour,
            x_N=x_N,
            y_N=y_N,
            # A line through one point cannot be seen.
            dotted=len(x_N) < 3,
          )
        )
    if lines:
      out.append(
        charts.Chart(
          name=f'training-{key.replace("_", "-")}',
          title=title,
          xlabel='epoch',
          ylabel=ylabel,
          marks=lines,
          turns=warmup(runs),
          note=SPEED if key == 'images_per_s' else '',
        )
      )
  return out


def _joint(run: Run, runs: Sequence[Run], key: str) -> list[dict[str, Any]]:
  """Returns the row of the shared warm-up's end, at which a twin begins."""
  for other in runs:
    if run.folder == other.folder / 'undebiased':
      end = run.config.warmup_epochs
      shared = [
        row
        for row in other.metrics
        if key in row and row.get('epoch', end + 1) <= end
      ]
      return shared[-1:]
  return []


def correlation(runs: Sequence[Run]) -> list[charts.Figure]:
  """Kendall's tau along training, with intervals where they were written."""
  marks: list[charts.Line | charts.Dots | charts.Bars] = []
  levels = {}
  for colour, run in enumerate(runs):
    rows = [row for row in run.metrics if 'kendall' in row]
    if not rows:
      continue
    numbers = {
      key: np.array([float(row.get(key, np.nan)) for row in rows])
      for key in ('epoch', 'kendall', 'kendall_low', 'kendall_high')
    }
    known = np.isfinite(numbers['kendall_low']).all()
    marks.append(
      charts.Line(
        label=run.label,
        colour=colour,
        x_N=numbers['epoch'],
        y_N=numbers['kendall'],
        low_N=numbers['kendall_low'] if known else None,
        high_N=numbers['kendall_high'] if known else None,
        dotted=True,
        texts=[
          f'{run.label}\nepoch {row["epoch"]:g}\ntau {row["kendall"]:.3f}'
          + (
            f' [{row["kendall_low"]:.2f}, {row["kendall_high"]:.2f}]'
            if known
            else ''
          )
          for row in rows
        ],
      )
    )
    if run.correlation and (free := best_baseline(run)):
      levels = {f'{free[0]} alone': free[1]}
  if not marks:
    return []
  sample = max(run.config.ranking.sample for run in runs)
  return [
    charts.Chart(
      name='kendall',
      title="Kendall's tau along training",
      xlabel='epoch',
      ylabel='tau',
      marks=marks,
      levels=levels,
      turns=warmup(runs),
      note=(
        f'Each point ranks at most {sample} architectures, the same along a '
        'run. Bands are 95% intervals over architectures.'
      ),
    )
  ]


def warmup(runs: Sequence[Run]) -> dict[str, float]:
  """Returns the epoch at which the warm-up ends, if all runs share it."""
  ends = {run.config.warmup_epochs for run in runs}
  return {'warm-up ends': float(ends.pop())} if len(ends) == 1 else {}


def best_baseline(run: Run) -> tuple[str, float] | None:
  """Returns the cost that ranks best without any training, and its tau."""
  baselines: dict[str, Any] = (run.correlation or {}).get('baselines', {})
  found = {
    BASELINES.get(name, name): float(values['kendall'])
    for name, values in baselines.items()
    if values['kendall'] is not None
  }
  return max(found.items(), key=lambda pair: pair[1]) if found else None


def cost(runs: Sequence[Run]) -> list[charts.Figure]:
  """Draws seconds by kind, and passes over the images by purpose."""
  out: list[charts.Figure] = []
  seconds = {
    run.label: {kind.replace('_', ' '): s for kind, s in run.ledger.items()}
    for run in runs
    if run.ledger
  }
  if seconds:
    out.append(
      charts.Amounts(name='time', title='Time by kind', unit='s', parts=seconds)
    )
  epochs = {
    run.label: run.correlation['compute']['epochs']
    for run in runs
    if run.correlation and 'compute' in run.correlation
  }
  if epochs:
    out.append(
      charts.Amounts(
        name='compute',
        title='Compute by purpose',
        unit='epochs of one path',
        parts=epochs,
        note=(
          'A forward and backward pass of one architecture over all training '
          'images is one epoch; a forward pass alone counts as a third.'
        ),
      )
    )
  return out
