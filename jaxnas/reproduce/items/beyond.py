"""Shows what goes beyond the paper, on the spaces of its tables and more.

Samplings are rows. The same scores are combined without labels, averaged over
seeds, and calibrated by twenty stand-alone accuracies.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxnas import spaces
from jaxnas.reproduce import over_seeds, render, scores, store
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.items import averages
from jaxnas.reproduce.items.spaces import CONFIGS, TITLES
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import DENSITY, FOUND, RANKING
from jaxnas.runtime import rng
from jaxnas.truth import calibration, combine, correlation

# Steps of `ranking.combine`, and how many accuracies calibrate.
STEPS, K = ('canonical', 'additive', 'log_macs'), 20

SELF_CONSISTENT = {'debias.rule': 'self_consistent'}
TRAININGS = (
  ('uniform', 'uniform', {}),
  ('eq. 8', 'uniform+debias', {}),
  ('self-consistent', 'uniform+debias', SELF_CONSISTENT),
  ('balanced', 'balanced', {}),
  ('balanced, debiased', 'balanced+debias', {}),
)
SPACES = (
  (TITLES['pooling'], CONFIGS['pooling'], 12, {}),
  (TITLES['nas_bench_macro'], CONFIGS['nas_bench_macro'], 3, {}),
  ('NAS-Bench-201', 'nas_bench_201', 3, {}),
)

# The runs of digits that the item `length` has, too.
DIGITS = ('digits', 'quickstart.py', 20, averages.changes(averages.EPOCHS))

NO_BINS = 'all architectures of Pooling are equally complex'

NOTE = (
  f'Combined: {", ".join(STEPS)}. With {K}: calibrated by so many stand-alone '
  'accuracies, spread over the ranking, and held to the others; without a '
  'supernet: the same architectures and their costs alone. Intervals as above: '
  'over seeds, then over seeds and architectures.'
)


def rows(request: Request) -> list[Row]:
  """Makes a row for each sampling in each space, and of digits for two."""
  return [
    Row(
      (space, name),
      config,
      sampler,
      {**fields, 'debias.effective_fraction': 0.5, **changes}
      if sampler.endswith('+debias')
      else fields,
      seeds=seeds,
      without=NO_BINS if space == 'Pooling' and 'balanced' in sampler else '',
    )
    for (space, config, seeds, fields), trainings in (
      *((space, TRAININGS) for space in SPACES),
      (DIGITS, TRAININGS[:2]),
    )
    for name, sampler, changes in trainings
  ]


class Ranked(NamedTuple):
  """Scores of a run, made better in several ways, all of one truth."""

  raw: Float[np.ndarray, ' A']
  combined: Float[np.ndarray, ' A']
  calibrated: Float[np.ndarray, ' A']
  free: Float[np.ndarray, ' A']
  """Calibrated without a supernet."""
  out_A: Bool[np.ndarray, ' A']
  """True for those that do not calibrate."""
  truth_A: Float[np.ndarray, ' A']


# Heads of the columns, what each ranks by, and if it leaves out the k.
COLUMNS: tuple[tuple[str, Callable[[Ranked], np.ndarray], bool], ...] = (
  ('raw', lambda one: one.raw, False),
  ('combined', lambda one: one.combined, False),
  (f'with {K}', lambda one: one.calibrated, True),
  (f'with {K}, without a supernet', lambda one: one.free, True),
)


def extras(finished: Finished) -> dict[str, Any]:
  """Adds the table of rankings made better."""
  by_row: dict[tuple[str, ...], list[Ranked]] = {}
  for job in finished.jobs:
    one = ranked(finished.results[job.key], finished)
    if one is not None:
      by_row.setdefault(job.row.names, []).append(one)
  rows = [{'names': [*names], **_row(of)} for names, of in by_row.items()]
  return {'beyond': rows, 'lines': lines(rows)}


def ranked(result: store.Result, finished: Finished) -> Ranked | None:
  """Makes a run's scores better; None where bits or the truth are missing."""
  found = scores.of_result(result)
  truth_A = found and scores.truth_of(result, found, finished.tables)
  if found is None or truth_A is None:
    return None
  space, archs_AxE = spaces.get(result['space']), found.archs_AxE
  trained_K = calibration.by_quantiles(found.score_A, K, np.zeros(0, int))
  alpha_A = store.read_arrays(result).get('alpha_A')
  if alpha_A is not None and len(alpha_A) != len(archs_AxE):
    alpha_A = None
  calibrated, free = (
    calibration.posterior(known, trained_K, truth_A[trained_K]).mean_A
    for known in (
      calibration.known(space, archs_AxE, found.score_A, alpha_A),
      calibration.known(space, archs_AxE),
    )
  )
  out_A = np.ones(len(archs_AxE), bool)
  out_A[trained_K] = False
  combined = combine.combine(space, found, STEPS)[-1].score_A
  return Ranked(found.score_A, combined, calibrated, free, out_A, truth_A)


def _row(runs: Sequence[Ranked]) -> dict[str, Any]:
  """Returns taus of the runs of a row, and those of their mean scores."""
  draws = rng.generator(0, 'beyond')

  def tau(of, left_out):
    def value(seed, chosen_A):
      one = runs[seed]
      if left_out:
        chosen_A = chosen_A[one.out_A[chosen_A]]
      return correlation.kendall(of(one)[chosen_A], one.truth_A[chosen_A])

    return over_seeds.estimate(
      value, len(runs), len(runs[0].truth_A), draws, over_seeds.RESAMPLES
    )

  means = (
    np.mean([of(one) for one in runs], axis=0) for _, of, _ in COLUMNS[:2]
  )
  return {
    'taus': {
      name: tau(of, left_out)._asdict() for name, of, left_out in COLUMNS
    },
    'of_mean': [
      correlation.kendall(mean_A, runs[0].truth_A) for mean_A in means
    ],
  }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
  """Writes the rankings made better as a table."""
  if not rows:
    return []
  head = ['space', 'training', 'n', *(name for name, _, _ in COLUMNS)]
  head += ['raw, mean score', 'combined, mean score']
  body = []
  for row in rows:
    taus = [over_seeds.Estimate(**tau) for tau in row['taus'].values()]
    means = ('-' if tau is None else f'{tau:.3f}' for tau in row['of_mean'])
    body.append(
      [*row['names'], str(taus[0].n)]
      + [tau.text('{:.3f}') for tau in taus]
      + [*means]
    )
  title = "## Kendall's tau of rankings made better"
  return [title, '', *render.table(head, body), '', NOTE, '']


ITEM = Item(
  title='Beyond the paper',
  columns=('space', 'training'),
  rows=rows,
  metrics=(*RANKING, FOUND, DENSITY),
  extras=extras,
)
