"""Trains as `jaxnas.train` and `jaxnas.compare` do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnas import compare, config, truth
from jaxnas.api.run import Run, open_run
from jaxnas.config import Config, types, validation
from jaxnas.experiment import start
from jaxnas.runtime import errors, startup
from jaxnas.runtime.preemption import for_processes


def load_config(name: str | Path, **fields: Any) -> Config:
  """Loads a config, with some of its fields changed.

  Args:
    name: a config file: a path, or a name in ./configs or shipped with jaxnas.
    fields: values by field; a section is given as the fields of it that
      change.

  Raises ValueError or FileNotFoundError, one line.

  >>> load_config('quickstart.py', seed=1, data={'batch_size': 32}).seed
  1
  """
  changed = {
    f'{section}.{field}': value
    for section, values in fields.items()
    if isinstance(values, dict)
    for field, value in values.items()
  }
  loaded = validation.without_replaced(config.load(str(name)), changed)
  given = types.replaced(loaded, fields)
  validation.validate(given)
  return given


def run_experiment(
  given: Config | str | Path,
  workdir: Path | str | None = None,
  *,
  table: Path | str | truth.Table | None = None,
  table_column: str | None = None,
  warmup_from: Path | str | None = None,
  resume: bool = False,
  overwrite: bool = False,
) -> Run:
  """Trains and ranks as `python -m jaxnas.train` does, and opens the run.

  A first Ctrl-C, or SIGTERM, saves and raises Stopped; the same call with
  `resume=True` goes on, and returns at once where the run is done.

  Args:
    given: a config, or a config file as in `load_config`.
    workdir: a folder, made where it is missing; None: a new one under runs/.
    table: ground truth, or its file; None: what the run was held to, else the
      table that is shipped, if any.
    table_column: the accuracies of the table to take, where they are not on
      the data of the config.
    warmup_from: a run whose warm-up to take over.
    resume: go on where the run in `workdir` stopped.
    overwrite: files of other commands may be replaced.

  Raises ValueError or FileNotFoundError, one line, before any work.
  """
  named = isinstance(given, str | Path)
  with errors.CALL.usage():
    startup.prepare_process()
    started = start.start(
      config.load(str(given)) if named else given,
      workdir,
      name=str(given) if named else 'run',
      table=table,
      table_column=table_column,
      warmup_from=warmup_from,
      resume=resume,
      overwrite=overwrite,
    )
  with errors.CALL.outcome(started.workdir), for_processes() as preemption:
    start.finish(started, preemption)
  return open_run(started.workdir)


def compare_samplers(
  given: Config | str | Path,
  samplers: Sequence[str] | str,
  workdir: Path | str | None = None,
  **flags: Any,
) -> dict[str, list[dict[str, Any]]]:
  """Trains with several samplers as `python -m jaxnas.compare` does.

  Args:
    given: a config, or a config file as in `load_config`.
    samplers: `NAME` or `NAME:VARIANT`, with `+debias` behind it to debias it.
    workdir: a folder, made where it is missing; None: a new one under runs/.
    flags: further ones of the command: seeds, budget, table, resume, ...

  Returns by sampler what correlation.json holds for each seed; `open_run`
  opens `WORKDIR/SAMPLER/seed_N`. A run that failed has an 'error' instead.

  Raises ValueError or FileNotFoundError, one line, before any work.
  """
  named = isinstance(given, str | Path)
  with errors.CALL.usage():
    args = compare.Compare(
      config=str(given) if named else None,
      experiment=config.load(str(given)) if named else given,
      samplers=samplers if isinstance(samplers, str) else ','.join(samplers),
    )
    args = types.replaced(args, {'workdir': workdir, **flags})
    validation.validate(args.experiment)
  results, _ = compare.compare(args, errors.CALL)
  return results
