"""Images: where they come from, how they are split, prepared and batched."""

from jaxnas.data.device import DeviceImages as DeviceImages
from jaxnas.data.device import augment as augment
from jaxnas.data.device import batch as batch
from jaxnas.data.device import epoch_order as epoch_order
from jaxnas.data.device import normalise as normalise
from jaxnas.data.images import NAMES as NAMES
from jaxnas.data.images import Images as Images
from jaxnas.data.images import load as load
from jaxnas.data.images import split as split
