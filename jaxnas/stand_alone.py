"""Training one architecture after another from scratch."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxnas.config import Config

if TYPE_CHECKING:
  from jaxnas.build import StandAloneExperiment
  from jaxnas.training.preemption import Preemption
  from jaxnas.training.step import TrainState

# JAX and what needs it are imported late, so that `--help` is quick.

# (arch_E, seed) -> accuracy on the test images.
Trainer = Callable[[Int[np.ndarray, ' E'], int], float]


def make_trainer(
  config: Config,
  built: 'StandAloneExperiment',
  workdir: Path | None,
  preemption: 'Preemption',
) -> Trainer:
  """One compiled program for all that it trains.

  The stand-alone network is the supernet's definition with affine batch
  normalisation and running statistics. A seed is an experiment of its own,
  whatever the architecture: parameters of the same name start alike.

  Args:
    config: of the experiment.
    built: from `build.stand_alone`.
    workdir: gets a folder a seed, with metrics.jsonl and checkpoints from
      which a run goes on; None keeps neither.
    preemption: an active one; signals end training by Stopped.
  """
  from jaxnas import evaluation, samplers, streams, supernets
  from jaxnas.training import loop, step

  net, batches, space = built.net, built.training, built.space
  step_fn = step.make_step(
    net,
    samplers.fixed(space.positions),
    built.optimizer,
    batches,
    _count,
    seed=config.seed,
    label_smoothing=config.optimizer.label_smoothing,
    ema_decay=config.retrain.ema_decay or 0.0,
  )

  @functools.cache
  def fresh(seed: int) -> Any:
    return supernets.init(net, _some(built), seed)

  def trainer(arch_E: Int[np.ndarray, ' E'], seed: int) -> float:
    child = streams.child(config.seed, 'retrain', seed)
    state = first_state(config, built, fresh(child))
    state = dataclasses.replace(state, sampler=arch_E[None])
    fit = functools.partial(
      loop.fit,
      step_fn=step_fn,
      feed=functools.partial(batches.feed, child),
      schedule=loop.Schedule(
        steps_per_epoch=batches.steps_per_epoch,
        epochs=config.retrain.epochs,
        log_every=config.logging.every_steps,
        save_every=config.checkpoint.every_epochs,
      ),
      images_per_step=config.data.batch_size,
      guessing_loss=math.log(space.classes),
      preemption=preemption,
    )
    try:
      if workdir is None:
        state = fit(
          state,
          save=lambda state, window: None,
          record=lambda step, row: None,
          label=None,
        )
      else:
        state = _fit_with_checkpoints(
          fit, state, built.skipped, config, workdir / f'seed_{seed}'
        )
    except loop.NonFinite as error:
      where = f'{space.format(arch_E)}, seed {seed}'
      raise loop.NonFinite(
        f'{where}: {error}', error.step, arch_E[None], seed
      ) from error
    (accuracy,) = evaluation.accuracies(
      net,
      state.variables,
      arch_E[None],
      built.test.batch,
      len(built.test),
      batch_size=config.ranking.batch_size,
      label=None,
      poll=preemption.check,
    )
    return float(accuracy)

  return trainer


def first_state(
  config: Config, built: 'StandAloneExperiment', variables: Any
) -> 'TrainState':
  """Before the first step, along the zeroth architecture.

  Args:
    config: of the experiment.
    built: from `build.stand_alone`.
    variables: of its net, from `supernets.init`.
  """
  from jaxnas import samplers
  from jaxnas.training import step

  return step.init_state(
    built.net,
    samplers.fixed(built.space.positions),
    built.optimizer,
    _count,
    variables,
    average=config.retrain.ema_decay is not None,
  )


def last_state(
  config: Config, built: 'StandAloneExperiment', run: Path, seed: int
) -> 'TrainState':
  """After the last step of a seed.

  Args:
    config: of the experiment.
    built: from `build.stand_alone`, for the one architecture of the run.
    run: a directory of `jaxnas.retrain --arch`.
    seed: from 0.

  Raises FileNotFoundError where the run has not come there.
  """
  from jaxnas import supernets
  from jaxnas.training.checkpoint import Checkpoints

  last = config.retrain.epochs * built.training.steps_per_epoch
  folder = run / f'seed_{seed}' / 'checkpoints'
  if folder.is_dir():
    like = first_state(
      config, built, supernets.init(built.net, _some(built), 0)
    )
    with Checkpoints(folder, read_only=True) as checkpoints:
      if last in checkpoints.steps():
        return checkpoints.restore(last, like)[0]
  raise FileNotFoundError(
    f'{run} has no checkpoint of seed {seed} at step {last}, its last: finish '
    f'it with python -m jaxnas.retrain --workdir {run} --resume.'
  )


def _some(built: 'StandAloneExperiment') -> Int[np.ndarray, ' E']:
  """An architecture, for what is the same for all of them."""
  return np.zeros(built.space.positions, np.int32)


def _count(archs_PxE: Any) -> Any:
  return archs_PxE.shape[0]


def _fit_with_checkpoints(
  fit: 'Callable[..., TrainState]',
  state: 'TrainState',
  skipped: set[str],
  config: Config,
  folder: Path,
) -> 'TrainState':
  """From the newest good checkpoint in the folder to the end."""
  from jaxnas import build, logging_config
  from jaxnas.training.checkpoint import Checkpoints
  from jaxnas.training.metrics import MetricsFile

  with Checkpoints(
    folder / 'checkpoints',
    keep=config.checkpoint.keep,
    facts=build.facts(config),
    on_error=config.checkpoint.on_error,
  ) as checkpoints:
    window = []
    if found := checkpoints.newest(state):
      state, notes = found
      window = notes['window']
      skipped.update(notes['skipped'])
      print(f'{folder}: goes on at step {int(state.step)}')
    metrics = MetricsFile(
      folder / 'metrics.jsonl',
      int(state.step),
      logging_config.mirrors(config, folder),
    )
    return fit(
      state,
      save=lambda state, window: checkpoints.save(
        state, {'window': window, 'skipped': sorted(skipped)}
      ),
      record=metrics.write,
      window=window,
    )
