"""Weights to export: of a supernet, or of a network trained alone.

Both functions check first, and give what then does the work.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import (
  artifact,
  build,
  data,
  recalibration,
  runs,
  stand_alone,
  supernets,
  trained,
)
from jaxnas.config import Config
from jaxnas.retrain import RESULT


class Source(NamedTuple):
  """A network to hand over, and what it must be equal to."""

  alone: supernets.StandAlone
  variables: dict[str, Any]
  expected: Callable[[Any], Any]
  """Normalised images -> logits, as the run itself computes them."""
  held_out: data.Split
  split: str
  """Which images those are."""
  facts: dict[str, Any]
  """Where the weights come from, ready for JSON."""


def inherited(
  run: Path, config: Config, arch: str, batches: int | None
) -> Callable[[], Source]:
  """The part of a supernet that an architecture uses, recalibrated.

  Args:
    run: of jaxnas.train.
    config: of the run.
    arch: in the space's notation.
    batches: training batches that statistics are measured on; None: as many
      as a ranking takes.

  Raises ValueError or FileNotFoundError, one line.
  """
  ranking = dataclasses.replace(
    trained.ranking_of(config), bn='recalibrate', calibration_batches=batches
  )
  experiment, state = trained.load(run, config, ranking)
  net, space = experiment.net, experiment.space
  images, params = experiment.held_out.calibration, state.params
  arch_E = space.parse(arch)
  (routed_F,) = np.asarray(
    experiment.sampler.route(state.sampler, arch_E[None])
  )
  indices_NxB = np.arange(len(images)).reshape(-1, config.data.batch_size)
  facts: dict[str, Any] = {
    'from': 'inherited',
    'run': str(run),
    'step': int(state.step),
    'calibration_batches': len(indices_NxB),
    'calibration_images': len(images),
  }
  if len(routed_F) > len(arch_E):
    facts['member'] = int(routed_F[-1])

  def make() -> Source:
    frozen = jax.jit(functools.partial(recalibration.statistics, net))(
      params,
      routed_F,
      jnp.stack([images.batch(indices_B)[0] for indices_B in indices_NxB]),
    )
    logits = jax.jit(functools.partial(recalibration.logits, net))
    alone = artifact.network(
      space, tuple(arch_E.tolist()), net.dtype, config.supernet.activation
    )
    member, of_member, _ = supernets.of_arch(net, params, routed_F)
    return Source(
      alone,
      artifact.inherit(alone, member, of_member, frozen),
      lambda x_BxHxWxC: logits(params, frozen, x_BxHxWxC, routed_F),
      experiment.held_out.ranking,
      config.ranking.split,
      facts,
    )

  return make


def retrained(
  run: Path, config: Config, arch: str, seed: int
) -> Callable[[], Source]:
  """All of a network, with its running statistics, averaged where that is.

  Args:
    run: of jaxnas.retrain, of one architecture.
    config: of the run.
    arch: in the space's notation.
    seed: which of the run's.

  Raises ValueError or FileNotFoundError, one line.
  """
  if not 0 <= seed < config.retrain.seeds:
    raise ValueError(
      f'--seed is {seed}; {run} has 0 to {config.retrain.seeds - 1}.'
    )
  if not (run / RESULT).exists():
    raise FileNotFoundError(
      f'{run} is not done (no {RESULT}): finish it with python -m '
      f'jaxnas.retrain --workdir {run} --resume.'
    )
  result = runs.read_json(run / RESULT, {'seeds': list})
  if len(result['seeds']) <= seed:
    raise runs.Damaged(
      f'{run / RESULT} has accuracies of {len(result["seeds"])} seeds, none of '
      f'seed {seed}: retrain it, or choose another --seed.'
    )
  built = build.stand_alone(config, arch)
  state = stand_alone.last_state(config, built, run, seed)
  logits = jax.jit(functools.partial(artifact.logits, built.net))
  source = Source(
    built.net,
    state.variables,
    lambda x_BxHxWxC: logits(state.variables, x_BxHxWxC),
    built.test,
    'test',
    {
      'from': 'retrained',
      'run': str(run),
      'step': int(state.step),
      'seed': seed,
      'moving_average': bool(state.average),
      'test_accuracy': result['seeds'][seed],
    },
  )
  return lambda: source
