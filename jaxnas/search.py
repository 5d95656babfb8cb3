"""Search a trained supernet for its best architecture, under limits.

For instance `python -m jaxnas.search --run RUN --searcher evolution --max_macs
330M`.
"""

import contextlib
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnas import (
  cli,
  runs,
  search_tables,
  train,
  trained,
  validation,
)
from jaxnas.search_flags import RANGES, WHAT, Search, begun, limits_of

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.searchers import Limits, Searcher, State
  from jaxnas.training.step import TrainState

# Files of a search, beside its flags.
STATE, BEST = 'state.npz', 'best.json'


def main(argv: Sequence[str] | None = None) -> int:
  with cli.usage_errors():
    before = begun(argv)
  args, config = trained.parse(
    lambda run, config: (
      before or Search(run=run, ranking=trained.ranking_of(config))
    ),
    argv,
    __doc__,
    before and before.run,
  )
  workdir = args.workdir or args.run / 'search'
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import ranking, searchers
  from jaxnas.training.preemption import Preemption

  cli.prepare_process()
  with cli.usage_errors():
    for name, low, high in RANGES:
      validation.within(f'--{name}', getattr(args, name), low, high)
    limits = limits_of(args)
    experiment, state = trained.load(args.run, config, args.ranking)
    table = train.find_table(config, args.run, args.table)
    searcher = make(args, experiment, state, limits)
    open_search(args, workdir)
  stopped = (
    f'stopped: go on with --workdir {workdir} --resume, which scores this '
    'generation again'
  )
  with cli.outcome(workdir, stopped), Preemption() as preemption:
    found = search(
      experiment,
      state,
      searcher,
      workdir,
      seed=args.seed,
      shifts=args.searcher == 'shifting',
      poll=preemption.check,
    )
    best_E = searcher.pick(found)
    runs.write_json(
      workdir / BEST,
      search_tables.row(experiment.space, best_E, found, table)
      | ranking.how(experiment)
      | {'scored': len(found.accuracy_V)}
      | runs.environment(run=str(args.run), step=int(state.step)),
    )
  top_N = searchers.best(found, experiment.space, limits, args.top)
  search_tables.show(experiment.space, found, top_N, best_E, table)
  search_tables.draw(experiment.space, found, best_E, workdir / 'search.png')
  return 0


def make(
  args: Search,
  experiment: 'Experiment',
  state: 'TrainState',
  limits: 'Limits',
) -> 'Searcher':
  """The searcher, given those options that it names.

  Raises ValueError where one that it does not name is set, the space is none
  that it serves, or no architecture meets the limits.
  """
  from jaxnas import scoring, searchers

  function = searchers.get(args.searcher)
  options: dict[str, Any] = {
    name: getattr(args, name)
    for name in ('population', 'generations', 'parents', 'mutation', 'select')
  }
  named = inspect.signature(function).parameters
  # What random and tree call the size of a search and of a generation.
  same = {'count': 'generations', 'walks': 'population'}
  used = {*named, *(same[name] for name in named if name in same)}
  for name, value in options.items():
    if name not in used and value != getattr(Search, name):
      raise ValueError(f'--{name} is of other searchers than {args.searcher}.')
  if args.distance != Search.distance and args.select not in (
    'diverse',
    'similar',
  ):
    raise ValueError('--distance is of --select diverse and similar.')
  options |= {
    'count': args.population * args.generations,
    'walks': args.population,
  }
  if args.distance != Search.distance:
    options['distance'] = scoring.distance(
      experiment, state, args.distance, args.population
    )
  return function(
    experiment.space,
    limits,
    **{name: value for name, value in options.items() if name in named},
  )


def open_search(args: Search, workdir: Path) -> None:
  """Makes or reopens the folder of a search.

  Raises ValueError where a search would be overwritten, where the one to
  resume is another one, or where another process is at it.
  """
  runs.make_workdir(workdir)
  where = dataclasses.replace(args, run=args.run.resolve())
  flags = json.loads(json.dumps(dataclasses.asdict(where), default=str))
  for name in ('resume', 'top', 'table', 'workdir', 'deterministic'):
    del flags[name]
  file = workdir / WHAT
  if file.exists() and not args.resume:
    raise ValueError(
      f'{workdir} holds a search already: add --resume to go on with it, or '
      'choose another --workdir.'
    )
  if file.exists():
    before = runs.read_json(file, {})
    for name, value in flags.items():
      if before.get(name) != value:
        raise ValueError(
          f'{workdir} is a search with {name} {before.get(name)}, not {value}: '
          'resume it as it is, or choose another --workdir.'
        )
  runs.write_json(file, flags)


def search(
  experiment: 'Experiment',
  state: 'TrainState',
  searcher: 'Searcher',
  workdir: Path,
  *,
  seed: int,
  shifts: bool = False,
  poll: Callable[[], None] = lambda: None,
) -> 'State':
  """Searches, or goes on with it, in `workdir`.

  Its state is saved every generation: what an interruption costs is the last
  one, and the end is the same, bit for bit.

  Args:
    experiment: whose net and images score.
    state: of its training.
    searcher: from `make`.
    workdir: a folder; gets state.npz, search.jsonl and, where weights shift,
      checkpoints in shifted/.
    seed: of the search.
    shifts: train the shared weights along every candidate before it is scored.
    poll: called before each evaluation; may raise.

  Returns:
    All that was scored.
  """
  from jaxnas import scoring, searchers

  file, found = workdir / STATE, None
  if file.exists():
    found = searchers.load_state(file, experiment.space)
  scorers = contextlib.nullcontext(scoring.fixed(experiment, state, poll))
  if shifts:
    scorers = scoring.shifting(
      experiment,
      state,
      workdir / 'shifted',
      0 if found is None else len(found.accuracy_V),
      seed=seed,
      poll=poll,
    )

  def save(found: 'State') -> None:
    # Before the state that says how many were scored.
    scorer.save()
    searchers.save_state(file, found)
    runs.write_rows(
      workdir / 'search.jsonl', search_tables.rows(experiment.space, found)
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


if __name__ == '__main__':
  sys.exit(main())
