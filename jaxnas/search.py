"""Search a trained supernet for its best architecture, under limits.

For instance `python -m jaxnas.search --run RUN --searcher evolution --max_macs
330M`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Interval

from jaxnas import spaces, truth
from jaxnas.config import Config, flags, run_flags, run_folder, types
from jaxnas.config.registry import SEARCHERS
from jaxnas.config.search import Search
from jaxnas.runtime import errors, files, startup, streams, strict_json

# The file that keeps what a search was asked.
ASKED = 'search.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchFlags(Search, flags.Truth, run_flags.RunCommand):
  """Flags of the command; those of ranking are as in the run."""

  max_params: str | None = None
  """Limit on parameters of the network alone, such as 5M."""
  max_macs: str | None = None
  """Limit on multiply-adds of one image, such as 330M."""
  cost_table: Path | None = None
  """A further cost, JSON or CSV: of each op at each position, or of each
  architecture. measure --latency makes one."""
  max_cost: Annotated[float | None, Interval(gt=0)] = None
  """Limit on the cost of --cost_table, in its unit."""
  resume: bool = False
  """Go on where the search in --workdir stopped."""
  ranking: run_flags.Ranking


class Searched(NamedTuple):
  """The outcome of a search."""

  workdir: Path
  space: spaces.Space
  found: Any
  """All that was scored, a `searchers.State`."""
  top_N: Any
  best_E: Any
  table: truth.Table | None
  costs: Any
  """A further cost, a `searchers.CostTable`; None: there is none."""


def main(argv: Sequence[str] | None = None) -> int:
  with errors.usage_errors():
    given = flags.peek(argv)
    before = begun(given.workdir) if given.resume and given.workdir else None
  args, config = run_flags.parse(
    lambda run, config: before or as_in_run(run, config),
    argv,
    __doc__,
    before and before.run,
  )
  searched = search(args, config)
  from jaxnas.report.console import found as console

  _, space, found, top_N, best_E, table, costs = searched
  console.show(space, found, top_N, best_E, table, costs)
  return 0


def as_in_run(run: Path, config: Config) -> SearchFlags:
  """Returns the flags that score as the run did, by accuracies alone."""
  ranking = dataclasses.replace(run_flags.ranking_of(config), combine=None)
  return SearchFlags(run=run, ranking=ranking)


def search(
  args: SearchFlags, config: Config, ends: errors.Ends = errors.COMMAND
) -> Searched:
  """Searches as the flags say, and writes and draws what it finds."""
  workdir = args.workdir or args.run / 'search'
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import searchers
  from jaxnas.experiment import search
  from jaxnas.report import figures
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    startup.prepare_process()
    if args.max_cost is not None and args.cost_table is None:
      raise ValueError('--max_cost is of --cost_table: name its file.')
    limits = searchers.Limits(
      types.count('--max_params', args.max_params),
      types.count('--max_macs', args.max_macs),
      args.max_cost,
      None
      if args.cost_table is None
      else searchers.load_costs(args.cost_table, spaces.get(config.space)),
    )
    ready = search.prepare(args.run, config, args.ranking, args, limits)
    space = ready.experiment.space
    table = truth.find(
      space,
      config.data.name,
      args.table,
      args.run,
      args.table_column,
    )
    open_search(args, workdir)
  print(f'{args.run}: {ready.experiment.images}')
  for line in searchers.idle(space, limits):
    print(line)
  if table is not None:
    print(table)
  stopped = (
    f'stopped: go on with --workdir {workdir} --resume, which scores this '
    'generation again'
  )
  with ends.outcome(workdir, stopped), Preemption() as preemption:
    found, best_E = search.find(
      ready, args, args.run, workdir, table, preemption.check
    )
  top_N = searchers.best(found, space, limits, args.top)
  figures.search(space, found, best_E, workdir / 'search.png', limits.table)
  return Searched(workdir, space, found, top_N, best_E, table, limits.table)


def begun(workdir: Path) -> SearchFlags:
  """Returns the flags of the search in a folder, to go on with it.

  Raises ValueError where the folder does not say them.
  """
  file = workdir / ASKED
  if not file.exists():
    raise ValueError(f'{workdir} holds no search: start one without --resume.')

  def parse(content: bytes) -> SearchFlags:
    given = strict_json.loads(content)
    if isinstance(given, dict) and isinstance(given.get('run'), str):
      given['run'] = Path(given['run'])
    if isinstance(given, dict) and isinstance(given.get('cost_table'), str):
      given['cost_table'] = Path(given['cost_table'])
    asked = types.make(SearchFlags, given)
    SEARCHERS.check(asked.searcher, 'searcher')
    return asked

  return dataclasses.replace(
    files.parsed(file, parse), workdir=workdir, resume=True
  )


def open_search(args: SearchFlags, workdir: Path) -> None:
  """Makes or reopens the folder of a search.

  Raises ValueError where a search would be overwritten, where the one to
  resume is another one, or where another process is at it.
  """
  run_folder.make_workdir(
    workdir, 'search', run=args.run, overwrite=args.overwrite
  )
  absolute = dataclasses.replace(
    args,
    run=args.run.resolve(),
    cost_table=args.cost_table and args.cost_table.resolve(),
  )
  asked = json.loads(json.dumps(dataclasses.asdict(absolute), default=str))
  for name in (
    'resume',
    'top',
    'table',
    'table_column',
    'workdir',
    'deterministic',
    'overwrite',
  ):
    del asked[name]
  file = workdir / ASKED
  if file.exists() and not args.resume:
    raise ValueError(
      f'{workdir} holds a search already: add --resume to go on with it, or '
      'choose another --workdir.'
    )
  if file.exists():
    before = files.read_json(file, {})
    # Where the images lie may change, and the run may have been moved.
    elsewhere = {'data'}
    if not Path(str(before.get('run'))).exists():
      elsewhere.add('run')
    for name, value in asked.items():
      if name not in elsewhere and before.get(name) != value:
        raise ValueError(
          f'{workdir} is a search with {name} {before.get(name)}, not {value}: '
          'resume it as it is, or choose another --workdir.'
        )
  files.write_json(file, asked)


if __name__ == '__main__':
  streams.run(main)
