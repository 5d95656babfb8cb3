"""A run, from its first step to its ranking: train, debias, rank.

A run goes on from whatever its directory holds, in the same bits.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas import truth
from jaxnas.experiment import (
  averages,
  build,
  contents,
  cost,
  debias,
  density_log,
  diagnosing,
  dump,
  made_of,
  origin,
  predictions,
  rebuild,
  reports,
  sampling,
  schedule,
  trackers,
)
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files, ledger, processes
from jaxnas.runtime.ledger import Ledger
from jaxnas.runtime.preemption import Preemption
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.metrics import MetricsFile
from jaxnas.training.step import TrainState
from jaxnas.training.turns import Held, Turns, alone


def train(
  experiment: Experiment,
  workdir: Path,
  table: truth.Table | None = None,
  **options: Any,
) -> dict[str, Any]:
  """Trains alone and ranks, or goes on with it; see `turns`."""
  return alone(
    lambda held: turns(experiment, workdir, held, table, **options),
    experiment.step_fn.many,
  )


def turns(
  experiment: Experiment,
  workdir: Path,
  held: Held,
  table: truth.Table | None = None,
  *,
  warmup_from: Path | None = None,
  preemption: Preemption | None = None,
  since_s: float | None = None,
  group: Path | None = None,
  label: str | None = 'training',
) -> Turns[dict[str, Any]]:
  """Trains and ranks, or goes on with it, in `workdir`.

  It asks for the steps of training, as `loop.turns` does.

  Args:
    experiment: from `build.experiment`.
    workdir: a run directory from `run_folder.open_run`.
    held: holds the state of training.
    table: ground truth, where there is one.
    warmup_from: a run directory whose checkpoint at the end of the warm-up
      is the start, unless `workdir` has a checkpoint of its own.
    preemption: an active one, whose signals stop the run after saving.
    group: the folder of the command that this run is one of several of, for
      trackers.
    since_s: when the run's ledger begins, by `time.monotonic`; None: now.
    label: of the progress bar of training; None shows no bar.

  Returns:
    What correlation.json holds; nothing in processes but the first.
  """
  if since_s is None:
    since_s = time.monotonic()
  preemption = preemption or Preemption()
  contents.keep(workdir, experiment.images)
  made_by = origin.Origin(workdir, precision=str(experiment.net.dtype))
  made_by.save()
  if table is not None:
    truth.dump(table, workdir / 'table.json', data=experiment.config.data.name)
  # All processes look alike: reading checkpoints waits for the others.
  ranked = predictions.done(experiment, workdir)
  with Ledger(workdir / ledger.FILE, since_s, experiment.run_digest) as book:
    if not processes.agreed(ranked):
      with (
        dump.of_supernet(experiment, workdir),
        MetricsFile(
          workdir / 'metrics.jsonl',
          trackers.mirrors(experiment.config, workdir, group),
          of=experiment.run_digest,
        ) as metrics,
      ):
        yield from train_supernet(
          experiment,
          workdir,
          held,
          table,
          warmup_from,
          preemption,
          book,
          metrics,
          made_by,
          label,
        )
        state = held.get()
      with book.part('rank'):
        predictions.predict(
          experiment,
          state,
          experiment.ranking_archs_AxE,
          workdir,
          preemption.check,
          averages.states(experiment, state, workdir),
        )
      made_by.save()
  if not processes.first():
    return {}
  total = cost.of_run(experiment)
  print(f'{workdir}: {cost.describe(total)}')
  print(f'{workdir}: {book.describe()}')
  diagnosing.at_end(experiment, workdir, table)
  result = reports.summarize(experiment, workdir, table, compute=total)
  trackers.conclude(
    experiment.config,
    workdir,
    group,
    experiment.steps,
    trackers.final(result, debias.read(workdir, experiment.run_digest)),
  )
  return result


def train_supernet(
  experiment: Experiment,
  workdir: Path,
  held: Held,
  table: truth.Table | None,
  warmup_from: Path | None,
  preemption: Preemption,
  book: Ledger,
  metrics: MetricsFile,
  made_by: origin.Origin,
  label: str | None = None,
) -> Turns[None]:
  """Trains from the newest good checkpoint to the end.

  Arguments are those of `turns`; `book` counts where the seconds went,
  `metrics` receives rows, and `made_by` hears of checkpoints.
  """
  config, warmup_steps = experiment.config, experiment.warmup_steps
  if (advice := cost.advise(experiment)) is not None:
    print(f'{workdir}: {advice}')
  state, notes = experiment.init_state(), {'window': [], 'skipped': []}

  def look(state: TrainState, epoch: int) -> None:
    with book.part('density'):
      density_log.write(experiment, state, epoch, workdir, preemption.check)
    with book.part('rank'):
      row = reports.report(
        experiment, state, epoch, table, workdir, preemption.check
      )
    if row:
      metrics.write(int(state.step), row)

  def before_epoch(state: TrainState, epoch: int) -> TrainState:
    look(state, epoch)
    with book.part('density'):
      state = adapt(
        experiment,
        state,
        epoch,
        workdir,
        preemption.check,
        lambda row: metrics.write(int(state.step), row),
      )
    if config.debiases and epoch == config.warmup_epochs:
      with book.part('rank'):
        diagnosing.after_warm_up(
          experiment, state, workdir, table, preemption.check
        )
    return state

  def save(state: TrainState, window: Any) -> None:
    made_by.save()
    sampling.check_state(experiment.sampler, state.sampler)
    with book.part('checkpoint'):
      checkpoints.save(
        state, {'window': window, 'skipped': [*experiment.skipped]}
      )
    book.saved(int(state.step))

  def record(step: int, row: Mapping[str, float]) -> None:
    metrics.write(step, row)
    book.save()

  with Checkpoints(
    workdir / 'checkpoints',
    keep=config.checkpoint.keep,
    always_keep=[
      epoch * experiment.training.steps_per_epoch
      for epoch in schedule.kept_epochs(config)
    ],
    metadata=build.metadata(config),
    on_error=config.checkpoint.on_error,
  ) as checkpoints:
    if found := checkpoints.newest(state):
      state, notes = found
      # A finished training may have ranked since then, which is kept.
      if int(state.step) < experiment.steps:
        book.restarted(int(state.step))
    elif warmup_from is not None and warmup_steps:
      with Checkpoints(warmup_from / 'checkpoints', read_only=True) as warmup:
        state, notes = warmup.restore(warmup_steps, state)
      density_log.take_over(experiment, warmup_from, workdir)
      # From here on this run needs no other, and others can start from it.
      checkpoints.save(state, notes)
    experiment.skipped.add(notes['skipped'])
    if int(state.step):
      print(f'{workdir}: goes on at step {int(state.step)}')
      made_by.goes_on()
    metrics.go_on_from(int(state.step))
    with (
      book.part('train'),
      errors.memory_of('data.batch_size', 'sampler.paths'),
    ):
      held.put(state)
      del state
      yield from loop.turns(
        held,
        lambda step: book.waiting(experiment.training.feed(config.seed, step)),
        schedule.of_training(config, experiment.training.steps_per_epoch),
        before_epoch=before_epoch,
        save=save,
        record=record,
        window=notes['window'],
        images_per_step=config.data.batch_size * experiment.paths,
        guessing_loss=math.log(experiment.space.classes),
        preemption=preemption,
        label=label,
        at_once=experiment.steps_per_dispatch,
      )
  look(held.get(), config.total_epochs)
  write_samples(experiment, held.get(), workdir / 'samples.npz')


def adapt(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
  record: Callable[[dict[str, float]], None] = lambda row: None,
) -> TrainState:
  """Returns the state with the sampler as it is from this epoch on.

  The tree is built before the density is fed, since the temperature is solved
  for against the proposal that follows. Raises ArithmeticError where its
  probabilities are not finite.
  """
  state = rebuild.rebuild(experiment, state, epoch, poll)
  state = debias.debias(experiment, state, epoch, workdir, poll, record)
  sampling.check_state(experiment.sampler, state.sampler)
  return state


def write_samples(
  experiment: Experiment, state: TrainState, file: Path
) -> None:
  """Writes how often each architecture, or each op, was trained."""
  samples, facts = (
    np.asarray(state.samples),
    made_of.state_of(experiment, state),
  )
  if not experiment.space.enumerable:
    files.write_npz(file, {'samples_ExO': samples}, facts)
    return
  archs_AxE = experiment.space.enumerate()
  arrays = {'archs_AxE': archs_AxE, 'samples_A': samples}
  files.write_npz(file, arrays, facts)
