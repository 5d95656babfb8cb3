"""Scores and distances of architectures, for a search."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import density, samplers
from jaxnas.config import validation
from jaxnas.experiment import datasets, densities, ranking
from jaxnas.experiment.parts import Experiment
from jaxnas.nn import target
from jaxnas.runtime import progress
from jaxnas.runtime.rng import child_seed
from jaxnas.training import optimizer, step
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import TrainState

# Settings of supernet shifting (Zhang et al. 2024), all stated.
SHIFT_STEPS = 20
SHIFT_BATCH = 150
SHIFT_LR = 1e-4
SHIFT_MOMENTUM = 0.9
SHIFT_DECAY = 4e-5
SHIFT_SMOOTHING = 0.1


class Scorer(NamedTuple):
  """A score of architectures, and its part in what a search saves."""

  score: Callable[[Int[np.ndarray, 'N E']], Float[np.ndarray, ' N']]
  save: Callable[[], None] = lambda: None
  """Called after every generation."""


def fixed(
  experiment: Experiment,
  states: Sequence[TrainState],
  poll: Callable[[], None],
) -> Scorer:
  """Returns a scorer by the mean over states, which stay as they are."""

  def score(archs_NxE):
    accuracy_SxN = [
      ranking.accuracies(
        experiment, state, archs_NxE, label='scoring', poll=poll
      )
      for state in states
    ]
    return np.mean(accuracy_SxN, axis=0)

  return Scorer(score)


@contextlib.contextmanager
def shifting(
  experiment: Experiment,
  state: TrainState,
  folder: Path,
  scored: int,
  *,
  seed: int,
  poll: Callable[[], None],
) -> Iterator[Scorer]:
  """Yields a scorer by shared weights that first take 20 steps along an arch.

  This is supernet shifting (Zhang et al. 2024): the weights keep the steps,
  and one optimizer serves the whole search (stated). Its learning rate is
  constant and its batches are augmented as in training (inferred).

  Args:
    experiment: its net and images score.
    state: the state of its training from which the weights start.
    folder: a folder of checkpoints, one a generation.
    scored: number of architectures that the search has scored before.
    seed: the seed of the search; batches are a function of it and of
      `scored`.
    poll: called before each candidate; may raise.
  """
  config, sampler = experiment.config, experiment.sampler
  loaded = datasets.load(config.data)
  train_T, _ = datasets.divide(loaded, config.data, config.split_seed)
  smaller = dataclasses.replace(
    config.data, batch_size=min(SHIFT_BATCH, len(train_T))
  )
  batches = datasets.training(
    loaded, train_T, smaller, target.dtype(config.precision)
  )
  updates = optimizer.Sgd(
    SHIFT_LR,
    momentum=SHIFT_MOMENTUM,
    weight_decay=SHIFT_DECAY,
    decay_all=False,
  )
  some_1xF = sampler.route(
    state.sampler, np.zeros((1, experiment.space.positions), np.int32)
  )
  given, net = samplers.fixed(some_1xF.shape[1]), experiment.trained_net

  def count(archs_PxE):
    return jnp.zeros((), jnp.int32)

  step_fn = step.make_step(
    net,
    given,
    updates,
    batches,
    count,
    seed=seed,
    label_smoothing=SHIFT_SMOOTHING,
  )
  # Placed alike, new or restored, or the step would be compiled again.
  place = jax.local_devices()[0]
  shifted = jax.device_put(
    step.init_state(net, given, updates, count, state.variables), place
  )
  inputs = batches.feed(child_seed(seed, 'shifting'), scored * SHIFT_STEPS)

  def score(archs_NxE):
    nonlocal shifted
    routed_NxF = sampler.route(state.sampler, archs_NxE)
    accuracies = []
    for arch_E, arch_F in zip(
      progress.track(archs_NxE, 'shifting', len(archs_NxE), poll),
      routed_NxF,
      strict=True,
    ):
      shifted = dataclasses.replace(
        shifted, sampler=jax.device_put(arch_F[None], place)
      )
      values = None
      for _ in range(SHIFT_STEPS):
        shifted, values = step_fn(shifted, next(inputs))
      # A loss that was not finite once stays so.
      if values is not None and not np.isfinite(values.loss):
        raise ArithmeticError(
          f'{experiment.space.format(arch_E)}: the loss was not finite while '
          'weights were shifted along it. --searcher evolution shifts none.'
        )
      now = dataclasses.replace(
        state,
        params=shifted.params,
        statistics=shifted.statistics,
        average={},
      )
      accuracies += ranking.accuracies(
        experiment, now, arch_E[None], label=None
      ).tolist()
    return np.array(accuracies)

  with Checkpoints(folder) as checkpoints, contextlib.closing(inputs):
    if scored:
      shifted, _ = checkpoints.restore(scored * SHIFT_STEPS, shifted)
    yield Scorer(score, lambda: checkpoints.save(shifted, {}, wait=True))


def distance(
  experiment: Experiment, state: TrainState, measure: Any, archs: int
) -> Callable[[Int[np.ndarray, 'N E']], Float[np.ndarray, 'N N']]:
  """Returns a function that measures distances as a density does.

  Args:
    experiment: its net and held-out images measure.
    state: a state of its training.
    measure: a name, as `density.measure`; the other density fields are the
      run's, where this measure uses them.
    archs: the most architectures of a call.

  Raises ValueError where the net has nothing that is asked for, images are
  missing, or features exceed the run's memory.
  """
  config = validation.without_unused(
    dataclasses.replace(
      experiment.config,
      density=dataclasses.replace(experiment.config.density, measure=measure),
    ),
    'density',
  )

  def compared(snapshot: density.Snapshot) -> density.Measure:
    return densities.measure(
      config.density, snapshot.net, snapshot.params, snapshot.archs_AxE
    )

  def between(archs_NxE):
    snapshot = densities.snapshot(experiment, state, archs_NxE)
    features = density.gather(
      snapshot, compared(snapshot), memory_gb=config.density.memory_gb
    )
    return density.matrix(compared(snapshot).distance, features)

  given = config.density
  validation.at_most(
    'density.batches * density.batch_size of the run',
    given.batches * given.batch_size,
    len(experiment.held_out.density),
    'validation images',
  )
  subset = densities.snapshot(
    experiment, state, experiment.ranking_archs_AxE[:1]
  )
  size = density.feature_bytes(
    compared(subset),
    subset.net,
    subset.params,
    archs,
    given.batches,
    given.batch_size,
  )
  if size > given.memory_gb * 1e9:
    raise ValueError(
      f'--distance {measure} of {archs} architectures takes {size / 1e9:.3g} '
      f"GB, more than the run's density.memory_gb {given.memory_gb:g}: lower "
      '--population, or choose another --distance.'
    )
  return between
