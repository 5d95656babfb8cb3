"""Image sets that tensorflow-datasets prepared, record by record."""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxnas import progress, runs

# Records of a scan that are in memory at a time.
_SCANNED = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
  """A record of an ArrayRecord file an image."""

  folder: str
  split: str
  shards: tuple[str, ...]
  ends: tuple[int, ...]
  """Images up to the end of each shard."""
  labels_N: Int32[np.ndarray, ' N']

  def __len__(self) -> int:
    return len(self.labels_N)

  def read(self, index: int) -> bytes:
    try:
      image = _open(self.folder, self.split)[index]['image']
    except Exception as error:
      # tfds lets whatever its readers raise pass.
      raise OSError(f'{type(error).__name__}: {error}') from error
    if image is None:  # a file that was cut short has empty records
      raise OSError('the record is empty')
    return image

  def name(self, index: int) -> str:
    shard = bisect.bisect_right(self.ends, index)
    first = self.ends[shard - 1] if shard else 0
    return f'{self.shards[shard]} record {index - first}'


def find(folder: Path) -> Path | None:
  """The folder of a data set's newest version, at or below a folder.

  Raises ValueError where there are several data sets.
  """
  for pattern in ('.', '*', '*/*'):
    if infos := sorted(folder.glob(f'{pattern}/dataset_info.json')):
      break
  else:
    return None
  folders = [info.parent for info in infos]
  if len(parents := sorted({folder.parent for folder in folders})) > 1:
    raise ValueError(
      f'{parents[0].parent} has several data sets: give the folder of one of '
      f'{", ".join(parent.name for parent in parents)}.'
    )
  return max(
    folders, key=lambda f: [int(part) for part in re.findall(r'\d+', f.name)]
  )


def load(folder: Path) -> tuple[Records, Records, int]:
  """Images to train on, to test on, and the number of classes.

  Raises ValueError where it has other features, splits or labels, or was
  written in another file format.
  """
  info_file = folder / 'dataset_info.json'
  content = info_file.read_bytes()
  try:
    written = json.loads(content).get('fileFormat', 'tfrecord')
  except (ValueError, AttributeError) as error:
    raise ValueError(f'{info_file} is no dataset_info.json: {error}') from error
  if written != 'array_record':
    raise ValueError(
      f'{folder} holds {written} files, which only TensorFlow reads; tfds '
      f'convert_format --dataset_version_dir={folder} --out_dir=NEW '
      '--out_file_format=array_record makes what jaxnas reads.'
    )
  import tensorflow_datasets as tfds

  try:
    builder: Any = tfds.builder_from_directory(folder)
    splits, features = builder.info.splits, builder.info.features
    names = {name for name in ('image', 'label') if name in features}
  except Exception as error:
    # tfds lets whatever its readers raise pass, some of it over many lines.
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'{folder} is no tfds data set ({reason[:200]}).'
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
  key = hashlib.sha256(content + os.fsencode(folder.resolve())).hexdigest()
  train, test = (
    _records(folder, name, splits[name], classes, key)
    for name in ('train', test)
  )
  return train, test, classes


def _records(
  folder: Path, split: str, info: Any, classes: int, key: str
) -> Records:
  cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
  file = cache / 'jaxnas' / f'labels-{key[:16]}-{split}.npz'
  for path in map(os.path.abspath, info.filepaths):
    # What dataset_info.json calls them may be anything.
    if os.path.dirname(path) != os.path.abspath(folder):
      raise ValueError(
        f'{folder} names the shard {path}, which is not in it: prepare the '
        'data set anew.'
      )
  labels_N = _kept_labels(file, info.num_examples)
  if labels_N is None:
    labels_N = _scan_labels(folder, split, info.num_examples)
    # Without a place to keep them, the next run scans again.
    with contextlib.suppress(OSError):
      file.parent.mkdir(parents=True, exist_ok=True)
      runs.write_npz(file, {'labels_N': labels_N})
  if labels_N.min() < 0 or labels_N.max() >= classes:
    raise ValueError(
      f'{folder}: labels of {split} are {labels_N.min()} to {labels_N.max()}; '
      f'they must be 0 to {classes - 1}.'
    )
  shards = tuple(path.name for path in map(Path, info.filepaths))
  ends = tuple(itertools.accumulate(info.shard_lengths))
  return Records(str(folder), split, shards, ends, labels_N)


def _kept_labels(file: Path, count: int) -> Int32[np.ndarray, ' N'] | None:
  try:
    labels_N = runs.read_npz(file, ['labels_N'])['labels_N']
  except (OSError, ValueError, KeyError):
    return None
  return labels_N if labels_N.shape == (count,) else None


def _scan_labels(
  folder: Path, split: str, count: int
) -> Int32[np.ndarray, ' N']:
  """Reads every record, since nothing else has the labels."""
  if not count:
    raise ValueError(f'{folder}: {split} has no images.')
  labels = []
  starts = range(0, count, _SCANNED)
  label = f'reading {split} labels, {_SCANNED} at a time'
  for start in progress.track(starts, label, len(starts)):
    wanted = list(range(start, min(start + _SCANNED, count)))
    try:
      records = _open(str(folder), split).__getitems__(wanted)
      labels += [int(record['label']) for record in records]
    except Exception as error:
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())
      raise ValueError(
        f'{folder}: {split} is damaged in records {start} to {wanted[-1]} '
        f'({reason[:200]}); prepare it anew.'
      ) from error
  return np.array(labels, np.int32)


@functools.lru_cache
def _open(folder: str, split: str) -> Any:
  """Kept open, in every process for itself."""
  import tensorflow_datasets as tfds

  builder: Any = tfds.builder_from_directory(folder)
  _allow_files(len(builder.info.splits[split].shard_lengths))
  return builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )


def _allow_files(count: int) -> None:
  """So many more: all of ImageNet's are more than a process may have open."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft != resource.RLIM_INFINITY:
    most = soft + count if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, most), hard))
