"""Training replayed to the step where a value was not finite."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.config import Config
from jaxnas.experiment import build, contents, density_log, run, schedule
from jaxnas.experiment.dump import Dump
from jaxnas.experiment.parts import Experiment
from jaxnas.experiment.stand_alone import make_trainer
from jaxnas.runtime import rng
from jaxnas.runtime.preemption import Preemption
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.digests import named
from jaxnas.training.step import TrainState

# Number of tensors that a line names.
NAMED = 5


class Passed(Exception):
  """Raised when the step was replayed and all was finite."""


class Inputs(NamedTuple):
  """The inputs of the failing step."""

  experiment: Experiment
  state: TrainState
  inputs: Any


def of_supernet(
  about: Dump,
  config: Config,
  folder: Path,
  scratch: Path,
  kept: list[Inputs],
) -> Callable[[], Any]:
  """Builds a run that has dumped; returns what replays it.

  Args:
    about: the dump.
    config: the experiment of the run.
    folder: the dump's folder, which holds its checkpoint.
    scratch: a folder for what the run writes on its way.
    kept: gets the inputs of the failing step.

  The function returned raises what the run raised, or `Passed`.
  """
  experiment = build.experiment(config)
  contents.check(folder, experiment.images)
  state = experiment.init_state()
  if about.checkpoint is not None:
    with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
      state, _ = checkpoints.restore(about.checkpoint, state)

  def step(state: TrainState, inputs: Any):
    at = int(state.step)
    if at == about.step:
      kept.append(Inputs(experiment, jax.tree.map(jnp.copy, state), inputs))
    if at > about.step + 1:
      raise Passed
    return experiment.step_fn(state, inputs)

  def before_epoch(state: TrainState, epoch: int) -> TrainState:
    density_log.write(experiment, state, epoch, scratch)
    return run.adapt(experiment, state, epoch, scratch)

  def replay() -> None:
    last = loop.fit(
      state,
      step,
      functools.partial(experiment.training.feed, config.seed),
      schedule.of_training(config, experiment.training.steps_per_epoch),
      before_epoch=before_epoch,
      save=lambda state, window: None,
      record=lambda step, row: None,
      images_per_step=config.data.batch_size * experiment.paths,
      guessing_loss=np.inf,
      preemption=Preemption(),
      label='replaying',
    )
    density_log.write(experiment, last, config.total_epochs, scratch)
    raise Passed

  return replay


def stand_alone(
  about: Dump,
  config: Config,
  folder: Path,
  scratch: Path,
  kept: list[Inputs],
) -> Callable[[], Any]:
  """Does the same for an architecture alone, which is trained anew."""
  del scratch, kept
  (arch,) = about.archs
  assert about.seed is not None
  seed = about.seed
  built = build.stand_alone(config, None if about.all else arch)
  contents.check(folder, built.images)
  trainer = make_trainer(built, None, Preemption())

  def replay() -> None:
    trainer(built.space.parse(arch), seed)
    raise Passed

  return replay


def describe(
  experiment: Experiment, state: TrainState, inputs: Any
) -> Iterator[str]:
  """Yields what a step computes before its update, a line a path."""
  images, net = experiment.training, experiment.trained_net
  yield 'before it: ' + _tensors(named(state.params), 'parameters')
  _, indices_B = images.order.draw(state.images, inputs, state.step)
  x_BxHxWxC, y_B = images.batch(inputs, state.step, indices_B)
  archs_PxE = experiment.sampler.sample(
    state.sampler, rng.key(experiment.config.seed, 'archs', state.step)
  )

  @jax.jit
  def of_path(params, statistics, arch_E):
    def loss(params):
      logits_BxK, _ = net.apply(
        {'params': params, **statistics},
        x_BxHxWxC,
        arch_E,
        train=True,
        mutable=['batch_stats'],
      )
      return optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits_BxK, jnp.float32), y_B
      ).mean()

    return jax.value_and_grad(loss)(params)

  for arch_E in np.asarray(archs_PxE):
    loss, gradient = of_path(state.params, state.statistics, arch_E)
    arch = experiment.space.format(arch_E[: experiment.space.positions])
    found = _tensors(named(gradient), 'gradients')
    yield f'{arch}: loss {float(loss):.6g}; {found}'


def _tensors(leaves: dict[str, Any], what: str) -> str:
  """Names the leaves that are not finite, and the largest of the others."""
  arrays = {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}
  bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
  largest = {
    name: float(np.abs(array).max())
    for name, array in arrays.items()
    if name not in bad and array.size
  }
  name = max(largest, key=lambda name: largest[name], default=None)
  more = f' and {len(bad) - NAMED} more' if len(bad) > NAMED else ''
  return '; '.join(
    [
      f'{what} that are not finite: {", ".join(bad[:NAMED])}{more}'
      if bad
      else f'all {what} are finite',
      *([] if name is None else [f'largest {largest[name]:.3g} in {name}']),
    ]
  )
