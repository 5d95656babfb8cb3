"""A training as the command and a notebook start it, from a config to results.

`start` checks all that can be known before the work and opens the run's folder,
and `finish` does the work.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas import truth
from jaxnas.config import Config, validation
from jaxnas.experiment import (
  build,
  contents,
  diagnosing,
  ensembles,
  run,
  warm_up,
)
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import guards, paths, processes
from jaxnas.runtime.preemption import Preemption


class Started(NamedTuple):
  """A run whose folder is open."""

  experiment: Experiment
  workdir: Path
  table: truth.Table | None
  warmup_from: Path | None


def start(
  given: Config | Experiment,
  workdir: Path | str | None = None,
  *,
  name: str = 'run',
  table: Path | str | truth.Table | None = None,
  table_column: str | None = None,
  warmup_from: Path | str | None = None,
  resume: bool = False,
  overwrite: bool = False,
) -> Started:
  """Opens a run directory for an experiment.

  Args:
    given: a config, or what `build.experiment` made of it.
    workdir: the directory, made where it is missing; None: a new one under
      runs/.
    name: of the new one, as a rule the config file's.
    table: ground truth, or its file; None: what the run was held to, else the
      table that is shipped, if any.
    table_column: as in `truth.load`.
    warmup_from: a run whose warm-up to take over.
    resume: go on where the run in `workdir` stopped.
    overwrite: files of other commands may be replaced.

  Raises ValueError or FileNotFoundError, one line, before any work.
  """
  config = given if isinstance(given, Config) else given.config
  validation.validate(config)
  ensembles.check(config)
  folder, warm = _path(workdir), _path(warmup_from)
  if config.data.name == 'imagenet' and config.data.workers:
    guards.check_main()
  experiment = build.experiment(given) if isinstance(given, Config) else given
  if not isinstance(table, truth.Table):
    table = truth.find(
      experiment.space, config.data.name, _path(table), folder, table_column
    )
  if table is not None:
    # Raises where it does not cover what is ranked.
    table.accuracy(experiment.ranking_archs_AxE)
  if warm is not None:
    warm_up.check(warm, config, experiment.warmup_steps, experiment.images)
  opened = processes.by_first(
    lambda: str(
      contents.open_run(
        folder,
        config,
        experiment.images,
        resume=resume,
        overwrite=overwrite,
        name=name,
      )
    )
  )
  return Started(experiment, Path(opened), table, warm)


def finish(
  started: Started, preemption: Preemption, since_s: float | None = None
) -> dict[str, dict[str, Any]]:
  """Trains and ranks, with the undebiased twin where the config asks for it.

  Args:
    started: from `start`.
    preemption: an active one; signals end the work by Stopped.
    since_s: when the run's ledger begins; None: now.

  Returns what correlation.json holds, by 'debiased' and 'undebiased'.
  """
  experiment, workdir, table, warmup_from = started
  config = experiment.config
  own = 'debiased' if config.debiases else 'undebiased'
  of_first: dict[str, Any] = {'warmup_from': warmup_from, 'since_s': since_s}
  results: dict[str, dict[str, Any]] = {}
  if config.ensemble > 1:
    results[own], results[f'mean of {config.ensemble}'] = ensembles.train(
      experiment, workdir, table, preemption, **of_first
    )
  else:
    results[own] = run.train(
      experiment,
      workdir,
      table,
      preemption=preemption,
      group=workdir,
      **of_first,
    )
  if config.debias.baseline:
    # Debiasing lives in the sampler's state: data and programs are shared.
    twin = dataclasses.replace(experiment, config=config.undebiased())
    folder = workdir / 'undebiased'
    processes.by_first(
      lambda: str(
        contents.open_run(folder, twin.config, twin.images, resume=True)
      )
    )
    results['undebiased'] = run.train(
      twin,
      folder,
      table,
      warmup_from=workdir,
      preemption=preemption,
      group=workdir,
    )
    if processes.first():
      diagnosing.of_twins(experiment, workdir, folder)
  if experiment.skipped:
    print(f'warning: {experiment.skipped}')
  return results


def _path(given: Path | str | None) -> Path | None:
  return None if given is None else Path(paths.expanded(str(given)))
