"""Train once for each combination of values of some fields of a config.

For instance `python -m jaxnas.sweep --config quickstart.py --set
debias.temperature=1,3,7 --set seed=0..4 --workers 2`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxnas import truth
from jaxnas.config import flags
from jaxnas.many import flags as many
from jaxnas.runtime import errors, files, startup, streams

# The file that says what is swept.
SWEEPS = 'sweep.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(many.Gathers, flags.Truth):
  """Flags of the command."""

  set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
  """A field and its values, as FIELD=A,B,C or FIELD=FIRST..LAST; several times
  for all combinations. Runs of several seeds are shown as one."""


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Sweep, argv)
  results, workdir = sweep(args)
  from jaxnas.report.console import comparison as console

  console.show(results)
  return 0 if args.gather else report_failures(results, workdir)


def sweep(
  args: Sweep, ends: errors.Ends = errors.COMMAND
) -> tuple[dict[str, list[dict[str, Any]]], Path]:
  """Trains as the flags say; returns results by label, and their folder."""
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import build, comparison, contents, datasets
  from jaxnas.many import driver, runs, values
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    args = many.check(args)
    driver.ready(args)
    startup.prepare_process()
    asked = requested(args)
    alone = dataclasses.replace(args.experiment.debias, baseline=False)
    base = dataclasses.replace(args.experiment, debias=alone)
    loaded = datasets.load(base.data)
    configs, seeds = values.combined(base, asked)
    for label, config in configs.items():
      try:
        build.experiment(config, loaded)
      except ValueError as error:
        raise ValueError(f'--set {label}: {error}') from error
    space = datasets.space(base.space, loaded)
    table = truth.find(
      space, base.data.name, args.table, args.workdir, args.table_column
    )
    if table is not None:
      for config in configs.values():
        table.accuracy(build.ranking_archs(config, space))
    workdir = args.workdir or Path('runs', 'sweep')
    wanted = comparison.Runs(configs, seeds, runs.in_tasks(workdir))
    seen = runs.instead(wanted, args, workdir, table, loaded, ends)
    if seen is not None:
      return seen, workdir
    images = contents.of(base, loaded)
    workdir = contents.open_run(
      args.workdir,
      args.experiment,
      images,
      resume=args.resume,
      name='sweep',
      command='sweep',
      overwrite=args.overwrite,
    )
    files.write_json(workdir / SWEEPS, {'set': [*asked]})
    if table is not None:
      truth.dump(table, workdir / 'table.json', data=base.data.name)
  print(f'{workdir}: {images}')
  with ends.outcome(workdir), Preemption() as preemption:
    results = runs.train(
      wanted._replace(place=runs.in_tasks(workdir)),
      workdir,
      table,
      loaded,
      preemption,
      args,
      'jaxnas.sweep',
      many.argv_of_task(workdir, args, args.experiment),
    )
    if results is None:
      return {}, workdir
    files.write_json(workdir / 'results.json', results)
  return results, workdir


def requested(args: Sweep) -> tuple[str, ...]:
  """Returns what to sweep, by flags or by what is resumed.

  Raises ValueError where neither says it.
  """
  file = args.workdir and args.workdir / SWEEPS
  if not args.set and file and args.resume and file.exists():
    return tuple(files.read_json(file, {'set': [str]})['set'])
  if not args.set:
    raise ValueError(
      'say what to sweep: --set debias.temperature=1,3,7 for instance.'
    )
  return args.set


def report_failures(
  results: dict[str, list[dict[str, Any]]], workdir: Path
) -> int:
  """Prints a line for each reason of failures, and returns the exit code."""
  failed = {
    f'{label}, seed {result["seed"]}': result['error']
    for label, of_seeds in results.items()
    for result in of_seeds
    if 'error' in result
  }
  if not failed:
    return 0
  from jaxnas.many import driver

  for line in driver.report(failed):
    print(f'error: {line}', file=sys.stderr)
  print(f'try again with --workdir {workdir} --resume', file=sys.stderr)
  return 1


if __name__ == '__main__':
  streams.run(main)
