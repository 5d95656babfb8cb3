"""Says and shows whether debiasing can help, and what it did."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.experiment import diagnosing, updates
from jaxnas.report import charts
from jaxnas.report.folders import Run
from jaxnas.report.ranked import slug, texts

WHEN = {'warm_up': 'After the warm-up', 'end': 'At the end'}


def diagnosis(runs: Sequence[Run]) -> list[Any]:
  """Writes what each debiased run found, and draws what it rests on."""
  out: list[Any] = []
  for run in runs:
    found = run.diagnosis or {}
    name = f'{run.label}, ' if len(runs) > 2 else ''
    for when, words in WHEN.items():
      if said := found.get(when):
        ratio = said['signal_to_noise']
        out.append(
          f'{name}{words} ({said["n"]:,} architectures, mean accuracy '
          f'{said["mean_accuracy"]:.1%}, signal to noise '
          f'{"none" if ratio is None else f"{ratio:.3g}"}): {said["says"]}'
        )
    if effect := found.get('intervention'):
      out.append(f'{name}In the end {diagnosing.describe(effect)}.')
  return out + by_update(runs)


def by_update(runs: Sequence[Run]) -> list[charts.Figure]:
  """Draws changes of accuracy against those of effective updates, by pair."""
  out: list[charts.Figure] = []
  twins = {run.folder.resolve(): run for run in runs}
  for colour, run in enumerate(runs):
    twin = twins.get((run.folder / 'undebiased').resolve())
    effect = (run.diagnosis or {}).get('intervention')
    if twin is None or effect is None or run.updates is None:
      continue
    if run.predictions is None or twin.predictions is None:
      continue
    archs_AxE = run.predictions['archs_AxE']
    moved_S = updates.change(run.config, run.updates)
    moved_A = moved_S[run.space.index(archs_AxE)]
    change_A = run.predictions['accuracy_A'] - twin.predictions['accuracy_A']
    ends_N = np.array([moved_A.min(), moved_A.max()])
    line_N = change_A.mean() + effect['slope'] * (ends_N - moved_A.mean())
    points_A = 100 * change_A
    out.append(
      charts.Chart(
        name=f'intervention-{slug(run.label)}',
        title=f'What debiasing changed: {run.label} less {twin.label}',
        xlabel='change of the effective update',
        ylabel='change of accuracy, points',
        marks=[
          charts.Dots(
            label='architectures',
            colour=colour,
            x_N=moved_A,
            y_N=points_A,
            texts=texts(run, archs_AxE, points=points_A, update=moved_A),
          ),
          charts.Line(
            label='fitted', colour='soft', x_N=ends_N, y_N=100 * line_N
          ),
        ],
        note='The line is the least-squares fit.',
      )
    )
  return out
