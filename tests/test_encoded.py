import os
import pickle
import resource
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets import proto

from jaxnas.data import SkippedImages, array_records, division, encoded, stream
from jaxnas.runtime import errors, rng

CORE = tfds.core


def tree(root, **files):
  """Files of a folder; each has its own path as content."""
  for split in files:
    for name in files[split].split():
      file = root / split / name
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(f'{split}/{name}')
  return root


def small_tree(root):
  return tree(
    root,
    train='cat/2.jpg cat/1.JPEG ant/a.png ant/b.jpeg ant/c.JPG dog/1.jpg',
    val='dog/9.jpg ant/8.jpg',
  )


def test_folders_are_classes_in_order(tmp_path):
  train, test, classes = encoded.load(small_tree(tmp_path))
  assert classes == 3 and (len(train), len(test)) == (6, 2)
  names = 'ant/a.png ant/b.jpeg ant/c.JPG cat/1.JPEG cat/2.jpg dog/1.jpg'
  assert [train.name(i) for i in range(6)] == [
    f'train/{name}' for name in names.split()
  ]
  assert train.labels_N.tolist() == [0, 0, 0, 1, 1, 2]
  assert test.labels_N.tolist() == [0, 2]
  assert train.labels_N.dtype == test.labels_N.dtype == np.int32
  assert isinstance(train, encoded.Encoded)
  for source in (train, pickle.loads(pickle.dumps(test))):
    for i in range(len(source)):
      assert source.read(i).decode() == source.name(i)


def test_validation_may_be_spelt_out_and_strangers_are_left_out(tmp_path):
  tree(
    tmp_path,
    train='a/é.png a/notes.txt a/._x.jpg .git/x.jpg b/1.jpg readme.jpg',
    validation='b/2.jpg',
  )
  train, test, classes = encoded.load(str(tmp_path))
  assert [train.name(0), train.name(1)] == ['train/a/é.png', 'train/b/1.jpg']
  assert train.read(0).decode() == 'train/a/é.png'
  assert test.name(0) == 'validation/b/2.jpg'
  assert test.labels_N.tolist() == [1] and classes == 2


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (
      {'train': 'a/1.jpg'},
      'but none of val, valid, .* give one of these names',
    ),
    ({'train': 'a/1.jpg', 'val': 'a/1.jpg b/1.jpg'}, 'lacks class b of val'),
    ({'train': 'a/1.jpg b/1.txt', 'val': 'a/1.jpg'}, 'train/b has no image'),
    ({'train': 'a/1.jpg', 'val': 'a/1.txt'}, 'val/a has no image'),
    ({'train': 'a/1.jpg', 'val': '1.jpg'}, 'val has no folders, one for each'),
    ({'train': '1.jpg', 'val': 'a/1.jpg'}, 'train has no folders, one for'),
  ],
)
def test_trees_without_images_or_classes_are_refused(files, message, tmp_path):
  with pytest.raises(ValueError, match=f'^[^\n]*{message}[^\n]*$'):
    encoded.load(tree(tmp_path, **files))


def test_what_pillow_reads_is_found_as_deep_as_image_folder_looks(tmp_path):
  tree(
    tmp_path,
    train='a/z.webp a/images/2.bmp a/images/1.TIF b/deep/er/x.gif b/y.jfif',
    val='a/images/0.ppm',
  )
  (tmp_path / 'train' / 'c').symlink_to(tmp_path / 'train' / 'b')
  train, test, classes = encoded.load(tmp_path)
  # torchvision sorts folders, and then the names in each.
  names = 'a/z.webp a/images/1.TIF a/images/2.bmp b/y.jfif b/deep/er/x.gif'
  assert [train.name(i) for i in range(7)] == [
    f'train/{name}' for name in f'{names} c/y.jfif c/deep/er/x.gif'.split()
  ]
  assert train.labels_N.tolist() == [0, 0, 0, 1, 1, 2, 2]
  assert (test.name(0), classes) == ('val/a/images/0.ppm', 3)
  assert not train.ignored and not test.ignored


