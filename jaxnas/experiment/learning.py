"""Builds the loss, its teacher and the optimizer that a config asks for."""

import dataclasses

import jax
import numpy as np

from jaxnas import spaces
from jaxnas.config import Optimizer
from jaxnas.config.registry import OPTIMIZERS
from jaxnas.experiment import own_code
from jaxnas.training import optimizer, paths


def updates(
  given: Optimizer, epochs: int, steps_per_epoch: int
) -> optimizer.Optimizer:
  """Returns the optimizer over so many epochs.

  Raises ValueError where the cycles of its learning rate do not divide them.
  """
  if epochs % given.cycles:
    raise ValueError(
      f'optimizer.cycles {given.cycles} does not divide {epochs} epochs into '
      'equal parts.'
    )
  schedule = optimizer.cosine(
    given.peak_lr,
    given.floor_lr,
    epochs * steps_per_epoch,
    warmup_steps=given.lr_warmup_steps,
    steps_per_update=1 if given.schedule == 'step' else steps_per_epoch,
    cycles=given.cycles,
  )
  offered = {
    **dataclasses.asdict(given),
    'schedule': schedule,
    'decay_all': given.decay == 'all',
  }
  return OPTIMIZERS.make(given.name, offered, given.options)


def loss(given: Optimizer, classes: int) -> paths.Loss | None:
  """Returns the loss of one's own; None where it is cross-entropy.

  Raises ValueError where it does not give a loss for each image.
  """
  logits_2xK = jax.ShapeDtypeStruct((2, classes), np.float32)
  return own_code.function(
    'optimizer.loss',
    given.loss,
    {'logits': logits_2xK, 'targets': logits_2xK},
    (2,),
  )


def teacher(given: Optimizer, space: spaces.Space) -> paths.Teacher | None:
  """Returns the architecture that others learn from, if they do.

  Raises ValueError where the space does not say which is the largest.
  """
  if given.distill is None:
    return None
  try:
    arch_E = space.largest()
  except TypeError as error:
    raise ValueError(
      f'optimizer.distill needs the largest architecture: {error}'
    ) from error
  return paths.Teacher(tuple(arch_E.tolist()), given.distill)
