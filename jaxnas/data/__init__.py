"""Images: their sources, their division, preparation and batches."""

from collections.abc import Mapping
from typing import Any

from jaxnas.config import registry
from jaxnas.data import labels
from jaxnas.data.device import DeviceImages as DeviceImages
from jaxnas.data.device import augment as augment
from jaxnas.data.device import batch as batch
from jaxnas.data.device import epoch_order as epoch_order
from jaxnas.data.device import normalise as normalise
from jaxnas.data.division import divide as divide
from jaxnas.data.images import Images as Images
from jaxnas.data.photos import Photos as Photos
from jaxnas.data.pipeline import DataSet as DataSet
from jaxnas.data.pipeline import Normalise as Normalise
from jaxnas.data.pipeline import Split as Split
from jaxnas.data.pipeline import Training as Training
from jaxnas.data.pipeline import split as split
from jaxnas.data.pipeline import training as training
from jaxnas.data.pipeline import with_importance as with_importance
from jaxnas.data.pipeline import with_rewards as with_rewards
from jaxnas.data.placing import ON_ONE as ON_ONE
from jaxnas.data.placing import Placing as Placing
from jaxnas.data.skipped import SkippedImages as SkippedImages
from jaxnas.data.stream import OnError
from jaxnas.runtime import paths


def load(
  name: str,
  dir: str | None = None,
  *,
  size: int = 224,
  workers: int = 4,
  on_error: OnError = 'raise',
  options: Mapping[str, Any] | None = None,
) -> DataSet:
  """Reads a data set by name; a new one is a line in `registry.DATASETS`.

  Args:
    name: an entry of `registry.DATASETS`.
    dir: the folder or file where it is; digits needs none.
    size: height and width to which imagenet is cropped.
    workers: processes that decode imagenet; 0 for threads of this one.
    on_error: raise at an unreadable image of imagenet, or skip it.
    options: those of a data set that was registered from outside.

  Raises ValueError or FileNotFoundError, one line.
  """
  dir = dir and paths.absolute(dir)
  offered = {'dir': dir, 'size': size, 'workers': workers, 'on_error': on_error}
  loaded = registry.DATASETS.make(name, offered, options)
  where = f'data.name {name}' if dir is None else f'data.dir {dir}'
  labels.check_several(where, loaded.y_train)
  labels.check_learnable(where, loaded.y_train, loaded.y_test)
  return loaded
