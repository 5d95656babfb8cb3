"""Writes CIFAR as an ArrayRecord folder, which tensorflow-datasets reads.

tensorflow-datasets (tfds) itself prepares it only with TensorFlow.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Int, UInt8
from PIL import Image
from tensorflow_datasets import proto

from jaxnas.data.cifar import Cifar, Content
from jaxnas.runtime import progress

VERSION = '3.0.2'  # version of tfds' data sets with this layout


def write_tfds(folder: Path, kind: Cifar, content: Content) -> None:
  """Writes records, features and dataset_info.json, as tfds itself would."""
  core: Any = tfds.core  # loads its modules lazily, out of pyright's sight
  identity = core.dataset_info.DatasetIdentity(
    name=kind.name,
    version=core.Version(VERSION),
    data_dir=str(folder),
    module_name='tensorflow_datasets.image_classification.cifar',
  )
  info = core.DatasetInfo(
    builder=identity,
    description=(
      f'{kind.title}: 32x32 colour images in {kind.classes} classes, written '
      'by jaxnas.prepare from the official binary version.'
    ),
    features=tfds.features.FeaturesDict(
      {
        'id': tfds.features.Text(),
        'image': tfds.features.Image(shape=(32, 32, 3)),
      }
      | {
        label.feature: tfds.features.ClassLabel(names=names)
        for label, names in zip(kind.labels, content.names, strict=True)
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
  for split, (x_NxHxWxC, y_NxL) in content.splits.items():
    template = core.ShardedFileTemplate(
      dataset_name=kind.name,
      data_dir=folder,
      split=split,
      filetype_suffix='array_record',
    )
    file = Path(template.sharded_filepath(shard_index=0, num_shards=1))
    written.append(
      core.SplitInfo(
        name=split,
        shard_lengths=[len(y_NxL)],
        num_bytes=_write_records(file, split, x_NxHxWxC, y_NxL, kind),
        filename_template=template,
      )
    )
  info.set_splits(core.splits.SplitDict(written))
  info.write_to_directory(folder)


def _write_records(
  file: Path,
  split: str,
  x_NxHxWxC: UInt8[np.ndarray, 'N 32 32 3'],
  y_NxL: Int[np.ndarray, 'N L'],
  kind: Cifar,
) -> int:
  """Returns the bytes of the records, without the file's own overhead."""
  # Messages are made when they are imported, out of pyright's sight.
  pb: Any = proto.tf_feature_pb2
  pb_example: Any = proto.tf_example_pb2

  def bytes_of(value: bytes) -> Any:
    return pb.Feature(bytes_list=pb.BytesList(value=[value]))

  def int_of(value: int) -> Any:
    return pb.Feature(int64_list=pb.Int64List(value=[value]))

  count = 0
  try:
    # One record a group, so that a single one can be read at random.
    writer = array_record_module.ArrayRecordWriter(str(file), 'group_size:1')
    with progress.bar(f'writing {split} images', len(y_NxL)) as advance:
      for i, (x_HxWxC, y_L) in enumerate(
        zip(x_NxHxWxC, y_NxL.tolist(), strict=True)
      ):
        png = io.BytesIO()
        Image.fromarray(x_HxWxC).save(png, 'PNG')
        features = {
          'id': bytes_of(f'{split}_{i:05d}'.encode()),
          'image': bytes_of(png.getvalue()),
        } | {
          label.feature: int_of(y)
          for label, y in zip(kind.labels, y_L, strict=True)
        }
        record = pb_example.Example(
          features=pb.Features(feature=features)
        ).SerializeToString(deterministic=True)
        writer.write(record)
        count += len(record)
        advance(1, '')
    writer.close()
  except RuntimeError as error:
    # array_record reports a full disk so.
    raise OSError(f'{file.name} could not be written: {error}') from error
  return count
