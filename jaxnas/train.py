"""Train a supernet, debias it after the warm-up, rank its architectures.

For instance `python -m jaxnas.train --config quickstart.py`.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnas import cli, runs, spaces, tables
from jaxnas.config import Config, differences

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.preemption import Preemption
  from jaxnas.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Command):
  """Flags of the command."""

  table: Path | None = None
  """Ground truth to correlate with. Default: the table shipped, if any."""
  warmup_from: Path | None = None
  """A run whose warm-up to take over instead of repeating it."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Train, argv)
  config = args.experiment
  workdir = args.workdir or runs.new_workdir(args.config or 'run')
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import build, rank
  from jaxnas.training.preemption import Preemption

  cli.keep_compiled()
  with cli.usage_errors():
    table = find_table(config, workdir, args.table)
    experiment = build.experiment(config)
    warmup = args.warmup_from and check_warmup(
      args.warmup_from, config, experiment.warmup_steps
    )
    runs.open_run(workdir, config, resume=args.resume)
  print(f'{workdir}: {config.space} on {config.data.name}')
  with cli.outcome(workdir), Preemption() as preemption:
    results = {
      'debiased' if config.debiases else 'undebiased': train(
        experiment, workdir, table, warmup_from=warmup, preemption=preemption
      )
    }
    if config.debias.baseline:
      # Debiasing lives in the sampler's state: data and programs are shared.
      twin = dataclasses.replace(experiment, config=config.undebiased())
      folder = workdir / 'undebiased'
      runs.open_run(folder, twin.config, resume=True)
      results['undebiased'] = train(
        twin,
        folder,
        table,
        warmup_from=workdir,
        preemption=preemption,
      )
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
) -> dict[str, Any]:
  """Trains and ranks, or goes on with it, in `workdir`.

  Args:
    experiment: from `build.experiment`.
    workdir: a run directory from `runs.open_run`.
    table: ground truth, where there is one.
    warmup_from: a run directory whose checkpoint at the end of the warm-up
      is the start, unless `workdir` has a checkpoint of its own.
    preemption: an active one, whose signals stop the run after saving.

  Returns:
    What correlation.json holds.
  """
  from jaxnas import evaluation, rank, streams
  from jaxnas.training.preemption import Preemption

  config = experiment.config
  preemption = preemption or Preemption()
  runs.write_json(
    workdir / 'environment.json',
    runs.environment(precision=str(experiment.net.dtype)),
  )
  if table is not None:
    tables.dump(table, workdir / 'table.json', data=config.data.name)
  predictions = workdir / 'predictions.npz'
  archs_AxE = experiment.ranking_archs_AxE
  if not predictions.exists():
    variables = train_supernet(experiment, workdir, warmup_from, preemption)
    accuracy_A = evaluation.accuracies(
      experiment.net,
      variables,
      archs_AxE,
      experiment.ranking.batch,
      len(experiment.ranking),
      batch_size=config.ranking.batch_size,
      poll=preemption.check,
    )
    runs.write_npz(
      predictions,
      {
        'archs_AxE': archs_AxE,
        'accuracy_A': accuracy_A,
        'skipped_images': np.array(len(experiment.skipped)),
      },
    )
  predicted = runs.read_npz(predictions)
  summary = {
    'space': config.space,
    'split': config.ranking.split,
    'images': len(experiment.ranking),
    'bn': config.ranking.bn,
    'skipped_images': int(predicted['skipped_images']),
    **rank.correlate(
      experiment.space,
      archs_AxE,
      predicted['accuracy_A'],
      table,
      streams.rng(config.seed, 'bootstrap'),
    ),
  }
  runs.write_json(workdir / 'correlation.json', summary)
  return summary


