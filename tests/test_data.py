import dataclasses
import hashlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxnas import data
from jaxnas.data import cifar, cifar_records
from jaxnas.nn import target
from jaxnas.runtime.rng import generator

KEY = jax.random.key(3)
augment = jax.jit(data.augment, static_argnames=('crop_padding', 'flip'))
batch = jax.jit(data.batch, static_argnames=('crop_padding', 'flip', 'dtype'))


def noise(count, *, size=8, channels=3, seed=0):
  shape = (count, size, size, channels)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def tfds_folder(tmp_path, **changes):
  """A data set of 10 + 5 images as tfds lays it out."""
  folder = tmp_path / 'cifar10' / '3.0.2'
  folder.mkdir(parents=True)
  splits = {
    'train': (noise(10, size=32), np.arange(10)),
    'test': (noise(5, size=32, seed=1), np.arange(5)),
  } | changes
  columns = {split: (x, y_N[:, None]) for split, (x, y_N) in splits.items()}
  names = (tuple(f'class {i}' for i in range(10)),)
  cifar_records.write_tfds(folder, cifar.CIFAR10, cifar.Content(columns, names))
  return folder, splits


def test_digits_are_those_of_scikit_learn_in_a_fixed_split():
  images = data.load('digits')
  assert images.x_train.shape == (1000, 8, 8, 1)
  assert images.x_test.shape == (797, 8, 8, 1)
  assert images.x_train.dtype == images.x_test.dtype == np.uint8
  assert images.x_train.max() == 255 and images.classes == 10
  rows = lambda x, y: sorted(  # noqa: E731
    (*pixels.ravel().tolist(), label)
    for pixels, label in zip(x, y.tolist(), strict=True)
  )
  original = load_digits()
  assert rows(
    np.concatenate([images.x_train, images.x_test]),
    np.concatenate([images.y_train, images.y_test]),
  ) == rows(np.round(original.images * 255 / 16).astype(int), original.target)
  # The shipped table of the digits space was measured on these test images.
  digest = hashlib.sha256(images.x_test.tobytes() + images.y_test.tobytes())
  assert digest.hexdigest()[:16] == 'efb6666131892ffe'


