"""Reads the binary archives of CIFAR-10 and CIFAR-100."""

import dataclasses
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxnas.runtime import words


class Label(NamedTuple):
  """A kind of label; images of CIFAR-100 have two."""

  feature: str
  """tfds' name for it; 'label' is the class that networks are trained on."""
  classes: int
  file: str
  """The member of the archive with the names, one a line."""


@dataclasses.dataclass(frozen=True)
class Cifar:
  """The differences between CIFAR-10 and CIFAR-100."""

  name: str
  title: str
  root: str
  """The folder that the archive holds."""
  files: dict[str, tuple[str, ...]]
  """File names of the batches of each split."""
  labels: tuple[Label, ...]
  """Labels in the order of a record's first bytes."""
  mean_C: tuple[float, float, float]
  """Mean of the training pixels, in [0, 1]: the constants in general use."""
  std_C: tuple[float, float, float]

  @property
  def classes(self) -> int:
    return {label.feature: label.classes for label in self.labels}['label']

  @property
  def batches(self) -> dict[str, tuple[str, ...]]:
    """Members of the archive with the images of each split."""
    return {
      split: tuple(f'{self.root}/{file}' for file in files)
      for split, files in self.files.items()
    }

  @property
  def record_bytes(self) -> int:
    return len(self.labels) + 3 * 32 * 32


CIFAR10 = Cifar(
  name='cifar10',
  title='CIFAR-10',
  root='cifar-10-batches-bin',
  files={
    'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
    'test': ('test_batch.bin',),
  },
  labels=(Label('label', 10, 'batches.meta.txt'),),
  mean_C=(0.4914, 0.4822, 0.4465),
  std_C=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Cifar(
  name='cifar100',
  title='CIFAR-100',
  root='cifar-100-binary',
  files={'train': ('train.bin',), 'test': ('test.bin',)},
  labels=(
    Label('coarse_label', 20, 'coarse_label_names.txt'),
    Label('label', 100, 'fine_label_names.txt'),
  ),
  mean_C=(0.5071, 0.4865, 0.4409),
  std_C=(0.2673, 0.2564, 0.2762),
)
KINDS = {kind.name: kind for kind in (CIFAR10, CIFAR100)}
# Members of the official archives are not larger than this.
_MOST_RECORDS = 50_000
_MOST_NAME_BYTES = 10_000

# Images, and a column of labels for each of `Cifar.labels`.
Part = tuple[UInt8[np.ndarray, 'N 32 32 3'], Int[np.ndarray, 'N L']]


class Content(NamedTuple):
  """Content of an archive."""

  splits: dict[str, Part]
  """Images and labels of each split, in the archive's own order."""
  names: tuple[tuple[str, ...], ...]
  """Names of the classes, for each of `Cifar.labels`."""


def read_archive(archive: Path, cifar: Cifar) -> Content:
  """Reads images, labels and the names of classes.

  Members are read by name, and nothing is extracted.

  Raises ValueError where the archive is not the data set's binary version.
  """
  named = {f'{cifar.root}/{label.file}': label for label in cifar.labels}
  wanted = {name for names in cifar.batches.values() for name in names}
  batches, names = {}, {}
  try:
    with tarfile.open(archive, 'r:gz') as tar:
      for member in tar:
        if member.name not in wanted | named.keys() or not member.isfile():
          continue
        content = tar.extractfile(member)
        assert content is not None  # it is None for what is no file
        if member.name in wanted:
          _check_size(member.name, member.size, cifar)
          batches[member.name] = _read_batch(member.name, content.read(), cifar)
        else:
          names[member.name] = _read_names(
            member.name, content.read(_MOST_NAME_BYTES), named[member.name]
          )
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise ValueError(f'{archive.name} is no whole tar.gz: {error}') from error
  if missing := sorted((wanted | named.keys()) - batches.keys() - names.keys()):
    raise ValueError(f'{archive.name} lacks {", ".join(missing)}.')
  return Content(
    {
      split: (
        np.concatenate([batches[member][0] for member in members]),
        np.concatenate([batches[member][1] for member in members]),
      )
      for split, members in cifar.batches.items()
    },
    tuple(names[member] for member in named),
  )


def _check_size(name: str, size: int, cifar: Cifar) -> None:
  records, rest = divmod(size, cifar.record_bytes)
  if rest or not 0 < records <= _MOST_RECORDS:
    raise ValueError(
      f'{name} has {words.counted(size, "byte")}; it must have '
      f'{cifar.record_bytes:,} an image, and 1 to {_MOST_RECORDS:,} images.'
    )


def _read_batch(name: str, content: bytes, cifar: Cifar) -> Part:
  """Reads records: labels, then the red, the green and the blue plane."""
  records = np.frombuffer(content, np.uint8).reshape(-1, cifar.record_bytes)
  y_NxL = records[:, : len(cifar.labels)].astype(np.int32)
  for (feature, classes, _), y_N in zip(cifar.labels, y_NxL.T, strict=True):
    if y_N.max() >= classes:
      raise ValueError(
        f'{name}: image {y_N.argmax()} has {feature} {y_N.max()}; {feature}s '
        f'are 0 to {classes - 1}.'
      )
  x_NxCxHxW = records[:, len(cifar.labels) :].reshape(-1, 3, 32, 32)
  return x_NxCxHxW.transpose(0, 2, 3, 1), y_NxL


def _read_names(name: str, content: bytes, label: Label) -> tuple[str, ...]:
  names = tuple(content.decode(errors='replace').split())
  if len(names) != label.classes:
    raise ValueError(
      f'{name} has {words.counted(len(names), "name")}; it must have '
      f'{label.classes}.'
    )
  return names
