"""Folders of tfds: one rule for data sets in memory and for streamed ones."""

import re

import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import cifar, cifar_records, tfds_folders


def written(folder, version, *, name='cifar10', format='array_record', label=0):
  """A version of a data set whose first image has this label, the second 3."""
  at = folder / name / version
  at.mkdir(parents=True)
  kind = cifar.KINDS[name]
  x_NxHxWxC = np.zeros((2, 32, 32, 3), np.uint8)
  y_NxL = np.repeat([[label], [3]], len(kind.labels), axis=1)
  names = [[f'class {i}' for i in range(one.classes)] for one in kind.labels]
  splits = dict.fromkeys(('train', 'test'), (x_NxHxWxC, y_NxL))
  cifar_records.write_tfds(at, kind, cifar.Content(splits, tuple(names)))
  file = at / tfds_folders.INFO
  file.write_text(file.read_text().replace('array_record', format))
  return at


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """The user's cache folder, of labels."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture(params=['cifar10', 'imagenet'])
def first_label(request):
  """Returns the label of the first image, read as either data set."""

  def read(folder):
    return int(data.load(request.param, str(folder)).y_train[0])

  return read


@pytest.mark.parametrize('given', ['.', 'cifar10', 'cifar10/3.0.10'])
@pytest.mark.parametrize(
  'others',
  [
    [],
    [('3.0.2', {})],
    [('3.0.2', {}), ('2.11.0', {})],
    # What cannot be read does not hide what can.
    [('4.0.0', {'format': 'tfrecord'})],
    # What tfds has begun.
    [('3.0.10.incompleteX9Y9', {})],
  ],
  ids=str,
)
def test_the_newest_version_that_is_read(others, given, first_label, tmp_path):
  written(tmp_path / 'sets', '3.0.10', label=1)
  for version, options in others:
    written(tmp_path / 'sets', version, **options)
  assert first_label(tmp_path / 'sets' / given) == 1


@pytest.mark.parametrize('given', ['.', 'cifar10', 'cifar10/3.0.2'])
def test_tfrecords_are_to_be_converted(given, first_label, tmp_path):
  at = written(tmp_path / 'sets', '3.0.2', format='tfrecord')
  says = (
    f'tfds convert_format --dataset_version_dir={re.escape(str(at))} '
    r'--out_dir=NEW --out_file_format=array_record .* --data\.dir NEW\.$'
  )
  with pytest.raises(ValueError, match=says):
    first_label(tmp_path / 'sets' / given)


def test_what_was_converted_is_read(first_label, tmp_path):
  written(tmp_path / 'sets', '3.0.2', label=1).rename(tmp_path / 'NEW')
  assert first_label(tmp_path / 'NEW') == 1


def test_a_name_chooses_among_data_sets(tmp_path):
  for name, label in (('cifar10', 1), ('cifar100', 2)):
    written(tmp_path / 'sets', '3.0.2', name=name, label=label)
    images = data.load(name, str(tmp_path / 'sets'))
    assert images.y_train.tolist() == [label, 3]
  with pytest.raises(ValueError, match='give the folder of one of cifar10, ci'):
    data.load('imagenet', str(tmp_path / 'sets'))
  for other in ('sets/cifar100', 'sets/cifar100/3.0.2'):
    with pytest.raises(FileNotFoundError, match=f'^no cifar10 in .*{other}: '):
      data.load('cifar10', str(tmp_path / other))


@pytest.mark.parametrize('content', ['', '{', '[]', '{}'])
def test_a_damaged_info_is_named(content, first_label, tmp_path):
  at = written(tmp_path / 'sets', '3.0.2')
  (at / tfds_folders.INFO).write_text(content)
  with pytest.raises(ValueError, match=rf'^[^\n]*{at}[^\n]*$'):
    first_label(tmp_path / 'sets')