@pytest.mark.parametrize('source', ['digits', 'arrays'])
def test_moments_are_those_of_the_training_pixels(source, tmp_path):
  file = tmp_path / 'own.npz'
  np.savez(file, **arrays())
  images = data.load(source, str(file))
  pixels = images.x_train.reshape(-1, images.x_train.shape[-1]) / 255
  np.testing.assert_allclose(images.mean_C, pixels.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(images.std_C, pixels.std(axis=0), rtol=1e-12)


def test_unknown_name_suggests_the_nearest():
  with pytest.raises(ValueError, match=r"'cifar'.*Did you mean cifar10\?"):
    data.load('cifar')
  with pytest.raises(ValueError, match=r"'qqq' is none of digits, cifar10"):
    data.load('qqq')


@pytest.mark.parametrize('given', [True, False])
def test_missing_cifar10_names_the_command(given, tmp_path):
  command = f'jaxnas.prepare cifar10 --dir {tmp_path if given else "D"} makes'
  with pytest.raises(FileNotFoundError, match=command):
    data.load('cifar10', str(tmp_path) if given else None)


def test_cifar10_comes_in_the_order_of_its_ids(tmp_path):
  _, splits = tfds_folder(tmp_path)
  images = data.load('cifar10', str(tmp_path))
  np.testing.assert_array_equal(images.x_train, splits['train'][0])
  np.testing.assert_array_equal(images.y_train, splits['train'][1])
  np.testing.assert_array_equal(images.x_test, splits['test'][0])
  np.testing.assert_array_equal(images.y_test, splits['test'][1])
  assert images.classes == 10


def truncated(folder):
  file = folder / 'cifar10-train.array_record-00000-of-00001'
  os.truncate(file, file.stat().st_size // 2)


def emptied(folder):
  (folder / 'cifar10-train.array_record-00000-of-00001').write_bytes(b'')


def removed(folder):
  (folder / 'cifar10-test.array_record-00000-of-00001').unlink()


@pytest.mark.parametrize('damage', [truncated, emptied, removed])
def test_damaged_cifar10_is_refused_in_one_line(damage, tmp_path):
  folder, _ = tfds_folder(tmp_path)
  damage(folder)
  with pytest.raises(ValueError, match=r'move it away, and python') as caught:
    data.load('cifar10', str(tmp_path))
  assert '\n' not in str(caught.value)


def test_labels_that_cifar10_does_not_have_are_refused(tmp_path):
  tfds_folder(tmp_path, test=(noise(2, size=32), np.array([3, 10])))
  with pytest.raises(ValueError, match='labels of test are 3 to 10'):
    data.load('cifar10', str(tmp_path))


@pytest.mark.slow
def test_whole_cifar10(data_folder):
  images = data.load('cifar10', str(data_folder / 'tfds'))
  assert images.x_train.shape == (50_000, 32, 32, 3)
  assert images.x_test.shape == (10_000, 32, 32, 3)
  assert (np.bincount(images.y_train) == 5_000).all()
  assert (np.bincount(images.y_test) == 1_000).all()
  pixels = images.x_train[::10].reshape(-1, 3) / np.float32(255)
  np.testing.assert_allclose(pixels.mean(axis=0), images.mean_C, atol=5e-3)
  np.testing.assert_allclose(pixels.std(axis=0), images.std_C, atol=5e-3)


def arrays(**changes):
  return {
    'x_train': noise(6),
    'y_train': np.array([0, 1, 2, 0, 1, 2]),
    'x_test': noise(3, seed=1),
    'y_test': np.array([0, 2, 1], np.uint8),
  } | changes


def test_arrays_are_read_as_they_are(tmp_path):
  file = tmp_path / 'own.npz'
  np.savez(file, **arrays())
  images = data.load('arrays', str(file))
  np.testing.assert_array_equal(images.x_train, arrays()['x_train'])
  np.testing.assert_array_equal(images.y_test, [0, 2, 1])
  assert images.y_train.dtype == images.y_test.dtype == np.int32
  assert images.classes == 3


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(
  ('scale', 'shift', 'says'),
  [(1 / 255, 0, 'floats of 0 to 1'), (0.02, -3, 'taken as standardised, -')],
)
def test_floats_are_kept_and_normalised_by_their_own(
  dtype, scale, shift, says, tmp_path
):
  file = tmp_path / 'own.npz'
  floats = {
    name: (value * scale + shift).astype(dtype) if name[0] == 'x' else value
    for name, value in arrays().items()
  }
  np.savez(file, **floats)
  images = data.load('arrays', str(file))
  assert images.x_train.dtype == images.x_test.dtype == np.float32
  assert says in images.pixels
  np.testing.assert_allclose(
    images.mean_C, floats['x_train'].mean((0, 1, 2), np.float64), rtol=1e-3
  )
  part = data.split(images, 'train', np.arange(6), jnp.float32)
  x, _ = part.batch(np.arange(6))
  expected = (images.x_train - images.mean_C) / images.std_C
  np.testing.assert_allclose(x, expected, atol=1e-5)
  assert part.normalise.pixels == np.float32
  # Bytes are said nothing of.
  assert source(noise(3)).pixels == ''


GREY = noise(6)
GREY[..., 1] = 7


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'x_train': noise(6).astype(int)},
      r'x_train is int64 of shape .*save x_train.astype\(np.uint8\)',
    ),
    ({'x_train': noise(6).astype(int) - 300}, 'scale them to 0 to 255'),
    ({'x_train': noise(6).astype(float)}, r'floats: save x.astype\(np.uint8'),
    ({'x_train': noise(6) / 255}, 'x_train is float32 and x_test uint8'),
    (
      {'x_test': np.full((3, 8, 8, 3), np.inf)},
      'not finite in float32, the first one inf in image 0: repair the image',
    ),
    (
      {'x_train': noise(6) / 255 * 3e38, 'x_test': noise(3) / 255 * 3e38},
      r'channel 0 of x_train has a standard deviation of .*: save x / np\.abs',
    ),
    (
      {'x_train': noise(6) * 1e-40, 'x_test': noise(3) * 1e-40},
      r'channel 0 of x_train has a standard deviation of .*: save x / np\.abs',
    ),
    (
      {'x_train': noise(6) / 255, 'x_test': noise(3) * 0.99},
      r'x_train is 0.* to 1 and x_test 0.* to 25.*: save both in one unit',
    ),
    ({'x_train': noise(6) // 128}, r'x_train is 0 to 1 and x_test .*one unit'),
    ({'x_test': noise(3) // 128}, r'x_train is .* and x_test 0 to 1; .*unit'),
    (
      {'x_train': noise(6) / 1.0 - 0.5, 'x_test': noise(3) / 255},
      r'x_train is -0.5 to 25.* and x_test 0.* to .*one unit',
    ),
    (
      {
        'x_train': noise(6) / 127.5 - 1,
        'x_test': noise(20) / 255,
        'y_test': np.arange(20) % 3,
      },
      r'x_train is -1 to .* and x_test 0.* to .*one unit',
    ),
    ({'y_train': np.arange(6)[:, None]}, r'save y_train\[:, 0\]'),
    ({'y_train': np.eye(6)}, r'save y_train.argmax\(axis=1\)'),
    ({'x_test': noise(3)[..., 0]}, r'x_test is uint8 of shape \(3, 8, 8\)'),
    ({'x_test': noise(0), 'y_test': np.zeros(0, int)}, r'shape \(0, 8, 8, 3\)'),
    (
      {'y_train': np.zeros(6)},
      r'y_train is float64 .*save y_train.astype\(int',
    ),
    ({'y_train': np.full(6, 0.5)}, r'integers of shape \(6,\)\.$'),
    ({'y_train': np.zeros(5, int)}, r'y_train is int64 of shape \(5,\)'),
    ({'y_test': np.array([0, -1, 2])}, 'labels of y_test are -1 to 2'),
    ({'y_test': np.array([0, 2**32, 2])}, 'labels of y_test are 0 to 4294967'),
    ({'x_test': noise(3, size=9)}, r'\(8, 8, 3\), of x_test \(9, 9, 3\)'),
    ({'x_train': GREY}, 'channel 1 of x_train is constant'),
    ({'y_test': np.array([{}], object)}, 'without pickled objects'),
  ],
)
def test_malformed_arrays_are_refused(changes, message, tmp_path):
  file = tmp_path / 'own.npz'
  np.savez(file, **arrays(**changes))
  with pytest.raises(ValueError, match=message) as caught:
    data.load('arrays', str(file))
  assert '\n' not in str(caught.value)


def test_files_that_are_no_arrays_are_refused(tmp_path):
  file = tmp_path / 'own.npz'
  with pytest.raises(FileNotFoundError, match=r'give by --data\.dir the npz'):
    data.load('arrays', str(file))
  np.savez(file, x_train=noise(2))
  with pytest.raises(ValueError, match='lacks y_train, x_test, y_test'):
    data.load('arrays', str(file))
  file.write_bytes(b'PK\x03\x04 no zip')
  with pytest.raises(ValueError, match='is not a readable npz'):
    data.load('arrays', str(file))
  with pytest.raises(FileNotFoundError, match=r'needs --data\.dir: an npz'):
    data.load('arrays')


@pytest.mark.parametrize('fraction', [0.3, 0.5, 1.0])
def test_split_is_a_random_partition(fraction):
  rng = lambda seed: generator(seed, 'split')  # noqa: E731
  train, validation = data.divide(np.arange(1000), fraction, None, rng(0))
  assert len(train) == 1000 * fraction
  np.testing.assert_array_equal(
    np.sort(np.concatenate([train, validation])), np.arange(1000)
  )
  assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
  if fraction < 1:
    # Both halves of the images are drawn from.
    assert abs((train < 500).mean() - 0.5) < 0.1
    assert not np.array_equal(
      train, data.divide(np.arange(1000), fraction, None, rng(1))[0]
    )
  np.testing.assert_array_equal(
    train, data.divide(np.arange(1000), fraction, None, rng(0))[0]
  )


@pytest.mark.parametrize('fraction', [0.0, 1.5, float('nan')])
def test_split_refuses_what_is_no_fraction(fraction):
  with pytest.raises(ValueError, match=f'fraction is {fraction}'):
    data.divide(np.arange(10), fraction, None, np.random.default_rng(0))


def test_order_is_a_permutation_of_seed_and_epoch():
  orders = {
    (seed, epoch): tuple(data.epoch_order(seed, epoch, 50).tolist())
    for seed in range(3)
    for epoch in range(3)
  }
  assert all(sorted(order) == list(range(50)) for order in orders.values())
  assert len(set(orders.values())) == 9
  assert tuple(data.epoch_order(1, 2, 50).tolist()) == orders[1, 2]


def crops(x_BxHxWxC, padding):
  """Every crop of every image, plain and mirrored, by numpy."""
  count, height, width, channels = x_BxHxWxC.shape
  padded = np.zeros(
    (count, height + 2 * padding, width + 2 * padding, channels), np.uint8
  )
  padded[:, padding : padding + height, padding : padding + width] = x_BxHxWxC
  for top in range(2 * padding + 1):
    for left in range(2 * padding + 1):
      crop = padded[:, top : top + height, left : left + width]
      yield crop
      yield crop[:, :, ::-1]


@pytest.mark.parametrize(
  ('padding', 'flip'), [(2, True), (2, False), (0, True)]
)
def test_augmented_images_are_uniform_over_all_crops(padding, flip):
  x_BxHxWxC = noise(2000, size=6)
  out = augment(KEY, jnp.asarray(x_BxHxWxC), crop_padding=padding, flip=flip)
  assert out.dtype == jnp.uint8
  matches = np.stack(
    [
      (crop == np.asarray(out)).all(axis=(1, 2, 3))
      for crop in crops(x_BxHxWxC, padding)
    ]
  )
  # Noise has no two equal crops, so it is certain which one was taken.
  assert (matches.sum(axis=0) == 1).all()
  if not flip:
    assert not matches[1::2].any()
    matches = matches[::2]
  # All of them occur, and each about equally often (5 standard deviations).
  expected = 2000 / len(matches)
  assert (abs(matches.sum(axis=1) - expected) < 5 * expected**0.5).all()


def test_augmentation_depends_on_the_key_alone():
  x_BxHxWxC = jnp.asarray(noise(8))
  apply = lambda key: np.asarray(  # noqa: E731
    augment(key, x_BxHxWxC, crop_padding=2, flip=True)
  )
  np.testing.assert_array_equal(apply(KEY), apply(KEY))
  assert (apply(KEY) != apply(jax.random.key(4))).any()
  untouched = augment(KEY, x_BxHxWxC, crop_padding=0, flip=False)
  np.testing.assert_array_equal(untouched, x_BxHxWxC)


@pytest.mark.parametrize('padding', [1, 3])
def test_crops_are_the_same_however_a_backend_cuts_them(padding):
  x_BxHxWxC = jnp.asarray(noise(50)[:, :, 1:])
  crops = []
  for backend in ('cpu', 'gpu', 'tpu'):
    with target.formulated_for(backend):
      out = data.augment(KEY, x_BxHxWxC, crop_padding=padding, flip=True)
    crops.append(np.asarray(out))
  np.testing.assert_array_equal(crops[1], crops[0])
  np.testing.assert_array_equal(crops[2], crops[0])


def source(x_NxHxWxC):
  y_N = np.arange(len(x_NxHxWxC), dtype=np.int32) % 10
  mean_C, std_C = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
  return data.Images(x_NxHxWxC, y_N, x_NxHxWxC[:1], y_N[:1], 10, mean_C, std_C)


@pytest.mark.parametrize('augmented', [False, True])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_batch_is_indexed_augmented_and_normalised(augmented, dtype):
  x_NxHxWxC = noise(20)
  images = source(x_NxHxWxC)
  stored = data.DeviceImages.put(images, images.x_train, images.y_train)
  indices = np.array([7, 7, 0, 19])
  key = KEY if augmented else None
  x, y = batch(
    stored, jnp.asarray(indices), key, crop_padding=2, flip=True, dtype=dtype
  )
  picked = x_NxHxWxC[indices]
  if augmented:
    picked = np.asarray(
      augment(KEY, jnp.asarray(picked), crop_padding=2, flip=True)
    )
  expected = (picked.astype(np.float64) / 255 - images.mean_C) / images.std_C
  assert x.dtype == dtype
  np.testing.assert_allclose(
    np.asarray(x, np.float64),
    expected,
    atol=1e-6 if dtype == jnp.float32 else 2e-2,
  )
  np.testing.assert_array_equal(y, [7, 7, 0, 9])


def test_images_are_an_argument_of_the_program():
  first, second = noise(20), noise(20, seed=1)
  images = source(first)
  stored = data.DeviceImages.put(images, first, images.y_train)
  other = dataclasses.replace(
    stored, x_NxP=jnp.asarray(second.reshape(len(second), -1))
  )
  # jit shares its cache between wrappings of one function.
  get = jax.jit(lambda *args: data.batch(*args))
  indices = jnp.arange(4)
  assert not jax.make_jaxpr(data.batch)(stored, indices).consts
  assert (get(stored, indices)[0] != get(other, indices)[0]).any()
  assert get._cache_size() == 1
