"""Images: where they come from, how they are split, prepared and batched."""

from pathlib import Path

from jaxnas import names
from jaxnas.data import images, photos
from jaxnas.data.device import DeviceImages as DeviceImages
from jaxnas.data.device import augment as augment
from jaxnas.data.device import batch as batch
from jaxnas.data.device import epoch_order as epoch_order
from jaxnas.data.device import normalise as normalise
from jaxnas.data.division import divide as divide
from jaxnas.data.images import Images as Images
from jaxnas.data.photos import Photos as Photos
from jaxnas.data.pipeline import DataSet as DataSet
from jaxnas.data.pipeline import Split as Split
from jaxnas.data.pipeline import Training as Training
from jaxnas.data.pipeline import split as split
from jaxnas.data.pipeline import training as training
from jaxnas.data.pipeline import with_importance as with_importance
from jaxnas.data.pipeline import with_rewards as with_rewards
from jaxnas.data.placing import ON_ONE as ON_ONE
from jaxnas.data.placing import Placing as Placing
from jaxnas.data.stream import OnError

NAMES = (*images.NAMES, 'imagenet')


def load(
  name: str,
  dir: str | None = None,
  *,
  size: int = 224,
  workers: int = 4,
  on_error: OnError = 'raise',
) -> DataSet:
  """A data set by name; the options are those of 'imagenet'.

  Args:
    name: one of `NAMES`.
    dir: where it is; as in `images.load`, and for imagenet as in
      `encoded.load`.
    size: height and width to which images are cropped.
    workers: processes that decode; 0 for threads of this one.
    on_error: whether an unreadable image is an error or is replaced.

  Raises as those functions do.
  """
  names.check('data.name', name, NAMES)
  if name != 'imagenet':
    return images.load(name, dir)
  if dir is None:
    raise FileNotFoundError(
      'data.name imagenet needs --data.dir: a folder with train/CLASS/FILE '
      'and val/CLASS/FILE, or an ArrayRecord data set of tfds.'
    )
  return photos.load(Path(dir), size=size, workers=workers, on_error=on_error)
