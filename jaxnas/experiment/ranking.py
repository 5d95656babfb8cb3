"""Architectures are evaluated under the shared weights, to rank them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import data
from jaxnas.config import Ranking
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors
from jaxnas.supernets import evaluation
from jaxnas.training.step import TrainState


def accuracies(*args: Any, **options: Any) -> Float[np.ndarray, ' A']:
  """Returns accuracies, fractions, under the shared weights of a state.

  Arguments are those of `right`.
  """
  return right(*args, **options).mean(axis=1)


def right(
  experiment: Experiment,
  state: TrainState,
  archs_AxE: Int[np.ndarray, 'A E'],
  *,
  split: data.Split | None = None,
  batch_size: int | None = None,
  **options: Any,
) -> evaluation.Right:
  """Says of each architecture which images the weights of a state have right.

  Normalisation is as `ranking.bn` says.

  Args:
    experiment: its net evaluates, and its sampler routes.
    state: a state of its training.
    archs_AxE: any architectures.
    split: the images; None: those of the ranking.
    batch_size: the most images in a batch; None: `ranking.batch_size`.
    options: passed on to `evaluation.right`.
  """
  given, split = experiment.config.ranking, split or experiment.held_out.ranking
  net: Any = experiment.net
  variables = {'params': state.params}
  calibration = None
  if given.bn == 'running':
    net, variables = experiment.trained_net, {**variables, **state.statistics}
  if given.bn == 'recalibrate':
    images = experiment.held_out.calibration
    starts = range(0, len(images), experiment.config.data.batch_size)
    batches = np.split(np.arange(len(images)), starts[1:])
    calibration = jnp.stack([images.batch(b_B)[0] for b_B in batches])
  with errors.memory_of(f'{"data" if batch_size else "ranking"}.batch_size'):
    return evaluation.right(
      net,
      variables,
      experiment.sampler.route(state.sampler, archs_AxE),
      split.batch,
      len(split),
      batch_size=batch_size or given.batch_size,
      calibration=calibration,
      **options,
    )


def settings(experiment: Experiment) -> dict[str, Any]:
  """Returns the settings of an evaluation, ready for JSON."""
  config, held_out = experiment.config, experiment.held_out
  out: dict[str, Any] = {
    'space': config.space,
    'split': config.ranking.split,
    'images': len(held_out.ranking),
    'bn': config.ranking.bn,
  }
  if config.ranking.average != Ranking.average:
    out['average'] = config.ranking.average
  if config.ranking.bn == 'recalibrate':
    out['calibration_images'] = len(held_out.calibration)
  return out
