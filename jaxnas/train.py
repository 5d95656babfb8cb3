"""Train a supernet, debias it after the warm-up, rank its architectures.

For instance `python -m jaxnas.train --config quickstart.py`.
"""

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnas import cli, dump, processes, runs, spaces, tables, warm_up
from jaxnas.config import Config

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.ledger import Ledger
  from jaxnas.training.preemption import Preemption
  from jaxnas.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Command):
  """Flags of the command."""

  table: Path | None = None
  """Ground truth to correlate with. Default: the table shipped, if any."""
  warmup_from: Path | None = None
  """A run whose warm-up to take over instead of repeating it, and its density
  where it was measured alike."""
  distributed: processes.Distributed = dataclasses.field(
    default_factory=processes.Distributed
  )


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Train, argv)
  config = args.experiment
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import build, rank
  from jaxnas.training import preemption

  cli.prepare_process()
  with cli.usage_errors():
    processes.start(args.distributed)
    workdir = args.workdir or Path(
      processes.agreed(str(runs.new_workdir(args.config or 'run')))
    )
    table = find_table(config, workdir, args.table)
    if config.ranking.every_epochs is not None and table is None:
      raise ValueError(
        'ranking.every_epochs correlates with the truth: give --table FILE.'
      )
    experiment = build.experiment(config)
    warmup = args.warmup_from and warm_up.check(
      args.warmup_from, config, experiment.warmup_steps
    )
    open_run = functools.partial(runs.open_run, resume=args.resume)
    processes.by_first(lambda: open_run(workdir, config))
  print(f'{workdir}: {config.space} on {config.data.name}')
  with (
    cli.outcome(workdir),
    processes.together(workdir),
    preemption.of_processes() as stop,
  ):
    results = {
      'debiased' if config.debiases else 'undebiased': train(
        experiment,
        workdir,
        table,
        warmup_from=warmup,
        preemption=stop,
        since_s=runs.START_S,
      )
    }
    if config.debias.baseline:
      # Debiasing lives in the sampler's state: data and programs are shared.
      twin = dataclasses.replace(experiment, config=config.undebiased())
      folder = workdir / 'undebiased'
      processes.by_first(
        lambda: runs.open_run(folder, twin.config, resume=True)
      )
      results['undebiased'] = train(
        twin,
        folder,
        table,
        warmup_from=workdir,
        preemption=stop,
      )
    if processes.first():
      rank.show(results)
    if experiment.skipped:
      print(
        f'warning: {len(experiment.skipped)} unreadable images were replaced '
        f'by others, such as {min(experiment.skipped)}'
      )
  return 0


def train(
  experiment: 'Experiment',
  workdir: Path,
  table: tables.Table | None = None,
  *,
  warmup_from: Path | None = None,
  preemption: 'Preemption | None' = None,
  since_s: float | None = None,
) -> dict[str, Any]:
  """Trains and ranks, or goes on with it, in `workdir`.

  Args:
    experiment: from `build.experiment`.
    workdir: a run directory from `runs.open_run`.
    table: ground truth, where there is one.
    warmup_from: a run directory whose checkpoint at the end of the warm-up
      is the start, unless `workdir` has a checkpoint of its own.
    preemption: an active one, whose signals stop the run after saving.
    since_s: of `time.monotonic`, when its ledger begins; None: now.

  Returns:
    What correlation.json holds; nothing in processes but the first.
  """
  from jaxnas import compute, ledger, rank, ranking
  from jaxnas.training.preemption import Preemption

  if since_s is None:
    since_s = time.monotonic()
  preemption = preemption or Preemption()
  runs.write_json(
    workdir / 'environment.json',
    runs.environment(precision=str(experiment.net.dtype)),
  )
  if table is not None:
    tables.dump(table, workdir / 'table.json', data=experiment.config.data.name)
  predictions = workdir / 'predictions.npz'
  archs_AxE = experiment.ranking_archs_AxE
  with ledger.Ledger(workdir / ledger.FILE, since_s) as book:
    if not processes.agreed(predictions.exists()):
      with dump.of_supernet(experiment, workdir):
        state = train_supernet(
          experiment, workdir, table, warmup_from, preemption, book
        )
      with book.of('rank'):
        ranking.predict(experiment, state, archs_AxE, workdir, preemption.check)
  if not processes.first():
    return {}
  spent = compute.spent(experiment)
  print(f'{workdir}: {compute.describe(spent)}')
  print(f'{workdir}: {book.describe()}')
  return rank.summarize(experiment, workdir, table, compute=spent)


