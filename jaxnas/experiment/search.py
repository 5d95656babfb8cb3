"""A search of a trained supernet, generation by generation."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas import searchers, truth
from jaxnas.config import Config, Ranking, fields, validation
from jaxnas.config.registry import SEARCHERS
from jaxnas.config.search import OPTIONS, Search
from jaxnas.experiment import (
  averages,
  made_of,
  origin,
  ranking,
  scoring,
  trained,
)
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files, jsonl, words
from jaxnas.searchers import CostTable, Limits, Searcher, State
from jaxnas.searchers.findings import index, rows, tied
from jaxnas.spaces import Space
from jaxnas.training.step import TrainState

# Files of a search, beside its flags.
STATE, BEST = 'state.npz', 'best.json'

# An option of `random` and `tree` has another name where it says the size of
# a whole search, or of a generation.
ALSO_CALLED = {'count': 'generations', 'walks': 'population'}


class Ready(NamedTuple):
  """A trained supernet, and what searches it."""

  experiment: Experiment
  state: TrainState
  """The end of its training."""
  scored: Sequence[TrainState]
  """States whose mean score counts."""
  searcher: Searcher
  costs: CostTable | None = None
  """A further cost."""


def prepare(
  run: Path, config: Config, scored_by: Ranking, given: Search, limits: Limits
) -> Ready:
  """Loads a finished run and makes the searcher.

  Args:
    run: a run directory of jaxnas.train.
    config: the config of the run.
    scored_by: the section by which architectures are evaluated.
    given: the searcher and its options.
    limits: of cost.

  Raises ValueError or FileNotFoundError, one line: for an option out of range,
  or one that the searcher does not use, for a space that it does not serve,
  and where no architecture meets the limits.
  """
  for name, interval in fields.ranges(Search):
    if (value := getattr(given, name)) is not None:
      validation.check_range(f'--{name}', value, interval)
  if scored_by.combine is not None:
    raise ValueError(
      f'ranking.combine {scored_by.combine} orders architectures among all '
      'that are ranked, and a search scores a few at a time: use python -m '
      f'jaxnas.rank --run {run} --ranking.combine {scored_by.combine}.'
    )
  experiment, state = trained.load(run, config, scored_by)
  if given.searcher == 'shifting' and scored_by.average == 'scores':
    raise ValueError(
      'searcher shifting moves one set of weights, and ranking.average scores '
      'has several: give --ranking.average weights or last.'
    )
  distance = None
  if given.distance != Search.distance:
    if given.select not in ('diverse', 'similar'):
      raise ValueError('--distance is of --select diverse and similar.')
    distance = scoring.distance(
      experiment, state, given.distance, given.population
    )
  return Ready(
    experiment,
    state,
    averages.states(experiment, state, run),
    make(given, experiment.space, limits, distance),
    limits.table,
  )


def make(
  given: Search,
  space: Space,
  limits: Limits,
  distance: Callable[..., Any] | None = None,
) -> Searcher:
  """Returns the searcher, given those options that its signature names.

  Args:
    given: the searcher and its options.
    space: the architectures.
    limits: of cost.
    distance: between architectures, where another than Hamming's is asked for.

  Raises ValueError where an option is set that it does not use, the space is
  none that it serves, or no architecture meets the limits.
  """
  named = inspect.signature(SEARCHERS.get(given.searcher)).parameters
  used = {*named, *(ALSO_CALLED[name] for name in named if name in ALSO_CALLED)}
  for name in OPTIONS:
    if name not in used and getattr(given, name) != getattr(Search, name):
      raise ValueError(f'--{name} is of other searchers than {given.searcher}.')
  offered = {
    **{name: getattr(given, name) for name in OPTIONS},
    'space': space,
    'limits': limits,
    'count': given.population * given.generations,
    'walks': given.population,
    **({} if distance is None else {'distance': distance}),
  }
  made = SEARCHERS.make(given.searcher, offered, given.options)
  if given.patience is None:
    return made
  if not {'generations', 'count'} & {*named}:
    raise ValueError(
      f'--patience {given.patience} is of searchers that have --generations; '
      f'{given.searcher} scores all that there is: leave it out.'
    )
  return searchers.patient(made, given.patience)


def find(
  ready: Ready,
  given: Search,
  run: Path,
  workdir: Path,
  table: truth.Table | None = None,
  poll: Callable[[], None] = lambda: None,
) -> tuple[State, Int[np.ndarray, ' E']]:
  """Searches, or goes on with it, and writes best.json.

  Args:
    ready: from `prepare`.
    given: the searcher and its options.
    run: the run directory, for the record.
    workdir: the folder of the search.
    table: ground truth, where there is one.
    poll: called before each evaluation; may raise.

  Returns all that was scored, and the architecture found.
  """
  experiment, state, scored, searcher, costs = ready
  found = search(
    experiment,
    state,
    scored,
    searcher,
    workdir,
    seed=given.seed,
    shifts=given.searcher == 'shifting',
    costs=costs,
    poll=poll,
  )
  if given.patience is not None and (searchers.stale(found) >= given.patience):
    print(
      f'the search ends after generation {int(found.generation)}: '
      f'{words.counted(given.patience, "generation")} without a better score'
    )
  best_E = searcher.pick(found)
  files.write_result(
    workdir / BEST,
    row(experiment.space, best_E, found, table, costs)
    | ranking.settings(experiment)
    | {'scored': len(found.accuracy_V), 'tied': tied(found, best_E)}
    | origin.describe(run=str(run.absolute()), step=int(state.step)),
    made_of.evaluation(experiment, state),
  )
  return found, best_E


def search(
  experiment: Experiment,
  state: TrainState,
  scored: Sequence[TrainState],
  searcher: Searcher,
  workdir: Path,
  *,
  seed: int,
  shifts: bool = False,
  costs: CostTable | None = None,
  poll: Callable[[], None] = lambda: None,
) -> State:
  """Searches, or goes on with it, in `workdir`.

  Its state is saved every generation: what an interruption costs is the last
  one, and the end is the same, bit for bit.

  Args:
    experiment: whose net and images score.
    state: the end of its training.
    scored: states whose mean score counts, see `averages.states`.
    searcher: from `make`.
    workdir: a folder; gets state.npz, search.jsonl and, where weights shift,
      checkpoints in shifted/.
    seed: of the search.
    shifts: train the shared weights along every candidate before it is scored.
    costs: a further cost, which rows have.
    poll: called before each evaluation; may raise.

  Returns:
    All that was scored.
  """
  file, found = workdir / STATE, None
  facts = made_of.evaluation(experiment, state)
  if costs is not None:
    facts = {**facts, 'cost_table': costs.digest}
  if file.exists():
    found = searchers.load_state(file, experiment.space, facts)
  scorers = contextlib.nullcontext(scoring.fixed(experiment, scored, poll))
  if shifts:
    scorers = scoring.shifting(
      experiment,
      scored[-1],
      workdir / 'shifted',
      0 if found is None else len(found.accuracy_V),
      seed=seed,
      poll=poll,
    )

  def save(found: State) -> None:
    # Before the state that says how many were scored.
    scorer.save()
    searchers.save_state(file, found, facts)
    jsonl.write_rows(
      workdir / 'search.jsonl', rows(experiment.space, found, costs)
    )
    last_U = searchers.last_scores(found)
    v = last_U[found.accuracy_V[last_U].argmax()]
    print(
      f'generation {int(found.generation)}: {len(last_U)} scored, '
      f'best {experiment.space.format(found.archs_VxE[v])} '
      f'{found.accuracy_V[v]:.2%}'
    )

  with scorers as scorer:
    return searchers.run(
      searcher, scorer.score, seed=seed, state=found, save=save, poll=poll
    )


def row(
  space: Space,
  arch_E: Int[np.ndarray, ' E'],
  found: State,
  table: truth.Table | None,
  costs: CostTable | None = None,
) -> dict[str, Any]:
  """Returns what is known of one architecture, ready for JSON."""
  out = rows(space, found, costs)[index(found, arch_E)]
  if table is not None and np.isfinite(known := table.known(arch_E[None])[0]):
    out['true_accuracy'] = float(known)
  return out
