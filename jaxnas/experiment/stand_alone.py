"""Training one architecture after another from scratch."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import samplers, supernets
from jaxnas.config import digest
from jaxnas.experiment import build, schedule, trackers
from jaxnas.experiment.parts import StandAlone
from jaxnas.runtime import errors
from jaxnas.runtime.preemption import Preemption
from jaxnas.runtime.rng import child_seed
from jaxnas.supernets import evaluation
from jaxnas.training import loop, step
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.metrics import MetricsFile
from jaxnas.training.step import TrainState

# (arch_E, seed) -> accuracy on the test images.
Trainer = Callable[[Int[np.ndarray, ' E'], int], float]


def make_trainer(
  built: StandAlone,
  workdir: Path | Callable[[], Path] | None,
  preemption: Preemption,
  *,
  note: Callable[[], None] = lambda: None,
) -> Trainer:
  """Returns what trains an architecture, by one compiled program for all.

  The stand-alone network is the supernet's definition with affine batch
  normalisation and running statistics. A seed is an experiment of its own,
  whatever the architecture: parameters of the same name start alike.

  Args:
    built: from `build.stand_alone`.
    workdir: gets a folder a seed, with metrics.jsonl and checkpoints from
      which a run goes on; None keeps neither. A function is asked for it at
      each training.
    preemption: an active one; signals end training by Stopped.
    note: called before a checkpoint is kept, and after training.
  """
  config, net = built.config, built.net
  batches, space = built.training, built.space
  step_fn = step.make_step(
    net,
    samplers.fixed(space.positions),
    built.optimizer,
    batches,
    _count,
    seed=config.seed,
    label_smoothing=config.optimizer.label_smoothing,
    loss=built.loss,
    ema_decay=config.retrain.ema_decay or 0.0,
  )

  @functools.cache
  def fresh(seed: int) -> Any:
    return supernets.init(net, _any_arch(built), seed)

  @errors.memory_of('data.batch_size')
  def trainer(arch_E: Int[np.ndarray, ' E'], seed: int) -> float:
    own_seed = child_seed(config.seed, 'retrain', seed)
    state = first_state(built, fresh(own_seed))
    state = dataclasses.replace(state, sampler=arch_E[None])
    fit = functools.partial(
      loop.fit,
      step_fn=step_fn,
      feed=functools.partial(batches.feed, own_seed),
      schedule=schedule.of_stand_alone(config, batches.steps_per_epoch),
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
        folder = workdir() if callable(workdir) else workdir
        state = _fit_with_checkpoints(
          fit, state, built, folder / f'seed_{seed}', note
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
    note()
    return float(accuracy)

  return trainer


def first_state(built: StandAlone, variables: Any) -> TrainState:
  """Returns the state before the first step, along the zeroth architecture.

  Args:
    built: from `build.stand_alone`.
    variables: of its net, from `supernets.init`.
  """
  return step.init_state(
    built.net,
    samplers.fixed(built.space.positions),
    built.optimizer,
    _count,
    variables,
    average=built.config.retrain.ema_decay is not None,
  )


def last_state(built: StandAlone, run: Path, seed: int) -> TrainState:
  """Returns the state after the last step of a seed.

  Args:
    built: from `build.stand_alone`, for the one architecture of the run.
    run: a directory of `jaxnas.retrain --arch`.
    seed: counted from 0.

  Raises FileNotFoundError where the run has not come there.
  """
  last = built.config.retrain.epochs * built.training.steps_per_epoch
  folder = run / f'seed_{seed}' / 'checkpoints'
  if folder.is_dir():
    like = first_state(built, supernets.init(built.net, _any_arch(built), 0))
    with Checkpoints(folder, read_only=True) as checkpoints:
      if last in checkpoints.steps():
        return checkpoints.restore(last, like)[0]
  raise FileNotFoundError(
    f'{run} has no checkpoint of seed {seed} at step {last}, its last: finish '
    f'it with python -m jaxnas.retrain --workdir {run} --resume.'
  )


def _any_arch(built: StandAlone) -> Int[np.ndarray, ' E']:
  """Returns an architecture, for what is the same for all of them."""
  return np.zeros(built.space.positions, np.int32)


def _count(archs_PxE: Any) -> Any:
  return archs_PxE.shape[0]


def _fit_with_checkpoints(
  fit: Callable[..., TrainState],
  state: TrainState,
  built: StandAlone,
  folder: Path,
  note: Callable[[], None],
) -> TrainState:
  """Trains from the newest good checkpoint in the folder to the end."""
  config, skipped = built.config, built.skipped
  with (
    Checkpoints(
      folder / 'checkpoints',
      keep=config.checkpoint.keep,
      metadata=build.metadata(config),
      on_error=config.checkpoint.on_error,
    ) as checkpoints,
    MetricsFile(
      folder / 'metrics.jsonl',
      trackers.mirrors(config, folder, folder.parent),
      of=digest(config),
    ) as metrics,
  ):
    window = []
    if found := checkpoints.newest(state):
      state, notes = found
      window = notes['window']
      skipped.add(notes['skipped'])
      print(f'{folder}: goes on at step {int(state.step)}')
    metrics.go_on_from(int(state.step))

    def save(state: TrainState, window: Any) -> None:
      note()
      checkpoints.save(state, {'window': window, 'skipped': [*skipped]})

    return fit(
      state,
      save=save,
      record=metrics.write,
      window=window,
    )