def train_supernet(
  experiment: 'Experiment',
  workdir: Path,
  warmup_from: Path | None,
  preemption: 'Preemption',
) -> Any:
  """From the newest checkpoint to the end; returns the variables."""
  from jaxnas import build
  from jaxnas.training.checkpoint import Checkpoints
  from jaxnas.training.loop import Schedule, fit
  from jaxnas.training.metrics import MetricsFile

  config = experiment.config
  warmup_steps = experiment.warmup_steps
  state, notes = experiment.init_state(), {'window': [], 'skipped': []}
  with Checkpoints(
    workdir / 'checkpoints',
    keep=config.checkpoint.keep,
    always_keep=[warmup_steps],
  ) as checkpoints:
    if steps := checkpoints.steps():
      state, notes = checkpoints.restore(steps[-1], state)
    elif warmup_from is not None and warmup_steps:
      with Checkpoints(warmup_from / 'checkpoints') as warmup:
        state, notes = warmup.restore(warmup_steps, state)
    experiment.skipped.update(notes['skipped'])
    if int(state.step):
      print(f'{workdir}: goes on at step {int(state.step)}')
    state = fit(
      state,
      experiment.step_fn,
      functools.partial(experiment.training.feed, config.seed),
      Schedule(
        steps_per_epoch=experiment.training.steps_per_epoch,
        epochs=config.warmup_epochs + config.epochs,
        log_every=config.logging.every_steps,
        save_every=config.checkpoint.every_epochs,
        also_save=(config.warmup_epochs,),
      ),
      before_epoch=lambda state, epoch: refresh_density(
        experiment, state, epoch, workdir, preemption
      ),
      save=lambda state, window: checkpoints.save(
        state, {'window': window, 'skipped': sorted(experiment.skipped)}
      ),
      record=MetricsFile(
        workdir / 'metrics.jsonl',
        int(state.step),
        build.mirrors(config, workdir),
      ).write,
      window=notes['window'],
      images_per_step=config.data.batch_size * config.sampler.paths,
      guessing_loss=math.log(experiment.space.classes),
      preemption=preemption,
    )
  runs.write_npz(
    workdir / 'samples.npz',
    {
      'archs_AxE': experiment.space.enumerate(),
      'samples_A': np.asarray(state.samples),
    }
    if experiment.space.enumerable
    else {'samples_ExO': np.asarray(state.samples)},
  )
  return state.variables


def refresh_density(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  workdir: Path,
  preemption: 'Preemption',
) -> 'TrainState':
  """Debiases from here on, where a density is due before this epoch."""
  from jaxnas import density, samplers

  config, space = experiment.config, experiment.space
  since = epoch - config.warmup_epochs
  every = config.density.refresh_epochs
  due = since == 0 or (every is not None and since > 0 and since % every == 0)
  if not (config.debiases and due and config.epochs):
    return state
  if config.density.file is not None:
    estimated = density.load(Path(config.density.file), space.enumerate())
  else:
    batches = [
      experiment.density.batch(indices_B)
      for indices_B in np.split(
        np.arange(len(experiment.density)), config.density.batches
      )
    ]
    images, labels = zip(*batches, strict=True)
    estimated = density.gradient_density(
      experiment.net,
      state.params,
      space.enumerate(),
      images,
      labels,
      tensors=config.density.tensors,
      combine=config.density.combine,
      absent=config.density.absent,
      memory_gb=config.density.memory_gb,
      poll=preemption.check,
    )
  density.save(estimated, workdir / 'density.npz')
  alpha_A = estimated.alpha_A
  if config.density.scale == 'std':
    alpha_A = alpha_A / alpha_A.std()
  log_prob = experiment.sampler.log_prob
  undebiased = samplers.with_density(state.sampler, 0 * alpha_A, 1.0)
  tau, fraction = config.debias.temperature, config.debias.effective_fraction
  if fraction is not None:
    tau = samplers.solve_temperature(
      np.asarray(log_prob(undebiased)), alpha_A, fraction
    )
  assert tau is not None  # `config.debiases`
  sampler = samplers.with_density(state.sampler, alpha_A, tau)
  print(samplers.describe(alpha_A, tau, log_prob(sampler)))
  return dataclasses.replace(state, sampler=sampler)


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


def check_warmup(run: Path, config: Config, steps: int) -> Path:
  """Raises where `run` did not warm up, so long, as `config` would."""
  later = ('debias.', 'density.', 'ranking.', 'retrain.')
  for name, (ours, theirs) in differences(
    config, runs.read_config(run)
  ).items():
    if not name.startswith(later):
      raise ValueError(
        f'{run} warmed up with {name} {theirs}, not {ours}: choose another '
        '--warmup_from, or none.'
      )
  if steps and not (run / 'checkpoints' / str(steps)).is_dir():
    raise ValueError(
      f'{run} has no checkpoint at step {steps}, the end of its warm-up: '
      'finish that with --resume, or choose another --warmup_from.'
    )
  return run


if __name__ == '__main__':
  sys.exit(main())