def train_supernet(
  experiment: 'Experiment',
  workdir: Path,
  table: tables.Table | None,
  warmup_from: Path | None,
  preemption: 'Preemption',
  book: 'Ledger',
) -> 'TrainState':
  """From the newest good checkpoint to the end."""
  from jaxnas import build, density_log, logging_config, ranking
  from jaxnas.training.checkpoint import Checkpoints
  from jaxnas.training.loop import Schedule, fit
  from jaxnas.training.metrics import MetricsFile

  config = experiment.config
  warmup_steps = experiment.warmup_steps
  state, notes = experiment.init_state(), {'window': [], 'skipped': []}

  def look(state: 'TrainState', epoch: int) -> None:
    with book.of('density'):
      density_log.write(experiment, state, epoch, workdir, preemption.check)
    with book.of('rank'):
      row = ranking.report(experiment, state, epoch, table, preemption.check)
    if row:
      metrics.write(int(state.step), row)

  def before_epoch(state: 'TrainState', epoch: int) -> 'TrainState':
    look(state, epoch)
    with book.of('density'):
      return adapt(experiment, state, epoch, workdir, preemption.check)

  def save(state: 'TrainState', window: Any) -> None:
    with book.of('checkpoint'):
      checkpoints.save(
        state, {'window': window, 'skipped': sorted(experiment.skipped)}
      )
    book.saved(int(state.step))

  def record(step: int, row: Mapping[str, float]) -> None:
    metrics.write(step, row)
    book.save()

  with Checkpoints(
    workdir / 'checkpoints',
    keep=config.checkpoint.keep,
    always_keep=[warmup_steps],
    facts=build.facts(config),
    on_error=config.checkpoint.on_error,
  ) as checkpoints:
    if found := checkpoints.newest(state):
      state, notes = found
      # What a finished training has ranked since then is kept.
      if int(state.step) < experiment.steps:
        book.restarted(int(state.step))
    elif warmup_from is not None and warmup_steps:
      with Checkpoints(warmup_from / 'checkpoints', read_only=True) as warmup:
        state, notes = warmup.restore(warmup_steps, state)
      density_log.take_over(config, warmup_from, workdir)
      # From here on this run needs no other, and others can start from it.
      checkpoints.save(state, notes)
    experiment.skipped.update(notes['skipped'])
    if int(state.step):
      print(f'{workdir}: goes on at step {int(state.step)}')
    metrics = MetricsFile(
      workdir / 'metrics.jsonl',
      int(state.step),
      logging_config.mirrors(config, workdir),
    )
    with book.of('train'):
      state = fit(
        state,
        experiment.step_fn,
        lambda step: book.waiting(experiment.training.feed(config.seed, step)),
        Schedule(
          steps_per_epoch=experiment.training.steps_per_epoch,
          epochs=config.total_epochs,
          log_every=config.logging.every_steps,
          save_every=config.checkpoint.every_epochs,
          also_save=(config.warmup_epochs,),
          save_minutes=config.checkpoint.every_minutes,
        ),
        before_epoch=before_epoch,
        save=save,
        record=record,
        window=notes['window'],
        images_per_step=config.data.batch_size * experiment.paths,
        guessing_loss=math.log(experiment.space.classes),
        preemption=preemption,
      )
  look(state, config.total_epochs)
  runs.write_npz(
    workdir / 'samples.npz',
    {
      'archs_AxE': experiment.space.enumerate(),
      'samples_A': np.asarray(state.samples),
    }
    if experiment.space.enumerable
    else {'samples_ExO': np.asarray(state.samples)},
  )
  return state


def adapt(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> 'TrainState':
  """The sampler as it is from this epoch on."""
  from jaxnas import debiasing, rebuilding

  # The density is solved for against the proposal that follows.
  state = rebuilding.rebuild(experiment, state, epoch, poll)
  return debiasing.debias(experiment, state, epoch, workdir, poll)


def find_table(
  config: Config, workdir: Path, file: Path | None
) -> tables.Table | None:
  """The truth given, else what the run has, else what is shipped, else None."""
  space, images = spaces.get(config.space), config.data.name
  kept = workdir / 'table.json'
  if file is None and kept.exists():
    file = kept
  if file is None and not tables.shipped(space, images):
    return None
  return tables.load(space, file, images)


if __name__ == '__main__':
  sys.exit(main())
