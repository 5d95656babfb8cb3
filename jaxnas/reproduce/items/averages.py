"""Averages against the noise of a supernet, at equal images trained.

One long training of digits, several short ones whose scores are averaged, and
averages within one run: all on the same images, a division for each seed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxnas.reproduce import curves, over_seeds, paired, render
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.jobs import Row
from jaxnas.reproduce.metrics import FOUND, RANKING
from jaxnas.runtime import rng
from jaxnas.truth import correlation

EPOCHS, MEMBERS, SEEDS = 400, 4, 20

# Of the moving average: a step counts a third after a quarter of the run.
DECAY = 0.999

LONG, SHORT = f'one of {EPOCHS}', f'one of {EPOCHS // MEMBERS}'
EMA, WEIGHTS, CYCLES = (
  'its moving average',
  'mean of its weights',
  f'mean of weights, {MEMBERS} cosines',
)

# Scores by the seed of the division of images, which trainings share.
Scores = Mapping[int, Float[np.ndarray, ' A']]

NOTE = (
  f'{SHORT} costs a quarter of the others, which have trained the same number '
  'of images. The difference is paired by seed, with the 95% interval over '
  'seeds and the one over seeds and architectures.'
)


def rows(request: Request) -> list[Row]:
  """Makes the rows: one long, the short ones, and averages within one run."""
  long, short = changes(EPOCHS), changes(EPOCHS // MEMBERS)
  cycles = {
    'optimizer.cycles': MEMBERS,
    'ranking.average': 'weights',
    'ranking.every_epochs': EPOCHS // MEMBERS,
  }
  return [
    _row(LONG, long),
    *(_row(_member(number), short, number) for number in range(MEMBERS)),
    _row(EMA, long | {'optimizer.ema_decay': DECAY, 'ranking.average': 'ema'}),
    _row(WEIGHTS, long | {'ranking.average': 'weights'}),
    _row(CYCLES, long | cycles),
  ]


def _row(name: str, fields: Mapping[str, Any], member: int = 0) -> Row:
  return Row(
    (name,), 'quickstart.py', 'uniform', fields, seeds=SEEDS, member=member
  )


def changes(epochs: int) -> dict[str, Any]:
  """Returns the fields that uniform training has in the item `length`."""
  return {
    'warmup_epochs': epochs // 5,
    'epochs': epochs - epochs // 5,
    'ranking.every_epochs': epochs // 10,
    'ranking.sample': 81,
    'checkpoint.every_epochs': epochs // 5,
  }


def _member(number: int) -> str:
  return f'{SHORT}, member {number}' if number else SHORT


def extras(finished: Finished) -> dict[str, Any]:
  """Adds the table of averages, each beside the one long training."""
  if not finished.jobs:
    return {}
  truth_A = paired.truth_of(finished.jobs[0], finished.tables)
  assert truth_A is not None, 'the table of digits is shipped'
  found = {name: of for name, of in averages(finished).items() if of}
  rows = [
    {'name': name, **_beside(of, found.get(LONG, {}), truth_A)}
    for name, of in found.items()
  ]
  return {'averages': rows, 'lines': lines(rows)}


def averages(finished: Finished) -> dict[str, Scores]:
  """Returns the scores of each kind of average, by seed."""
  ends: dict[str, dict[int, np.ndarray]] = {}
  ways: dict[str, dict[int, np.ndarray]] = {}
  for job in finished.jobs:
    result, (name,) = finished.results[job.key], job.row.names
    seed = job.config.split_seed
    ends.setdefault(name, {})[seed] = np.array(result['hits'], float)
    if name in (LONG, CYCLES):
      of_epochs = curves.scores_along(job, result)
      last = sorted(of_epochs)[-MEMBERS:]
      ways.setdefault(name, {})[seed] = np.mean(
        [of_epochs[epoch] for epoch in last], axis=0
      )
  members = [ends.get(_member(number), {}) for number in range(MEMBERS)]
  return {
    LONG: ends.get(LONG, {}),
    SHORT: members[0],
    f'mean score of {MEMBERS} of {EPOCHS // MEMBERS}': {
      seed: np.mean([of[seed] for of in members], axis=0)
      for seed in members[0]
      if all(seed in of for of in members)
    },
    f'mean of its last {MEMBERS} scores, every {EPOCHS // 10}': ways.get(
      LONG, {}
    ),
    f'mean of scores, {MEMBERS} cosines': ways.get(CYCLES, {}),
    **{name: ends.get(name, {}) for name in (EMA, WEIGHTS, CYCLES)},
  }


def _beside(
  ours: Scores, long: Scores, truth_A: Float[np.ndarray, ' A']
) -> dict[str, Any]:
  """Returns taus, and what they gain over the long training of the seed."""
  draws = rng.generator(0, 'averages')

  def estimate(value, seeds):
    return over_seeds.estimate(
      value, seeds, len(truth_A), draws, over_seeds.RESAMPLES
    )._asdict()

  seeds, shared = sorted(ours), sorted({*ours} & {*long})
  gain = over_seeds.difference(
    correlation.kendall, [(ours[s], long[s]) for s in shared], truth_A
  )
  return {
    'tau': estimate(
      lambda s, chosen_A: correlation.kendall(
        ours[seeds[s]][chosen_A], truth_A[chosen_A]
      ),
      len(seeds),
    ),
    'gain': None if ours is long else estimate(gain, len(shared)),
  }


def lines(rows: list[dict[str, Any]]) -> list[str]:
  """Writes the averages as a table."""

  def text(found, form):
    return '' if found is None else over_seeds.Estimate(**found).text(form)

  body = [
    [
      row['name'],
      str(row['tau']['n']),
      text(row['tau'], '{:.3f}'),
      text(row['gain'], '{:+.3f}'),
    ]
    for row in rows
  ]
  head = ['average', 'n', "Kendall's tau", f'less {LONG}']
  return ['## At equal images', '', *render.table(head, body), '', NOTE, '']


ITEM = Item(
  title='Averages against the noise of a supernet, on digits',
  columns=('training',),
  rows=rows,
  metrics=(*RANKING, FOUND),
  extras=extras,
)
