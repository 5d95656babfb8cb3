"""CIFAR-10's binary archive, and the ArrayRecord folder that tfds reads.

tensorflow-datasets itself prepares it only with TensorFlow.
"""

import io
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxnas import progress

VERSION = '3.0.2'  # of the tfds data set that has this layout
CLASSES = (
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)
MEMBERS = {
  'train': tuple(
    f'cifar-10-batches-bin/data_batch_{i}.bin' for i in range(1, 6)
  ),
  'test': ('cifar-10-batches-bin/test_batch.bin',),
}
# A record is a label, then the red, the green and the blue plane.
_SHAPE_CHW = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32
# The official batches hold 10,000; more than this is no batch of CIFAR-10.
_MOST_RECORDS = 50_000

Split = tuple[UInt8[np.ndarray, 'N 32 32 3'], Int[np.ndarray, ' N']]


def read_archive(archive: Path) -> dict[str, Split]:
  """Images and labels of both splits, in the archive's own order.

  Members are read by name, and nothing is extracted.

  Raises ValueError where the archive is not CIFAR-10's binary version.
  """
  wanted = {name for names in MEMBERS.values() for name in names}
  batches = {}
  try:
    with tarfile.open(archive, 'r:gz') as tar:
      for member in tar:
        if member.name in wanted and member.isfile():
          content = tar.extractfile(member)
          assert content is not None  # it is None for what is no file
          _check_size(member.name, member.size)
          batches[member.name] = _read_batch(member.name, content.read())
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise ValueError(f'{archive.name} is no whole tar.gz: {error}') from error
  if missing := sorted(wanted - batches.keys()):
    raise ValueError(f'{archive.name} lacks {", ".join(missing)}.')
  return {
    split: (
      np.concatenate([batches[name][0] for name in names]),
      np.concatenate([batches[name][1] for name in names]),
    )
    for split, names in MEMBERS.items()
  }


def _check_size(name: str, size: int) -> None:
  records, rest = divmod(size, _RECORD_BYTES)
  if rest or not 0 < records <= _MOST_RECORDS:
    raise ValueError(
      f'{name} has {size:,} bytes; it must have {_RECORD_BYTES:,} an image, '
      f'and 1 to {_MOST_RECORDS:,} images.'
    )


def _read_batch(name: str, content: bytes) -> Split:
  records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
  y_N = records[:, 0].astype(np.int32)
  if y_N.max() >= len(CLASSES):
    raise ValueError(
      f'{name}: image {y_N.argmax()} has label {y_N.max()}; labels are 0 to '
      f'{len(CLASSES) - 1}.'
    )
  x_NxCxHxW = records[:, 1:].reshape(-1, *_SHAPE_CHW)
  return x_NxCxHxW.transpose(0, 2, 3, 1), y_N


def write_tfds(folder: Path, splits: dict[str, Split]) -> None:
  """Writes records, features and dataset_info.json, as tfds itself would."""
  import tensorflow_datasets as tfds

  core: Any = tfds.core  # loads its modules lazily, out of pyright's sight
  identity = core.dataset_info.DatasetIdentity(
    name='cifar10',
    version=core.Version(VERSION),
    data_dir=str(folder),
    module_name='tensorflow_datasets.image_classification.cifar',
  )
  info = core.DatasetInfo(
    builder=identity,
    description=(
      'CIFAR-10: 32x32 colour images in 10 classes, written by jaxnas.prepare '
      'from the official binary version.'
    ),
    features=tfds.features.FeaturesDict(
      {
        'id': tfds.features.Text(),
        'image': tfds.features.Image(shape=(32, 32, 3)),
        'label': tfds.features.ClassLabel(names=CLASSES),
      }
    ),
    supervised_keys=('image', 'label'),
    homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
    citation=(
      '@TECHREPORT{Krizhevsky09learningmultiple, author={Alex Krizhevsky}, '
      'title={Learning multiple layers of features from tiny images}, '
      'year={2009}}'
    ),
  )
  info.set_file_format('array_record')
  written = []
  for split, (x_NxHxWxC, y_N) in splits.items():
    template = core.ShardedFileTemplate(
      dataset_name='cifar10',
      data_dir=folder,
      split=split,
      filetype_suffix='array_record',
    )
    file = Path(template.sharded_filepath(shard_index=0, num_shards=1))
    written.append(
      core.SplitInfo(
        name=split,
        shard_lengths=[len(y_N)],
        num_bytes=_write_records(file, split, x_NxHxWxC, y_N),
        filename_template=template,
      )
    )
  info.set_splits(core.splits.SplitDict(written))
  info.write_to_directory(folder)


def _write_records(
  file: Path,
  split: str,
  x_NxHxWxC: UInt8[np.ndarray, 'N 32 32 3'],
  y_N: Int[np.ndarray, ' N'],
) -> int:
  """Returns the bytes of the records, without the file's own overhead."""
  from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
  )
  from PIL import Image
  from tensorflow_datasets import proto

  # Messages are made when they are imported, out of pyright's sight.
  pb: Any = proto.tf_feature_pb2
  pb_example: Any = proto.tf_example_pb2

  def bytes_of(value: bytes) -> Any:
    return pb.Feature(bytes_list=pb.BytesList(value=[value]))

  count = 0
  try:
    # One record a group, so that a single one can be read at random.
    writer = array_record_module.ArrayRecordWriter(str(file), 'group_size:1')
    with progress.bar(f'writing {split} images', len(y_N)) as advance:
      for i, (x_HxWxC, y) in enumerate(zip(x_NxHxWxC, y_N, strict=True)):
        png = io.BytesIO()
        Image.fromarray(x_HxWxC).save(png, 'PNG')
        features = {
          'id': bytes_of(f'{split}_{i:05d}'.encode()),
          'image': bytes_of(png.getvalue()),
          'label': pb.Feature(int64_list=pb.Int64List(value=[int(y)])),
        }
        record = pb_example.Example(
          features=pb.Features(feature=features)
        ).SerializeToString(deterministic=True)
        writer.write(record)
        count += len(record)
        advance(1, '')
    writer.close()
  except RuntimeError as error:
    # So does array_record report a full disk.
    raise OSError(f'{file.name} could not be written: {error}') from error
  return count
