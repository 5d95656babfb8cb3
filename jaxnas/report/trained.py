"""Figures of training: curves, correlation along it, and what it took."""

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

# What ranks without training.
BASELINES = {'params': 'parameters', 'macs': 'multiply-adds'}
SPEED = 'A row that held a checkpoint, a density or a ranking is slower.'


def curves(runs: Sequence[Run]) -> list[charts.Figure]:
  """Of each number of metrics.jsonl, every run."""
  out: list[charts.Figure] = []
  for key, title, ylabel in CURVES:
    factor = 100 if key == 'accuracy' else 1
    lines = []
    for colour, run in enumerate(runs):
      rows = [row for row in run.metrics if key in row and 'epoch' in row]
      x_N, y_N = charts.without_gaps(
        [row['epoch'] for row in rows], [row[key] * factor for row in rows]
      )
      if len(x_N):
        lines.append(
          charts.Line(label=run.label, colour=colour, x_N=x_N, y_N=y_N)
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
        f'Of at most {sample} architectures, the same along a run. Bands: 95% '
        'intervals over architectures.'
      ),
    )
  ]


def warmup(runs: Sequence[Run]) -> dict[str, float]:
  """Where it ends, if that is the same in all."""
  ends = {run.config.warmup_epochs for run in runs}
  return {'warm-up ends': float(ends.pop())} if len(ends) == 1 else {}


def best_baseline(run: Run) -> tuple[str, float] | None:
  """What ranks best without any training, and its tau."""
  baselines: dict[str, Any] = (run.correlation or {}).get('baselines', {})
  found = {
    BASELINES.get(name, name): float(values['kendall'])
    for name, values in baselines.items()
    if values['kendall'] is not None
  }
  return max(found.items(), key=lambda pair: pair[1]) if found else None


def spent(runs: Sequence[Run]) -> list[charts.Figure]:
  """Seconds by kind, and passes over the training images by purpose."""
  out: list[charts.Figure] = []
  seconds = {run.label: run.ledger for run in runs if run.ledger}
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
