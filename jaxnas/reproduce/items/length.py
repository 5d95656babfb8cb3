"""Shows when debiasing helps: rankings over the length of training.

On digits each length is a run of its own. On Pooling each point is of a run
that goes on, so that early ones have a learning rate that is still high.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.report import charts
from jaxnas.reproduce import curves, render
from jaxnas.reproduce.curves import Point, Statistics
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.jobs import Job, Row
from jaxnas.reproduce.metrics import DENSITY, FOUND, RANKING

DIGITS_EPOCHS = (100, 400, 1600)
POOLING = 'Pooling'
FRACTIONS = (0.7, 0.5)
UNIFORM = 'uniform'

NOTE = (
  'Means over n seeds, with 95% intervals over seeds, and where a second one '
  'stands over seeds and architectures. The mean score of all seeds has the '
  'bias of a training without the noise of a seed. The last two columns are '
  "Spearman's rho of the score with the density, and of the density with the "
  'accuracy alone: where the second is not below the first, density is no '
  'bias, and debiasing has nothing to take away.'
)


def rows(request: Request) -> list[Row]:
  """Makes a row for each length of training on digits, and each sampling.

  A fifth of a run is its warm-up. Runs of Pooling have one length, and rank
  along the way.
  """
  on_digits = [
    Row(
      ('digits', str(epochs), training),
      'quickstart.py',
      sampler,
      changes={
        'warmup_epochs': epochs // 5,
        'epochs': epochs - epochs // 5,
        'debias.effective_fraction': fraction,
        'ranking.every_epochs': epochs // 10,
        'ranking.sample': 81,
        'checkpoint.every_epochs': epochs // 5,
      },
      seeds=20,
    )
    for epochs in DIGITS_EPOCHS
    for training, sampler, fraction in trainings()
  ]
  on_pooling = [
    Row(
      (POOLING, 'along', training),
      'pooling',
      sampler,
      changes={
        'debias.effective_fraction': fraction,
        'ranking.every_epochs': 5,
        'ranking.sample': 36,
      },
      seeds=12,
    )
    for training, sampler, fraction in trainings()
  ]
  return [*on_digits, *on_pooling]


def trainings() -> list[tuple[str, str, float]]:
  """Returns name, sampler and effective fraction of each training."""
  return [
    # The fraction is of no use to uniform training, and left out of its config.
    (UNIFORM, 'uniform', FRACTIONS[0]),
    *(
      (f'debiased, {fraction:g}', 'uniform+debias', fraction)
      for fraction in FRACTIONS
    ),
  ]


def extras(finished: Finished) -> dict[str, Any]:
  """Adds the table over the length of training, and draws its curves."""
  measured = [
    (point, statistics)
    for points in of_spaces(finished)
    for point, statistics in with_statistics(points)
  ]
  drawn = render.pictures(figures(measured), finished.out)
  return {
    'curves': [
      {'names': [*point.names], 'epochs': point.epochs, **ready(statistics)}
      for point, statistics in measured
    ],
    'lines': [*table(measured), *drawn['lines']],
  }


def of_spaces(finished: Finished) -> list[list[Point]]:
  """Returns the points of each space."""
  jobs: dict[str, list[Job]] = {}
  for job in finished.jobs:
    jobs.setdefault(job.row.names[0], []).append(job)
  return [
    curves.points(finished._replace(jobs=of_space), along=space == POOLING)
    for space, of_space in jobs.items()
  ]


def with_statistics(points: Sequence[Point]) -> list[tuple[Point, Statistics]]:
  """Computes what each point says, beside uniform training of its length."""
  uniform = {p.epochs: p for p in points if p.names[-1] == UNIFORM}
  return [
    (
      point,
      curves.statistics(
        point,
        uniform.get(point.epochs) if point.names[-1] != UNIFORM else None,
      ),
    )
    for point in points
  ]


def ready(statistics: Statistics) -> dict[str, Any]:
  """Makes statistics ready for JSON."""
  return {
    name: value._asdict()
    if isinstance(value, curves.Estimate)
    else [one._asdict() for one in value]
    if isinstance(value, tuple)
    else value
    for name, value in statistics._asdict().items()
  }


def table(measured: Sequence[tuple[Point, Statistics]]) -> list[str]:
  """Writes the statistics of each point as a table."""
  if not measured:
    return []
  tops = [f'among the best {count}' for count in curves.BEST]
  head = ['space', 'epochs', 'training', 'n', 'tau', 'debiased less uniform']
  head += [*tops, 'tau of the mean score', 'score, density', 'density, truth']
  body = [
    [
      point.names[0],
      f'{point.epochs:,}',
      point.names[-1],
      str(found.tau.n),
      found.tau.text('{:.3f}'),
      found.difference.text() if found.difference else '',
      *(best.text('{:.2f}') for best in found.best),
      '-' if found.of_mean is None else f'{found.of_mean:.3f}',
      found.follows.text('{:+.2f}'),
      found.density_truth.text('{:+.2f}'),
    ]
    for point, found in measured
  ]
  return [
    '## Over the length of training',
    '',
    *render.table(head, body),
    '',
    NOTE,
    '',
  ]


def figures(
  measured: Sequence[tuple[Point, Statistics]],
) -> list[charts.Figure]:
  """Draws tau, that of the mean score, and the density's hold on the score."""
  return [
    figure
    for space in dict.fromkeys(point.names[0] for point, _ in measured)
    for figure in of_space(
      space, [one for one in measured if one[0].names[0] == space]
    )
  ]


