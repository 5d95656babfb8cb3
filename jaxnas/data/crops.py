"""Decodes images, and crops them by ImageNet's usual recipe."""

import functools
import io
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnas.runtime import words

AREA = (0.08, 1.0)
"""Smallest and largest area of a random crop, as a part of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest width of a random crop, divided by its height."""
CENTRAL = 0.875
"""Side of the central crop, as a part of the image's shorter side."""
_TRIES = 10

# What Pillow decodes by itself and cameras, scanners and the web write. It
# starts another program for EPS, for instance, and only names others.
FORMATS = (
  'AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG',
  'PPM', 'QOI', 'SGI', 'TGA', 'TIFF', 'WEBP',
)  # fmt: skip


@functools.cache
def suffixes() -> tuple[str, ...]:
  """Returns the ends of names of images, in lower case."""
  known = Image.registered_extensions()
  return tuple(sorted(end for end in known if known[end] in FORMATS))


def decode(content: bytes) -> Image.Image:
  """Decodes a file of an image to RGB; converts grey and CMYK, drops alpha.

  Of several pictures in a file the first counts. JPEG's own decoding at a half
  or a quarter of the size (PIL's draft) is left out: it changes the pixels, and
  few crops of ImageNet are twice the size of the network's input.

  Raises ValueError for bytes that are no whole image, too large a one, or one
  whose numbers have no white.
  """
  try:
    # Formats that this build of Pillow lacks are left out.
    known = [name for name in FORMATS if name in _openers()]
    image = Image.open(io.BytesIO(content), formats=known)
    if image.mode.startswith('I'):
      # PIL would clip grey of 16 bits to 8.
      x_HxW = np.asarray(image)
      if x_HxW.min() < 0 or x_HxW.max() >= 2**16:
        raise ValueError(f'grey of {x_HxW.min()} to {x_HxW.max()}')
      image = Image.fromarray((x_HxW >> 8).astype(np.uint8))
    if image.mode == 'F':
      raise ValueError('grey as floating-point numbers')
    return image.convert('RGB')
  except Image.UnidentifiedImageError:
    raise ValueError(
      f'{words.counted(len(content), "byte")}, no image that Pillow reads'
    ) from None
  except Exception as error:
    # Decoders of so many formats raise anything at damaged files.
    raise ValueError(
      ' '.join(str(error).split()) or type(error).__name__
    ) from error


@functools.cache
def _openers() -> frozenset[str]:
  Image.init()
  return frozenset(Image.OPEN)


def random_resized_crop(
  image: Image.Image, rng: np.random.Generator, size: int, *, flip: bool
) -> UInt8[np.ndarray, 'H W C']:
  """Returns a random part of the image as size x size pixels.

  Args:
    image: RGB.
    rng: gives at most four numbers a try, and one for the mirror.
    size: height and width of the result.
    flip: mirror half of the crops.
  """
  left, top, width, height = crop_box(*image.size, rng)
  # With a box, `resize` would mix in pixels beside it, as `center_crop` does.
  part = image.crop((left, top, left + width, top + height))
  x_HxWxC = _resize(part, size)
  if flip and rng.random() < 0.5:
    x_HxWxC = np.ascontiguousarray(x_HxWxC[:, ::-1])
  return x_HxWxC


def crop_box(
  width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
  """Draws left, top, width and height of a crop in pixels.

  The area is uniform in AREA, the aspect log-uniform in ASPECT, the place
  uniform. After ten tries that do not fit, it is the largest central crop of an
  aspect in ASPECT.
  """
  for _ in range(_TRIES):
    area = width * height * rng.uniform(*AREA)
    aspect = math.exp(rng.uniform(*np.log(ASPECT)))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      left, top = rng.integers(0, [width - w + 1, height - h + 1]).tolist()
      return left, top, w, h
  w = min(width, max(1, round(height * ASPECT[1])))
  h = min(height, max(1, round(width / ASPECT[0])))
  return (width - w) // 2, (height - h) // 2, w, h


def center_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, 'H W C']:
  """Crops the central square, as if the shorter side were size / 0.875."""
  width, height = image.size
  side = min(width, height) * size / round(size / CENTRAL)
  left, top = (width - side) / 2, (height - side) / 2
  return _resize(image, size, (left, top, left + side, top + side))


def _resize(
  image: Image.Image,
  size: int,
  box: tuple[float, float, float, float] | None = None,
) -> UInt8[np.ndarray, 'H W C']:
  """Resizes bilinearly, averaging all pixels that become one."""
  return np.asarray(
    image.resize((size, size), Image.Resampling.BILINEAR, box=box)
  )
