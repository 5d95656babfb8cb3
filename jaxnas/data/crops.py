"""Bytes to pixels: decoding, and the crops of ImageNet's usual recipe."""

import io
import math
import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

AREA = (0.08, 1.0)
"""Of a random crop, as a part of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random crop."""
CENTRAL = 0.875
"""Side of the central crop, as a part of the image's shorter side."""
_TRIES = 10


def decode(content: bytes) -> Image.Image:
  """A JPEG or PNG file as RGB, grey and CMYK converted, alpha dropped.

  JPEG's own decoding at a half or a quarter of the size (PIL's draft) is left
  out: it changes the pixels, and few crops of ImageNet are twice the size of
  the network's input.

  Raises ValueError where that is no whole image, or is too large to be one.
  """
  try:
    image = Image.open(io.BytesIO(content), formats=['JPEG', 'PNG'])
    if image.mode.startswith('I'):
      # Grey of 16 bits, which PIL would clip to 8.
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert('RGB')
  except Image.UnidentifiedImageError:
    raise ValueError(
      f'{len(content):,} bytes that are no JPEG or PNG'
    ) from None
  except (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,  # so does PIL report a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
  ) as error:
    raise ValueError(' '.join(str(error).split())) from error


def random_resized_crop(
  image: Image.Image, rng: np.random.Generator, size: int, *, flip: bool
) -> UInt8[np.ndarray, 'H W C']:
  """A random part of the image as size x size pixels; may be mirrored.

  Args:
    image: RGB.
    rng: four numbers a try at most, and one for the mirror.
    size: of the result.
    flip: mirror half of the crops.
  """
  left, top, width, height = crop_box(*image.size, rng)
  # A box of `resize` would let pixels beside it in, as `center_crop` has to.
  part = image.crop((left, top, left + width, top + height))
  x_HxWxC = _resize(part, size)
  if flip and rng.random() < 0.5:
    x_HxWxC = np.ascontiguousarray(x_HxWxC[:, ::-1])
  return x_HxWxC


def crop_box(
  width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
  """Left, top, width and height of a crop in pixels.

  Area uniform in AREA, aspect log-uniform in ASPECT, place uniform; after ten
  tries that do not fit, the largest central crop of an aspect in ASPECT.
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
  """The central square, as if the shorter side became size / 0.875 first."""
  width, height = image.size
  side = min(width, height) * size / round(size / CENTRAL)
  left, top = (width - side) / 2, (height - side) / 2
  return _resize(image, size, (left, top, left + side, top + side))


def _resize(
  image: Image.Image,
  size: int,
  box: tuple[float, float, float, float] | None = None,
) -> UInt8[np.ndarray, 'H W C']:
  """Bilinear, and over as many pixels as become one."""
  return np.asarray(
    image.resize((size, size), Image.Resampling.BILINEAR, box=box)
  )
