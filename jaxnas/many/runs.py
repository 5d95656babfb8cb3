"""Labelled runs, each of which may be a task of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnas import data, truth
from jaxnas.config import Config, digest, run_folder
from jaxnas.experiment import comparison, contents
from jaxnas.experiment.comparison import Runs
from jaxnas.many import cost, driver, flags, tasks
from jaxnas.many.tasks import Task
from jaxnas.runtime import errors, ledger
from jaxnas.runtime.preemption import Preemption

# The file of a run that is there once it is finished.
RESULT = 'correlation.json'

Results = dict[str, list[dict[str, Any]]]


def named(label: str, seed: int) -> str:
  """Returns the name of the task that is a run."""
  return f'{label}/{seed}'


def pair_of(runs: Runs, name: str) -> tuple[str, int]:
  """Returns the label and seed of a task.

  Raises ValueError where no run has this name.
  """
  known = {named(*pair): pair for pair in runs.wanted()}
  if name not in known:
    raise ValueError(
      f'--only {name!r:.80} is none of {", ".join(known):.200}: name one.'
    )
  return known[name]


def tasks_of(runs: Runs) -> list[Task]:
  """Returns the tasks, those first whose warm-up others can take over."""
  found = []
  for label, seed in runs.wanted():
    folder = runs.folder(label, seed).absolute()
    found.append(Task(named(label, seed), folder, folder / RESULT))
  return sorted(
    found, key=lambda task: task.name.rpartition('/')[0].endswith('+debias')
  )


def train(
  runs: Runs,
  workdir: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
  preemption: Preemption,
  given: flags.Many,
  module: str,
  argv: Sequence[str],
) -> Results | None:
  """Trains all of them where the flags say; returns results by label.

  Args:
    runs: what to train.
    workdir: the folder of all of them.
    table: ground truth, where there is one.
    loaded: the images of all of them.
    preemption: an active one; signals end the work by Stopped.
    given: where, and how many at once.
    module: of the command.
    argv: flags of a task of it.

  Returns None where they are trained later.
  """
  failed = None
  if given.in_processes:
    everyone = tasks_of(runs)
    work = tasks.begin(workdir, module, argv, everyone)
    done = len(everyone) - len(work.tasks)
    ended = driver.run(work, given, preemption, done)
    if given.later:
      return None
    failed = {
      pair_of(runs, name): line.removeprefix('error: ')
      for name, line in ended.items()
    }
  return comparison.compare(runs, workdir, table, loaded, preemption, failed)


def train_one(
  runs: Runs,
  name: str,
  workdir: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
  ends: errors.Ends,
) -> Path:
  """Trains the run of a task; returns its folder.

  Raises SystemExit where it fails.
  """
  with ends.usage():
    label, seed = pair_of(runs, name)
    config = runs.wanted()[label, seed]
    run = runs.folder(label, seed)
    # It raises where another process is at it.
    contents.open_run(run, config, contents.of(config, loaded), resume=True)
  with ends.outcome(run), Preemption() as preemption:
    result = comparison.result_of(run, config) or comparison.attempt(
      config,
      run,
      table,
      loaded,
      preemption,
      warmup_from=runs.warmed_up(label, seed),
      group=workdir,
    )
  if 'error' in result:
    raise SystemExit(1)
  return run


def gather(
  runs: Runs,
  workdir: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
) -> Results:
  """Shows how far all of them are; returns the results so far."""
  driver.show(tasks_of(runs), str(workdir))
  return comparison.compare(
    runs, workdir, table, loaded, Preemption(), failed={}
  )


def instead(
  runs: Runs,
  given: flags.Gathers,
  workdir: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
  ends: errors.Ends,
) -> Results | None:
  """Does what flags ask for instead of training all; None: they do not.

  Returns the results that are gathered, which are none otherwise.
  """
  if given.dry_run:
    dry_run(runs, given)
    return {}
  if given.gather:
    return gather(runs, workdir, table, loaded)
  if given.only is not None:
    train_one(runs, given.only, workdir, table, loaded, ends)
    return {}
  return None


def dry_run(runs: Runs, given: flags.Many) -> None:
  """Says what the runs that are left would take, by those that are done."""
  everyone = tasks_of(runs)
  done = [task.folder for task in everyone if task.finished]
  left = len(everyone) - len(done)
  took = [seconds for run in done if (seconds := _seconds(run)) is not None]
  of = f'{len(runs.configs)} kinds x {len(runs.seeds)} seeds'
  cost.show(cost.Estimate(left, of, took, done, left), given)


def _seconds(run: Path) -> float | None:
  """Returns the seconds that a finished run took; None where nothing says."""
  try:
    of = digest(run_folder.read_config(run))
    return sum(ledger.read(run / ledger.FILE, of)['seconds'].values())
  except (OSError, ValueError):
    return None


def in_tasks(workdir: Path) -> Any:
  """Places runs by the hash of their experiment, for `Runs`."""

  def place(label: str, config: Config) -> Path:
    del label
    return tasks.sharded(workdir, {'config': digest(config)})

  return place
