"""Says how often the gate of `ranking.combine additive` chooses right.

It trains nothing: every result that is kept has a bit for each image and
architecture, from which the step is made anew. Held to the truth, the gate is
right where it takes a sum that ranks better, or leaves one that does not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas import spaces
from jaxnas.experiment import predictions
from jaxnas.reproduce import render, scores, store
from jaxnas.reproduce.item import Finished, Item
from jaxnas.runtime import words
from jaxnas.truth import combine, correlation

NOTE = (
  'Means over runs. Taken: the gate takes the sum; right: that is what the '
  'truth says. The halves of the gate are those of the images that are kept, '
  f'at most {predictions.KEPT_IMAGES:,}.'
)


class Choice(NamedTuple):
  """The choice of the gate in one run, and taus with and without the sum."""

  taken: bool
  raw: float
  summed: float

  @property
  def right(self) -> bool:
    return self.taken == (self.summed > self.raw)

  @property
  def gated(self) -> float:
    """Tau of what the gate leaves."""
    return self.summed if self.taken else self.raw


def extras(finished: Finished) -> dict[str, Any]:
  """Adds the table of choices, for every kind of run that is kept."""
  groups: dict[tuple[str, int, str], list[Choice]] = {}
  for result in finished.results.values():
    if (choice := of_result(result, finished.tables)) is not None:
      groups.setdefault(_kind(result['config']), []).append(choice)
  rows = [
    {
      'space': space,
      'epochs': epochs,
      'training': training,
      'n': len(choices),
      'taken': sum(one.taken for one in choices),
      'right': sum(one.right for one in choices),
      **{
        name: float(np.mean([getattr(one, name) for one in choices]))
        for name in ('raw', 'summed', 'gated')
      },
    }
    for (space, epochs, training), choices in sorted(groups.items())
  ]
  return {'gate': rows, 'lines': lines(rows)}


def of_result(
  result: store.Result, tables: Mapping[str, Path | None]
) -> Choice | None:
  """Returns the choice in a run; None where bits or the truth are missing."""
  found = scores.of_result(result)
  truth_A = found and scores.truth_of(result, found, tables)
  if found is None or truth_A is None:
    return None
  space = spaces.get(result['space'])
  gated, summed = (
    step(space, found).score_A for step in (combine.additive, combine.sums)
  )
  known_A = np.isfinite(truth_A)
  raw, of_sum = (
    correlation.kendall(score_A[known_A], truth_A[known_A])
    for score_A in (found.score_A, summed)
  )
  if raw is None or of_sum is None:
    return None
  return Choice(gated is not found.score_A, raw, of_sum)


def _kind(config: Mapping[str, Any]) -> tuple[str, int, str]:
  """Returns space, epochs and training of a run."""
  training = config['sampler.name']
  for name in ('debias.effective_fraction', 'debias.temperature'):
    if config[name] is not None:
      training += f', {name.partition(".")[2].replace("_", " ")} {config[name]}'
  for name, usual in (('ranking.average', 'last'), ('optimizer.cycles', 1)):
    if (value := config.get(name, usual)) != usual:
      training += f', {name.partition(".")[2]} {value}'
  return (
    config['space'], config['warmup_epochs'] + config['epochs'], training,
  )  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> list[str]:
  """Writes the choices as a table, and how many are right in all."""
  head = ['space', 'epochs', 'training', 'n', 'taken', 'right']
  body = [
    [
      *(str(row[name]) for name in head),
      *(f'{row[name]:.3f}' for name in ('raw', 'summed', 'gated')),
    ]
    for row in rows
  ]
  total, right = (sum(row[name] for row in rows) for name in ('n', 'right'))
  taus = ['tau of accuracies', 'of the sum', 'of what the gate leaves']
  return [
    f'The gate is right in {right} of {words.counted(total, "run")}.',
    '',
    *render.table([*head, *taus], body),
    '',
    NOTE,
    '',
  ]


ITEM = Item(
  title='The gate of the additive fit, right or wrong',
  columns=('space',),
  rows=lambda request: [],
  metrics=(),
  extras=extras,
)