def test_what_is_ignored_is_counted_by_its_reason(tmp_path):
  tree(
    tmp_path,
    train='a/1.jpg b/1.jpg a/._1.jpg a/.git/x.jpg a/__MACOSX/1.jpg a/t.txt '
    'a/u.txt b/Thumbs.db b/deep/README 0.jpg __MACOSX/._1.jpg '
    '__MACOSX/2.jpg .cache/deep/er.jpg',
    val='a/1.jpg b/3.csv b/2.jpg',
  )
  (tmp_path / 'train/a/gone.jpg').symlink_to('/nowhere.jpg')
  (tmp_path / 'train/b/d.jpg').mkdir()
  (tmp_path / 'train/a/loop').symlink_to(tmp_path / 'train/a')
  os.mkfifo(tmp_path / 'train/a/pipe.png')
  train, test, _ = encoded.load(tmp_path)
  assert [train.name(i) for i in range(2)] == ['train/a/1.jpg', 'train/b/1.jpg']
  assert len(train) == len(test) == 2
  assert train.ignored.counts == {
    'hidden': 4, 'in __MACOSX': 2, 'ending in .txt': 2, 'ending in .db': 1,
    'without a suffix': 1, 'beside the classes': 1, 'broken links': 1,
    'links to a folder above': 1, 'no regular files': 1,
  }  # fmt: skip
  assert test.ignored.counts == {'ending in .csv': 1}
  assert str(train.ignored + test.ignored) == (
    '15 files ignored (4 hidden, 2 in __MACOSX, 2 ending in .txt, 1 beside '
    'the classes, 6 others)'
  )


@pytest.mark.parametrize('place', ['D/train', 'D', '.'])
def test_a_link_to_a_folder_of_all_classes_adds_none_of_them(place, tmp_path):
  tree(tmp_path / 'D', train='a/1.jpg b/1.jpg', val='a/1.jpg b/2.jpg')
  (tmp_path / 'D/train/a/back').symlink_to(tmp_path / place)
  train, _, _ = encoded.load(tmp_path / 'D')
  assert train.labels_N.tolist() == [0, 1]
  assert train.ignored.counts == {'links to a folder above': 1}
  (tmp_path / 'D/train/c').symlink_to(tmp_path / place)
  with pytest.raises(ValueError, match=r'c has no image .*to a folder above'):
    encoded.load(tmp_path / 'D')


@pytest.mark.parametrize(
  ('there', 'read', 'said'),
  [
    (['valid'], 'valid', ''),
    (['valid', 'test'], 'valid', "'test' ignored"),
    (['val', 'valid', 'test'], 'val', "'valid' and 'test' ignored"),
    (['test'], 'test', ''),
  ],
)
def test_one_folder_ranks_and_others_are_named(there, read, said, tmp_path):
  tree(tmp_path, train='a/1.jpg', **dict.fromkeys(there, 'a/1.jpg'))
  train, test, _ = encoded.load(tmp_path)
  assert test.name(0) == f'{read}/a/1.jpg'
  assert str(train.ignored + test.ignored) == said


