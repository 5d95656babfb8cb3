"""What a search scores architectures by, and tells them apart by."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import (
  data_config,
  density,
  density_config,
  progress,
  ranking,
  samplers,
  streams,
  validation,
)
from jaxnas.training import optimizer, step
from jaxnas.training.checkpoint import Checkpoints

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Of supernet shifting (Zhang et al. 2024), all stated.
SHIFT_STEPS = 20
SHIFT_BATCH = 150
SHIFT_LR = 1e-4
SHIFT_MOMENTUM = 0.9
SHIFT_DECAY = 4e-5
SHIFT_SMOOTHING = 0.1


class Scorer(NamedTuple):
  """Accuracies of architectures, fractions, and what a search saves of it."""

  score: Callable[[Int[np.ndarray, 'N E']], Float[np.ndarray, ' N']]
  save: Callable[[], None] = lambda: None
  """After every generation."""


def fixed(
  experiment: 'Experiment', state: 'TrainState', poll: Callable[[], None]
) -> Scorer:
  """By the shared weights as they are."""
  return Scorer(
    lambda archs_NxE: ranking.accuracies(
      experiment, state, archs_NxE, label='scoring', poll=poll
    )
  )


@contextlib.contextmanager
def shifting(
  experiment: 'Experiment',
  state: 'TrainState',
  folder: Path,
  scored: int,
  *,
  seed: int,
  poll: Callable[[], None],
) -> Iterator[Scorer]:
  """By shared weights that first take 20 steps along the candidate.

  Supernet shifting (Zhang et al. 2024): the weights stay as they are then,
  and one optimizer serves the whole search (stated). Its learning rate is
  constant and its batches are augmented as in training (inferred).

  Args:
    experiment: whose net and images.
    state: of its training, from which the weights start.
    folder: of checkpoints, one a generation.
    scored: architectures that the search has scored before.
    seed: of the search; batches are a function of it and of how many were
      scored.
    poll: called before each candidate; may raise.
  """
  config, sampler = experiment.config, experiment.sampler
  loaded = data_config.images(config)
  train_T, _ = data_config.divide(config, loaded)
  smaller = dataclasses.replace(
    config.data, batch_size=min(SHIFT_BATCH, len(train_T))
  )
  batches = data_config.training(
    dataclasses.replace(config, data=smaller), loaded, train_T
  )
  updates = optimizer.sgd(
    lambda _: SHIFT_LR,
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
  inputs = batches.feed(streams.child(seed, 'shifting'), scored * SHIFT_STEPS)

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
      # What was not finite once is not finite any more after that.
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
  experiment: 'Experiment', state: 'TrainState', measure: Any, archs: int
) -> Callable[[Int[np.ndarray, 'N E']], Float[np.ndarray, 'N N']]:
  """Distances of architectures as a density measures them.

  Args:
    experiment: whose net and held-out images.
    state: of its training.
    measure: as `density.measure`; the other density fields are the run's,
      where this measure uses them.
    archs: at most so many at once.

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

  def compared(subject: density.Subject) -> density.Measure:
    return density_config.measure(
      config, subject.net, subject.params, subject.archs_AxE
    )

  def between(archs_NxE):
    subject = density_config.subject(experiment, state, archs_NxE)
    features = density.gather(
      subject, compared(subject), memory_gb=config.density.memory_gb
    )
    return density.matrix(compared(subject).distance, features)

  given = config.density
  validation.at_most(
    'density.batches * density.batch_size of the run',
    given.batches * given.batch_size,
    len(experiment.held_out.density),
    'validation images',
  )
  some = density_config.subject(
    experiment, state, experiment.ranking_archs_AxE[:1]
  )
  size = density.feature_bytes(
    compared(some),
    some.net,
    some.params,
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
