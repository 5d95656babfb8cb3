"""Images without augmentation: to rank on, and to look at networks with."""

import numpy as np
from jaxtyping import Int

from jaxnas import data
from jaxnas.config import Config
from jaxnas.config.validation import at_most
from jaxnas.experiment import schedule
from jaxnas.experiment.parts import HeldOut
from jaxnas.nn import target
from jaxnas.runtime import rng

# Number of batches on which trees are built anew (Roshtkhari et al. 2025).
REBUILD_BATCHES = 3

# Number of batches on which statistics are recalibrated, by default.
CALIBRATION_BATCHES = 20


def splits(
  config: Config,
  loaded: data.DataSet,
  train_T: Int[np.ndarray, ' T'],
  validation_V: Int[np.ndarray, ' V'],
) -> HeldOut:
  """Takes what a config asks for from training, validation and test images.

  Raises ValueError where there are not so many.
  """
  part = 'test' if config.ranking.split == 'test' else 'train'
  pool_M = np.arange(len(loaded.y_test)) if part == 'test' else validation_V
  if not len(pool_M):
    raise ValueError(
      'there are no validation images to rank on: lower data.train_fraction, '
      'or set ranking.split test.'
    )
  wanted = config.ranking.images or len(pool_M)
  at_most('ranking.images', wanted, len(pool_M), 'images')
  needed = config.density.batches * config.density.batch_size
  if schedule.estimates_density(config):
    at_most(
      'density.batches * density.batch_size',
      needed,
      len(validation_V),
      'validation images',
    )
  calibrating, batch = 0, config.data.batch_size
  if config.ranking.bn == 'recalibrate':
    batches = config.ranking.calibration_batches
    calibrating = batch * (
      batches or min(CALIBRATION_BATCHES, len(train_T) // batch)
    )
    at_most(
      'ranking.calibration_batches * data.batch_size',
      calibrating,
      len(train_T),
      'training images',
    )
  dtype = target.dtype(config.precision)

  def first(part, name, pool_M, count):
    order_M = rng.generator(config.split_seed, name).permutation(pool_M)
    return data.split(loaded, part, order_M[:count], dtype)

  return HeldOut(
    ranking=first(part, 'ranking', pool_M, wanted),
    density=first('train', 'density', validation_V, needed),
    rebuild=first('train', 'rebuild', validation_V, REBUILD_BATCHES * batch),
    calibration=first('train', 'calibration', train_T, calibrating),
  )
