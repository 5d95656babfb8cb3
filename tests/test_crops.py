import io
import math
import random

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxnas.data import crops

SHAPES = [(500, 375), (64, 64), (40, 90), (1, 1), (1, 50), (50, 1), (3, 2)]


def encode(image, format, **options):
  file = io.BytesIO()
  image.save(file, format, **options)
  return file.getvalue()


def noise(width, height, seed=0):
  shape = (height, width, 3)
  return Image.fromarray(
    np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  )


def rng(seed=0):
  return np.random.default_rng(seed)


def test_png_is_decoded_exactly_and_jpeg_closely():
  image = noise(7, 5)
  decoded = crops.decode(encode(image, 'PNG'))
  assert decoded.mode == 'RGB' and decoded.size == (7, 5)
  np.testing.assert_array_equal(decoded, image)
  plain = Image.new('RGB', (16, 16), (200, 100, 50))
  decoded = crops.decode(encode(plain, 'JPEG', quality=95))
  assert abs(np.asarray(decoded, int) - np.asarray(plain, int)).max() <= 2


@pytest.mark.parametrize(
  ('image', 'format', 'pixel'),
  [
    (Image.new('L', (4, 4), 90), 'JPEG', (90, 90, 90)),
    (Image.new('CMYK', (4, 4), (0, 255, 255, 0)), 'JPEG', (255, 0, 0)),
    (Image.new('RGBA', (4, 4), (9, 8, 7, 3)), 'PNG', (9, 8, 7)),
    (Image.new('RGB', (4, 4), (9, 8, 7)).quantize(), 'PNG', (9, 8, 7)),
    (Image.fromarray(np.full((4, 4), 0x5AFF, np.uint16)), 'PNG', (90,) * 3),
  ],
)
def test_other_modes_become_rgb(image, format, pixel):
  decoded = np.asarray(crops.decode(encode(image, format)), int)
  assert decoded.shape == (4, 4, 3)
  assert abs(decoded - pixel).max() <= 2


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', '0 bytes, no image that Pillow'),
    (b'no image', '8 bytes, no image that Pillow'),
    (encode(noise(9, 9), 'EPS'), 'no image that Pillow'),
    (encode(noise(99, 99), 'JPEG')[:-3000], 'truncated'),
    (encode(noise(99, 99), 'PNG')[:-3000], 'truncated'),
    (encode(noise(9, 9), 'PNG').replace(b'IDAT', b'IDAX'), ''),
  ],
)
def test_what_is_no_whole_image_is_refused_in_one_line(content, message):
  with pytest.raises(ValueError, match=f'^[^\n]*{message}[^\n]*$'):
    crops.decode(content)


@pytest.mark.parametrize(
  'format', ['BMP', 'GIF', 'PPM', 'QOI', 'TGA', 'TIFF', 'WEBP']
)
def test_what_loses_nothing_is_decoded_exactly(format):
  image = noise(9, 7)
  if format == 'GIF':
    image = image.convert('L')
  lossless = {'lossless': True} if format == 'WEBP' else {}
  decoded = crops.decode(encode(image, format, **lossless))
  np.testing.assert_array_equal(decoded, image.convert('RGB'))


def test_grey_without_a_white_is_refused():
  for dtype in (np.float32, np.int32):
    stream = io.BytesIO()
    x_HxW = np.arange(12, dtype=dtype).reshape(3, 4) * 10**5
    Image.fromarray(x_HxW).save(stream, 'TIFF')
    with pytest.raises(
      ValueError, match=r'^grey (as floating|of 0 to 1100000)'
    ):
      crops.decode(stream.getvalue())


def test_suffixes_are_of_formats_that_are_decoded():
  assert {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.pgm'} <= {
    *crops.suffixes()
  }
  assert not {'.eps', '.pdf', '.wmf', '.h5', '.mpg'} & {*crops.suffixes()}


def test_damaged_images_raise_nothing_else():
  formats = ('PNG', 'JPEG', 'BMP', 'GIF', 'PPM', 'QOI', 'TGA', 'TIFF', 'WEBP')
  whole = [encode(noise(9, 9), format) for format in formats]
  generator, refused = rng(), 0
  for i in range(2000):
    content = bytearray(whole[i % len(whole)])
    for place in generator.integers(0, len(content), 3):
      content[place] = generator.integers(256)
    try:
      crops.decode(bytes(content))
    except ValueError:
      refused += 1
  assert 0 < refused < 2000


def test_a_decompression_bomb_is_refused(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40)
  with pytest.raises(ValueError, match=r'81 pixels.* exceeds limit'):
    crops.decode(encode(noise(9, 9), 'PNG'))


