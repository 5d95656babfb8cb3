"""A command that trains labelled runs, from its flags to its results."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxnas import data, truth
from jaxnas.config import Config
from jaxnas.experiment import build, contents, datasets
from jaxnas.experiment.comparison import Runs
from jaxnas.many import driver, flags, runs
from jaxnas.many.runs import Results
from jaxnas.report.console import comparison
from jaxnas.runtime import errors, files, startup
from jaxnas.runtime.preemption import Preemption

Labelled = tuple[Mapping[str, Config], Sequence[int]]


class Request(NamedTuple):
  """The runs that a command is asked to train."""

  file: str
  """The file that keeps the words of it, for `--resume`."""
  words: Mapping[str, Any]
  configs: Callable[[data.DataSet], Labelled]
  """The images -> experiments by label, and seeds; raises ValueError where they
  cannot be trained."""
  place: Callable[[Path], Callable[[str, Config], Path]]
  """The folder of the command -> `Runs.place`."""


F = TypeVar('F', bound=flags.Labelled)


def do(
  command: str,
  given: F,
  requested: Callable[[F, Config], Request],
  ends: errors.Ends,
) -> tuple[Results, Path]:
  """Does what a command's flags say.

  Args:
    command: its name, also that of its folder.
    given: its flags.
    requested: reads the flags, with the experiment without a baseline.
    ends: how errors end it.

  Returns results by label, and their folder; no results where runs are trained
  later, elsewhere or not at all.
  """
  with ends.usage():
    given = flags.check(given)
    driver.ready(given)
    startup.prepare_process()
    # What is not debiased is a run of its own here.
    alone = dataclasses.replace(given.experiment.debias, baseline=False)
    base = dataclasses.replace(given.experiment, debias=alone)
    request = requested(given, base)
    loaded = datasets.load(base.data)
    configs, seeds = request.configs(loaded)
    table = truth.find(
      datasets.space(base.space, loaded),
      base.data.name,
      given.table,
      given.workdir,
      given.table_column,
    )
    workdir = given.workdir or Path('runs', command)
    wanted = Runs(configs, seeds, request.place(workdir))
    seen = runs.instead(wanted, given, workdir, table, loaded, ends)
    if seen is not None:
      return seen, workdir
    if table is not None:
      check_table(table, wanted, given.workdir, base.data.name)
    images = contents.of(base, loaded)
    workdir = contents.open_run(
      given.workdir,
      given.experiment,
      images,
      resume=given.resume,
      name=command,
      command=command,
      overwrite=given.overwrite,
    )
    files.write_json(workdir / request.file, request.words)
    if table is not None:
      truth.dump(table, workdir / 'table.json', data=base.data.name)
  print(f'{workdir}: {images}')
  if table is not None:
    print(table)
  with ends.outcome(workdir), Preemption() as preemption:
    results = runs.train(
      wanted._replace(place=request.place(workdir)),
      workdir,
      table,
      loaded,
      preemption,
      given,
      f'jaxnas.{command}',
      flags.argv_of_task(workdir, given, given.experiment),
    )
    if results is None:
      return {}, workdir
    files.write_json(workdir / 'results.json', results)
  return results, workdir


def check_table(
  table: truth.Table, wanted: Runs, workdir: Path | None, data_name: str
) -> None:
  """Checks a table before runs are held to it.

  Raises ValueError where it lacks what a run ranks, or runs that are done were
  held to another truth.
  """
  for config in wanted.wanted().values():
    table.accuracy(build.ranking_archs(config, table.space))
  if workdir is None:
    return
  if not (workdir / 'table.json').exists():
    done = [task.folder for task in runs.tasks_of(wanted) if task.finished]
    if done:
      raise ValueError(
        f'{min(done)} was held to no table: choose another --workdir, or '
        'leave out --table.'
      )
    return
  before = truth.find(table.space, data_name, None, workdir)
  if before and not (
    np.array_equal(before.archs_AxE, table.archs_AxE)
    and np.array_equal(before.accuracy_A, table.accuracy_A)
  ):
    raise ValueError(
      f'{workdir} is held to another table: resume it without --table, or '
      'choose another --workdir.'
    )


def show(results: Results, workdir: Path, given: flags.Gathers) -> int:
  """Prints results, and a line for each reason of failures.

  Returns the exit code.
  """
  comparison.show(results)
  failed = {
    f'{label}, seed {result["seed"]}': result['error']
    for label, of_seeds in results.items()
    for result in of_seeds
    if 'error' in result
  }
  if given.gather or not failed:
    return 0
  for line in driver.report(failed):
    print(f'error: {line}', file=sys.stderr)
  it = 'it' if len(failed) == 1 else 'them'
  print(f'try {it} again with --workdir {workdir} --resume', file=sys.stderr)
  return 1
