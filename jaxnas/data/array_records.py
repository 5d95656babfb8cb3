"""Image sets that tensorflow-datasets (tfds) prepared, record by record."""

import bisect
import contextlib
import dataclasses
import hashlib
import itertools
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxnas.data import tfds_folders
from jaxnas.runtime import cache, errors, files, progress

# A scan has this many records in memory at a time.
_SCANNED = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
  """Images of one split, each a record of an ArrayRecord file."""

  source: Any
  """tfds' data source; every process that gets a copy opens its own files."""
  shards: tuple[str, ...]
  ends: tuple[int, ...]
  """Number of images up to the end of each shard."""
  labels_N: Int32[np.ndarray, ' N']

  def __len__(self) -> int:
    return len(self.labels_N)

  def read(self, index: int) -> bytes:
    try:
      record = self.source[index]
      image, label = record['image'], record['label']
    except Exception as error:
      # tfds passes on all that its readers raise.
      raise OSError(f'{type(error).__name__}: {error}') from error
    if image is None:  # a file that was cut short has empty records
      raise OSError('the record is empty')
    if label != self.labels_N[index]:
      raise errors.Different(
        f'{self.name(index)} has label {label}, which was '
        f'{self.labels_N[index]} when labels were read: the data set was '
        'written anew; start the command again.'
      )
    return image

  def name(self, index: int) -> str:
    shard = bisect.bisect_right(self.ends, index)
    first = self.ends[shard - 1] if shard else 0
    return f'{self.shards[shard]} record {index - first}'

  def listing(self) -> bytes:
    return repr((self.shards, self.ends)).encode()


def load(folder: Path) -> tuple[Records, Records, int]:
  """Returns the training images, the test images and the number of classes.

  Raises ValueError where the data set has other features, splits or labels, or
  was written in another file format.
  """
  tfds_folders.check_format(folder)
  import tensorflow_datasets as tfds  # takes a second

  try:
    builder: Any = tfds.builder_from_directory(folder)
    splits, features = builder.info.splits, builder.info.features
    names = {name for name in ('image', 'label') if name in features}
  except Exception as error:
    # tfds passes on all that its readers raise, some of it over many lines.
    raise ValueError(
      f'{folder} is no tfds data set ({errors.reason(error)}).'
    ) from None
  if (
    names != {'image', 'label'}
    or not isinstance(features['image'], tfds.features.Image)
    or not isinstance(features['label'], tfds.features.ClassLabel)
  ):
    raise ValueError(
      f'{folder} has features {", ".join(sorted(features))}; it must have an '
      'image and a label of one class.'
    )
  test = next((name for name in ('validation', 'test') if name in splits), None)
  if 'train' not in splits or test is None:
    raise ValueError(
      f'{folder} has splits {", ".join(sorted(splits))}; it must have train, '
      'and validation or test.'
    )
  classes = features['label'].num_classes
  train, test = (
    _records(folder, builder, name, classes) for name in ('train', test)
  )
  return train, test, classes


def source(builder: Any, split: str) -> Any:
  """Returns the records of a tfds builder, with their images still encoded."""
  import tensorflow_datasets as tfds

  return builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )


def _records(folder: Path, builder: Any, split: str, classes: int) -> Records:
  info = builder.info.splits[split]
  for path in map(os.path.abspath, info.filepaths):
    # dataset_info.json may give them any name.
    if os.path.dirname(path) != os.path.abspath(folder):
      raise ValueError(
        f'{folder} names the shard {path}, which is not in it: prepare the '
        'data set anew.'
      )
  _allow_files(len(info.shard_lengths))
  records = source(builder, split)
  key = _key(folder, info.filepaths)
  file = cache.folder('labels') / f'{key[:16]}-{split}.npz'
  labels_N = _kept_labels(file, info.num_examples)
  if labels_N is None:
    labels_N = _scan_labels(folder, split, records)
    # Without a place to keep them, the next run scans again.
    with contextlib.suppress(OSError):
      file.parent.mkdir(parents=True, exist_ok=True)
      files.write_npz(file, {'labels_N': labels_N})
  if labels_N.min() < 0 or labels_N.max() >= classes:
    raise ValueError(
      f'{folder}: labels of {split} are {labels_N.min()} to {labels_N.max()}; '
      f'they must be 0 to {classes - 1}.'
    )
  shards = tuple(path.name for path in map(Path, info.filepaths))
  ends = tuple(itertools.accumulate(info.shard_lengths))
  return Records(records, shards, ends, labels_N)


def _key(folder: Path, shards: Iterable[Any]) -> str:
  """Names the content of shards as they are now, without reading them.

  dataset_info.json is the same where a data set is built anew with other
  labels.
  """
  digest = hashlib.sha256(os.fsencode(folder.resolve()))
  for path in map(os.fspath, shards):
    try:
      now = os.stat(path)
    except OSError as error:
      raise ValueError(
        f'{path} cannot be read ({error.strerror}): prepare the data set anew.'
      ) from error
    digest.update(os.fsencode(path))
    digest.update(f' {now.st_size} {now.st_mtime_ns}\n'.encode())
  return digest.hexdigest()


def _kept_labels(file: Path, count: int) -> Int32[np.ndarray, ' N'] | None:
  try:
    labels_N = files.read_npz(file, ['labels_N'])['labels_N']
  except (OSError, ValueError, KeyError):
    return None
  return labels_N if labels_N.shape == (count,) else None


def _scan_labels(
  folder: Path, split: str, records: Any
) -> Int32[np.ndarray, ' N']:
  """Reads every record, since the labels stand nowhere else."""
  count = len(records)
  if not count:
    raise ValueError(f'{folder}: {split} has no images.')
  labels = []
  starts = range(0, count, _SCANNED)
  label = f'reading {split} labels, {_SCANNED} at a time'
  for start in progress.track(starts, label, len(starts)):
    wanted = list(range(start, min(start + _SCANNED, count)))
    try:
      found = records.__getitems__(wanted)
      labels += [int(record['label']) for record in found]
    except Exception as error:
      raise ValueError(
        f'{folder}: {split} is damaged in records {start} to {wanted[-1]} '
        f'({errors.reason(error)}); prepare it anew.'
      ) from error
  return np.array(labels, np.int32)


def _allow_files(count: int) -> None:
  """Lets this process and its children have so many more files open.

  ImageNet has more shards than the usual limit.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft != resource.RLIM_INFINITY:
    most = soft + count if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, most), hard))