def of_space(
  space: str, measured: Sequence[tuple[Point, Statistics]]
) -> list[charts.Figure]:
  """Draws the curves of one space, a line for each training."""
  trained = [*dict.fromkeys(point.names[-1] for point, _ in measured)]
  counts = sorted({found.tau.n for _, found in measured})
  kinds = [
    ('tau', f"Kendall's tau, {mean_over(counts)}", lambda s: s.tau),
    ('mean-score', "Kendall's tau of the mean score", lambda s: s.of_mean),
    ('density', "Spearman's rho of score and density", lambda s: s.follows),
  ]
  return [
    charts.Chart(
      name=f'length-{space}-{name}'.lower(),
      title=f'{space}: {ylabel}',
      xlabel='epochs',
      ylabel=ylabel,
      marks=[
        line(
          training,
          colour,
          [
            (point.epochs, read(found))
            for point, found in measured
            if point.names[-1] == training
          ],
        )
        for colour, training in enumerate(trained)
      ],
    )
    for name, ylabel, read in kinds
  ]


def mean_over(counts: Sequence[int]) -> str:
  """Says of how many seeds points are the mean, from the least to the most."""
  least, most = counts[0], counts[-1]
  if most == 1:
    return 'one seed'
  return f'mean of {most if least == most else f"{least} to {most}"} seeds'


def line(
  label: str, colour: int, points: Sequence[tuple[int, Any]]
) -> charts.Line:
  """Joins points; estimates have the interval over seeds as a band."""
  epochs_N = np.array([epochs for epochs, _ in points])
  if not points or not isinstance(points[0][1], curves.Estimate):
    values_N = np.array([value for _, value in points], float)
    return charts.Line(
      label=label, colour=colour, x_N=epochs_N, y_N=values_N, dotted=True
    )
  # One seed has no interval, and no band.
  bands_Nx2 = np.array(
    [found.over_seeds or (np.nan, np.nan) for _, found in points], float
  )
  return charts.Line(
    label=label,
    colour=colour,
    x_N=epochs_N,
    y_N=np.array([found.mean for _, found in points], float),
    low_N=bands_Nx2[:, 0],
    high_N=bands_Nx2[:, 1],
    dotted=True,
  )


ITEM = Item(
  title='When debiasing helps: rankings over the length of training',
  columns=('space', 'epochs', 'training'),
  rows=rows,
  metrics=(*RANKING, FOUND, DENSITY),
  extras=extras,
)