@pytest.mark.parametrize('shape', SHAPES)
def test_random_crops_are_within_bounds(shape):
  width, height = shape
  for seed in range(300):
    left, top, w, h = crops.crop_box(width, height, rng(seed))
    assert 0 <= left <= left + w <= width and w > 0
    assert 0 <= top <= top + h <= height and h > 0
    # Each side was rounded by half a pixel at most.
    assert (w + 0.5) / max(h - 0.5, 0.01) >= 3 / 4 or w == width
    assert (w - 0.5) / (h + 0.5) <= 4 / 3 or h == height
    if min(shape) > 30:
      assert (w + 0.5) * (h + 0.5) >= 0.08 * width * height


def slow_box(width, height, draws):
  """The recipe, in the words of its paper, from another generator."""
  while True:
    area = draws.uniform(0.08, 1.0) * width * height
    ratio = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
    # w * h = area and w / h = ratio.
    w = math.floor((area * ratio) ** 0.5 + 0.5)
    h = math.floor((area / ratio) ** 0.5 + 0.5)
    if w <= width and h <= height:
      return draws.randint(0, width - w), draws.randint(0, height - h), w, h


@pytest.mark.parametrize('shape', [(500, 375), (120, 160), (200, 200)])
def test_random_crops_are_distributed_as_the_recipe_says(shape):
  draws, generator = random.Random(1), rng(1)
  ours = np.array([crops.crop_box(*shape, generator) for _ in range(4000)])
  slow = np.array([slow_box(*shape, draws) for _ in range(4000)])
  for measure in (
    lambda b: b[:, 2] * b[:, 3],
    lambda b: b[:, 2] / b[:, 3],
    lambda b: b[:, 0],
    lambda b: b[:, 1],
    lambda b: b[:, 0] / np.maximum(shape[0] - b[:, 2], 1),
  ):
    assert stats.ks_2samp(measure(ours), measure(slow)).pvalue > 1e-3


@pytest.mark.parametrize(
  ('shape', 'box'),
  [
    ((1000, 10), (493, 0, 13, 10)),
    ((10, 1000), (0, 493, 10, 13)),
  ],
)
def test_an_image_that_no_crop_fits_is_cropped_centrally(shape, box):
  # 8 % of it is wider and higher than it is narrow, in every aspect.
  assert {crops.crop_box(*shape, rng(seed)) for seed in range(20)} == {box}


@pytest.mark.parametrize('size', [8, 40])
def test_a_random_crop_is_that_box_resized(size):
  image = noise(50, 40)
  for seed in range(10):
    left, top, w, h = crops.crop_box(50, 40, rng(seed))
    part = image.crop((left, top, left + w, top + h))
    np.testing.assert_array_equal(
      crops.random_resized_crop(image, rng(seed), size, flip=False),
      part.resize((size, size), Image.Resampling.BILINEAR),
    )


def test_half_of_the_random_crops_are_mirrored():
  image = noise(50, 40)
  mirrored = 0
  for seed in range(400):
    plain = crops.random_resized_crop(image, rng(seed), 8, flip=False)
    flipped = crops.random_resized_crop(image, rng(seed), 8, flip=True)
    if (flipped != plain).any():
      np.testing.assert_array_equal(flipped, plain[:, ::-1])
      mirrored += 1
  assert abs(mirrored - 200) < 50  # 5 standard deviations


@pytest.mark.parametrize('shape', [(240, 160), (160, 240), (224, 224)])
@pytest.mark.parametrize('size', [28, 30, 224])
def test_center_crop_is_the_middle_of_the_resized_image(shape, size):
  width, height = shape
  ramp = np.zeros((height, width, 3), np.uint8)
  ramp[..., 0] = np.arange(width)
  ramp[..., 1] = np.arange(height)[:, None]
  out = crops.center_crop(Image.fromarray(ramp), size)
  assert out.shape == (size, size, 3) and out.dtype == np.uint8
  # The shorter side becomes size / 0.875, and the middle of it is taken.
  pixels = min(shape) / round(size / 0.875)
  offsets = (np.arange(size) + 0.5 - size / 2) * pixels
  inside = slice(2, -2)
  for channel, length in ((0, width), (1, height)):
    expected = length / 2 + offsets - 0.5
    got = out[..., channel].astype(float)
    got = got if channel == 0 else got.T
    assert abs(got[:, inside] - expected[inside]).max() <= 1


def test_shrinking_averages_pixels():
  board = np.indices((80, 80)).sum(axis=0) % 2 * np.uint8(255)
  image = Image.fromarray(board.astype(np.uint8)).convert('RGB')
  for out in (
    crops.center_crop(image, 7),
    crops.random_resized_crop(image, rng(5), 4, flip=True),
  ):
    assert abs(out.astype(int) - 127).max() <= 12
