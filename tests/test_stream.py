import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnas import data
from jaxnas.data import Placing, SkippedImages, crops, encoded, stream
from jaxnas.runtime.rng import generator

SIZE = 8
TRAINED = np.delete(np.arange(18), [3, 11, 16, 17])  # 14: 3 batches of 4


@pytest.fixture
def source(tmp_path):
  """18 JPEGs in three classes, of three shapes."""
  generator = np.random.default_rng(0)
  for split, label, i in itertools.product(
    ('train', 'val'), range(3), range(6)
  ):
    file = tmp_path / split / f'class{label}' / f'{i}.jpg'
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (16 + 4 * (i % 3), 20, 3)
    pixels = generator.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(file)
  return encoded.load(tmp_path)[0]


def feed(source, **changes):
  options = {
    'seed': 5,
    'batch_size': 4,
    'size': SIZE,
    'flip': True,
    'workers': 0,
    'on_error': 'raise',
    'skipped': SkippedImages(),
  }
  return stream.feed(source, TRAINED, **options | changes)


def take(batches, count):
  """The first batches, the iterator closed."""
  out = [tuple(map(np.asarray, b)) for b in itertools.islice(batches, count)]
  batches.close()
  return out


def expected(source, count, *, bad=(), seed=5, flip=True):
  """The first batches, image by image."""
  out = []
  for step in range(count):
    epoch, k = divmod(step, 14 // 4)
    order = np.asarray(data.epoch_order(seed, epoch, 14)).tolist()
    x, y = [], []
    for position in range(4 * k, 4 * k + 4):
      following = order[position:] + order[:position]
      index = next(int(TRAINED[i]) for i in following if TRAINED[i] not in bad)
      rng = generator(seed, 'augment', epoch, position)
      image = crops.decode(source.read(index))
      x.append(crops.random_resized_crop(image, rng, SIZE, flip=flip))
      y.append(source.labels_N[index])
    out.append((np.stack(x), np.array(y)))
  return out


def assert_same(batches, others):
  assert len(batches) == len(others)
  for (x, y), (other_x, other_y) in zip(batches, others, strict=True):
    np.testing.assert_array_equal(x, other_x)
    np.testing.assert_array_equal(y, other_y)


def test_batches_are_those_of_a_loop_over_epochs(source):
  batches = take(feed(source)(0), 8)
  assert_same(batches, expected(source, 8))
  assert all(x.dtype == np.uint8 and y.dtype == np.int32 for x, y in batches)
  assert_same(
    take(feed(source, seed=6, flip=False)(0), 4),
    expected(source, 4, seed=6, flip=False),
  )


def test_an_epoch_has_no_image_twice_and_drops_the_rest(source):
  small = np.array([0, 6, 7, 12, 13, 14])  # 1, 2 and 3 of the classes
  dropped = set()
  for seed in range(20):
    batches = take(
      stream.feed(
        source,
        small,
        seed=seed,
        batch_size=4,
        size=SIZE,
        flip=False,
        workers=0,
        on_error='raise',
        skipped=SkippedImages(),
      )(0),
      3,
    )
    for _, y in batches:
      counts = np.bincount(y, minlength=3)
      assert (counts <= [1, 2, 3]).all()
      dropped.add(tuple(np.array([1, 2, 3]) - counts))
  assert len(dropped) > 3


def test_any_step_starts_where_an_uninterrupted_run_is(source):
  whole = expected(source, 11)
  for step in (1, 2, 3, 7, 10):
    assert_same(take(feed(source)(step), 11 - step), whole[step:])


def test_batches_are_on_the_device_and_stay(source):
  batches = feed(source)(0)
  kept = [next(batches) for _ in range(3)]
  batches.close()
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(kept))
  assert_same(kept, expected(source, 3))


def children():
  return [child.pid for child in multiprocessing.active_children()]


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_make_the_same_batches_and_go(workers, source):
  batches = feed(source, workers=workers)(2)
  kept = [next(batches)]
  assert len(children()) == workers
  # A batch system signals all processes; the main one has yet to save.
  for pid in children():
    os.kill(pid, signal.SIGTERM)
  kept += [next(batches) for _ in range(5)]
  batches.close()
  assert children() == []
  assert_same(kept, expected(source, 8)[2:])
  with pytest.raises(StopIteration):
    next(batches)


def test_a_worker_that_dies_is_reported_in_one_line(source):
  batches = feed(source, workers=1)(0)
  next(batches)
  os.kill(children()[0], signal.SIGKILL)
  with pytest.raises(OSError, match=r'^[^\n]*has died.*code -9.*workers 0 ne'):
    for _ in range(20):
      next(batches)
  assert children() == []