@pytest.mark.parametrize('there', [True, False])
def test_a_folder_that_is_neither_form_is_missing(there, tmp_path):
  folder = tmp_path / 'D'
  if there:
    tree(folder, test='a/1.jpg')
  with pytest.raises(FileNotFoundError, match=r'D has neither train/CLASS/FIL'):
    encoded.load(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """The user's cache folder."""
  folder = tmp_path / 'cache'
  monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
  return folder


def feature(value):
  pb = proto.tf_feature_pb2
  if isinstance(value, bytes):
    return pb.Feature(bytes_list=pb.BytesList(value=[value]))
  return pb.Feature(int64_list=pb.Int64List(value=[value]))


def tfds_folder(folder, splits, *, classes=3, label='label', format=None):
  """Records as tfds lays them out: {split: labels of each shard}."""
  folder.mkdir(parents=True)
  identity = CORE.dataset_info.DatasetIdentity(
    name='flowers',
    version=CORE.Version('1.0.0'),
    data_dir=str(folder),
    module_name='flowers',
  )
  info = CORE.DatasetInfo(
    builder=identity,
    features=tfds.features.FeaturesDict(
      {
        'image': tfds.features.Image(),
        label: tfds.features.ClassLabel(num_classes=classes),
      }
    ),
  )
  info.set_file_format(format or 'array_record')
  written = []
  for split, shards in splits.items():
    template = CORE.ShardedFileTemplate(
      dataset_name='flowers',
      data_dir=folder,
      split=split,
      filetype_suffix=format or 'array_record',
    )
    for s, labels in enumerate(shards):
      file = template.sharded_filepath(shard_index=s, num_shards=len(shards))
      writer = array_record_module.ArrayRecordWriter(str(file), 'group_size:1')
      for i, y in enumerate(labels):
        features = {
          'image': feature(f'{split} {s} {i}'.encode()),
          label: feature(y),
        }
        record = proto.tf_example_pb2.Example(
          features=proto.tf_feature_pb2.Features(feature=features)
        )
        writer.write(record.SerializeToString())
      writer.close()
    written.append(
      CORE.SplitInfo(
        name=split,
        shard_lengths=[len(labels) for labels in shards],
        num_bytes=1,
        filename_template=template,
      )
    )
  info.set_splits(CORE.splits.SplitDict(written))
  info.write_to_directory(folder)
  return folder


SPLITS = {'train': [[0, 2], [1, 1, 0]], 'validation': [[2, 0]]}


@pytest.mark.parametrize('given', ['.', 'flowers', 'flowers/1.0.0'])
def test_records_of_tfds(given, tmp_path):
  tfds_folder(tmp_path / 'flowers' / '1.0.0', SPLITS)
  train, test, classes = encoded.load(tmp_path / given)
  assert classes == 3
  assert train.labels_N.tolist() == [0, 2, 1, 1, 0]
  assert test.labels_N.tolist() == [2, 0]
  assert train.labels_N.dtype == np.int32
  assert isinstance(train, encoded.Encoded)
  for source in (train, pickle.loads(pickle.dumps(train))):
    assert [source.read(i).decode() for i in range(5)] == [
      f'train {s} {i}' for s, i in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    ]
  shard = 'flowers-train.array_record-0000{}-of-00002 record {}'
  assert [train.name(i) for i in range(5)] == [
    shard.format(s, i) for s, i in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
  ]
  assert test.read(1) == b'validation 0 1'


def test_the_test_split_serves_where_there_is_no_validation(tmp_path):
  splits = {'test': [[1]], 'train': [[0]]}
  _, test, _ = encoded.load(tfds_folder(tmp_path / 'D', splits))
  assert test.read(0) == b'test 0 0'


def test_labels_are_read_once_and_kept_outside_the_data(
  tmp_path, cache, monkeypatch
):
  folder = tfds_folder(tmp_path / 'D', SPLITS)
  before = sorted(path.name for path in folder.iterdir())
  scanned = []
  scan = array_records._scan_labels
  monkeypatch.setattr(
    array_records,
    '_scan_labels',
    lambda *args: scanned.append(args[1]) or scan(*args),
  )
  # Three scans: of nothing kept, of a damaged file, of shards written anew.
  for times in (1, 2, 3):
    for _ in range(2):
      train, test, _ = encoded.load(folder)
      assert train.labels_N.tolist() == [0, 2, 1, 1, 0]
      assert test.labels_N.tolist() == [2, 0]
    assert scanned == ['train', 'validation'] * times
    if times == 1:
      for file in (cache / 'jaxnas' / 'labels').iterdir():
        file.write_bytes(b'damaged')
    else:
      assert before == sorted(path.name for path in folder.iterdir())
      for shard in folder.glob('*.array_record*'):
        os.utime(shard)


@pytest.mark.parametrize('kept', [True, False])
def test_a_set_built_anew_in_place_is_read_anew(kept, tmp_path):
  folder = tmp_path / 'flowers' / '1.0.0'
  before = encoded.load(tfds_folder(folder, SPLITS))[0]
  info = (folder / 'dataset_info.json').read_bytes()
  with pytest.MonkeyPatch.context() as patch:
    if kept:
      # Not even size and time tell: each record still says its own label.
      patch.setattr(array_records, '_key', lambda folder, shards: 'same')
      before = encoded.load(folder)[0]
    shutil.rmtree(folder)
    corrected = {'train': [[1, 2], [1, 1, 0]], 'validation': [[2, 1]]}
    tfds_folder(folder, corrected)
    assert (folder / 'dataset_info.json').read_bytes() == info
    after = encoded.load(folder)[0]
  # A run that was on its way has read its labels before.
  for old in [before, *([after] if kept else [])]:
    assert old.labels_N.tolist() == [0, 2, 1, 1, 0]
    with pytest.raises(errors.Different, match=r'record 0 has label 1, .* 0 '):
      pickle.loads(pickle.dumps(old)).read(0)
    assert pickle.loads(pickle.dumps(old)).read(1) == b'train 0 1'
  if not kept:
    assert after.labels_N.tolist() == [1, 2, 1, 1, 0]
    assert after.read(0) == b'train 0 0'


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_another_label_is_never_replaced_by_another_image(on_error, tmp_path):
  folder = tfds_folder(tmp_path / 'D', SPLITS)
  # As a worker process gets it, which opens files anew.
  train = pickle.loads(pickle.dumps(encoded.load(folder)[0]))
  shutil.rmtree(folder)
  tfds_folder(folder, {'train': [[1, 2], [1, 1, 0]], 'validation': [[2, 0]]})
  with pytest.raises(errors.Different, match='was written anew'):
    stream.read(
      train,
      np.arange(5),
      size=8,
      on_error=on_error,
      skipped=SkippedImages(),
    )


def test_a_cache_that_can_not_be_written_is_done_without(tmp_path, cache):
  cache.write_text('a file')
  train, _, _ = encoded.load(tfds_folder(tmp_path / 'D', SPLITS))
  assert train.labels_N.tolist() == [0, 2, 1, 1, 0]


@pytest.mark.parametrize(
  ('splits', 'options', 'message'),
  [
    (SPLITS, {'format': 'tfrecord'}, r'tfds convert_format .*=array_record'),
    (SPLITS, {'label': 'kind'}, 'has features image, kind; it must have'),
    ({'train': [[0]]}, {}, 'has splits train; it must have train, and val'),
    ({'test': [[0]]}, {}, 'has splits test; it must have train, and val'),
    ({'train': [[0, 3]], 'test': [[0]]}, {}, 'labels of train are 0 to 3'),
    ({'train': [[0]], 'test': [[-1]]}, {}, 'labels of test are -1 to -1'),
  ],
)
def test_other_data_sets_are_refused(splits, options, message, tmp_path):
  folder = tfds_folder(tmp_path / 'D', splits, **options)
  with pytest.raises(ValueError, match=f'^[^\n]*{message}[^\n]*$'):
    encoded.load(folder)


def damaged_info(folder):
  (folder / 'dataset_info.json').write_text('{')


def no_object(folder):
  (folder / 'dataset_info.json').write_text('[]')


def no_features(folder):
  (folder / 'features.json').unlink()


def truncated(folder):
  file = folder / 'flowers-train.array_record-00001-of-00002'
  os.truncate(file, file.stat().st_size // 2)


def garbage(folder):
  (folder / 'flowers-train.array_record-00001-of-00002').write_bytes(b'x' * 999)


def gone(folder):
  (folder / 'flowers-train.array_record-00001-of-00002').unlink()


def removed(folder):
  (folder / 'flowers-validation.array_record-00000-of-00001').unlink()


@pytest.mark.parametrize(
  'damage', [damaged_info, no_object, no_features, truncated, garbage, removed]
)
def test_damaged_data_sets_are_refused_in_one_line(damage, tmp_path):
  folder = tfds_folder(tmp_path / 'D', SPLITS)
  damage(folder)
  with pytest.raises(ValueError, match=f'^[^\n]*{folder}[^\n]*$'):
    encoded.load(folder)


@pytest.mark.parametrize('damage', [truncated, garbage, gone])
def test_a_record_that_is_gone_is_an_oserror(damage, tmp_path):
  folder = tfds_folder(tmp_path / 'D', SPLITS)
  train = pickle.loads(pickle.dumps(encoded.load(folder)[0]))
  damage(folder)
  assert train.read(0) == b'train 0 0'
  with pytest.raises(OSError):
    train.read(4)


def test_more_shards_than_files_may_be_open_are_read(tmp_path):
  splits = {'train': [[0]] * 40, 'test': [[0]]}
  folder = tfds_folder(tmp_path / 'D', splits)
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  few = max(map(int, os.listdir('/proc/self/fd'))) + 10
  resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
  try:
    train, _, _ = encoded.load(folder)
    assert [train.read(i) for i in range(40)] == [
      f'train {i} 0'.encode() for i in range(40)
    ]
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LABELS = np.repeat(np.arange(7), [5, 9, 4, 20, 6, 4, 11])
np.random.default_rng(0).shuffle(LABELS)


@pytest.mark.parametrize('per_class', [0, 1, 3])
def test_as_many_of_each_class_are_held_out(per_class):
  split = lambda seed: division.hold_out(  # noqa: E731
    LABELS, per_class, rng.generator(seed, 'split')
  )
  train, held_out = split(0)
  assert np.bincount(LABELS[held_out], minlength=7).tolist() == [per_class] * 7
  np.testing.assert_array_equal(
    np.sort(np.concatenate([train, held_out])), np.arange(len(LABELS))
  )
  assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()
  np.testing.assert_array_equal(split(0)[1], held_out)
  if per_class:
    assert not np.array_equal(split(1)[1], held_out)


def test_every_image_of_a_class_may_be_held_out():
  counts = np.zeros(len(LABELS), int)
  for seed in range(2000):
    counts[division.hold_out(LABELS, 1, np.random.default_rng(seed))[1]] += 1
  expected = 2000 / np.bincount(LABELS)[LABELS]
  assert (abs(counts - expected) < 5 * expected**0.5).all()


@pytest.mark.parametrize(
  ('labels', 'per_class', 'message'),
  [
    (LABELS, 4, 'class 2 has 4 images; with 4 of every class'),
    (np.array([0, 0, 2, 2]), 1, 'class 1 has 0 images'),
    (LABELS, -1, '-1 held out of a class; it must be 0 or more'),
  ],
)
def test_classes_with_too_few_images_are_named(labels, per_class, message):
  with pytest.raises(ValueError, match=message):
    division.hold_out(labels, per_class, np.random.default_rng(0))