ORPHANED = """
import multiprocessing, os, signal, sys
from jaxnas.data import SkippedImages, encoded, stream

if __name__ == '__main__':
  from jax._src import xla_bridge

  print(xla_bridge.backends_are_initialized())
  source = encoded.load(sys.argv[1])[0]
  batches = stream.feed(
    source, source.labels_N, seed=0, batch_size=4, size=8, flip=True,
    workers=1, on_error='raise', skipped=SkippedImages(),
  )(0)
  next(batches)
  print(multiprocessing.active_children()[0].pid, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_killed_parent(source, tmp_path):
  file = tmp_path / 'orphaned.py'
  file.write_text(ORPHANED)
  # It ends when the worker, which holds stdout too, has ended.
  done = subprocess.run(
    [sys.executable, file, source.root],
    stdout=subprocess.PIPE,
    text=True,
    timeout=60,
  )
  initialized, pid = done.stdout.split()
  assert done.returncode == -signal.SIGKILL
  # Workers import the same modules, and must leave the devices alone.
  assert initialized == 'False'
  while os.path.exists(f'/proc/{pid}/exe'):
    time.sleep(0.01)


def corrupt(file):
  file.write_bytes(b'no image')


def truncated(file):
  file.write_bytes(file.read_bytes()[:-200])


def missing(file):
  file.unlink()


def damage(source, index, how=corrupt):
  how(Path(source.root, source.name(index)))


FIRST = int(TRAINED[np.asarray(data.epoch_order(5, 0, 14))[5]])
"""In the second batch."""


@pytest.mark.parametrize(
  ('how', 'workers', 'reason'),
  [
    (corrupt, 0, '8 bytes, no image'),
    (truncated, 0, 'truncated'),
    (missing, 0, 'No such file'),
    (corrupt, 1, '8 bytes, no image'),
  ],
)
def test_an_unreadable_image_is_named_in_one_line(how, workers, reason, source):
  damage(source, FIRST, how)
  batches = feed(source, workers=workers)(0)
  message = (
    rf'^image {source.name(FIRST)} is unreadable \([^\n]*{reason}[^\n]*'
    r'--data\.on_error skip\.$'
  )
  with pytest.raises(OSError, match=message):
    take(batches, 3)
  assert children() == []
  with pytest.raises(OSError, match=message):
    read(source, [0, FIRST])


@pytest.mark.parametrize('workers', [0, 2])
def test_skipped_images_are_replaced_and_counted(workers, source):
  # Two in a row, and the first of an epoch.
  order = TRAINED[np.asarray(data.epoch_order(5, 0, 14))].tolist()
  bad = {order[4]: corrupt, order[5]: truncated, order[0]: missing}
  expected_batches = expected(source, 8, bad=bad)
  for index, how in bad.items():
    damage(source, index, how)
  skipped = SkippedImages()
  batches = feed(source, workers=workers, on_error='skip', skipped=skipped)(0)
  kept = [next(batches)]
  # What is prefetched is not yet trained on.
  assert {*skipped} == {source.name(order[0])}
  kept += [next(batches) for _ in range(7)]
  batches.close()
  assert {*skipped} == {source.name(index) for index in bad}
  assert_same(kept, expected_batches)


def test_where_nothing_is_readable_skipping_ends(source):
  for index in TRAINED.tolist():
    damage(source, index)
  message = r'^none of 14 images is readable, as train/class.*\.jpg \(8 bytes'
  with pytest.raises(OSError, match=message):
    take(feed(source, on_error='skip')(0), 1)
  with pytest.raises(OSError, match=r'none of 2 images is readable'):
    read(source, [4, 2], on_error='skip')


def test_a_batch_must_be_filled(source):
  with pytest.raises(ValueError, match='batch_size is 15, more than 14'):
    feed(source, batch_size=15)


def read(source, indices, *, on_error='raise', skipped=None):
  return stream.read(
    source,
    np.array(indices),
    size=SIZE,
    on_error=on_error,
    skipped=SkippedImages() if skipped is None else skipped,
  )


def test_evaluation_reads_central_crops(source):
  indices = [17, 0, 0, 5, 9]
  x, y = read(source, indices)
  assert x.dtype == np.uint8 and y.dtype == np.int32
  assert y.tolist() == [2, 0, 0, 0, 1]
  for i, index in enumerate(indices):
    image = crops.decode(source.read(index))
    np.testing.assert_array_equal(x[i], crops.center_crop(image, SIZE))


def test_evaluation_replaces_by_the_next_index(source):
  whole, labels = read(source, [0, 5, 9])
  damage(source, 17, truncated)
  damage(source, 8, missing)
  damage(source, 2)
  skipped = SkippedImages()
  x, y = read(source, [0, 17, 8, 5, 9, 2], on_error='skip', skipped=skipped)
  picked = [0, 1, 1, 1, 2, 0]
  np.testing.assert_array_equal(x, whole[picked])
  np.testing.assert_array_equal(y, labels[picked])
  assert {*skipped} == {source.name(index) for index in (17, 8, 2)}


def test_processes_read_their_share_of_every_batch(source):
  """Both together are the batch that one process reads."""
  whole = take(feed(source)(2), 4)
  parts = [
    take(
      feed(source, placing=Placing(share=lambda size, rows=rows: rows))(2), 4
    )
    for rows in (range(0, 1), range(1, 4))
  ]
  assert_same(
    whole,
    [
      tuple(map(np.concatenate, zip(*both, strict=True)))
      for both in zip(*parts, strict=True)
    ],
  )
