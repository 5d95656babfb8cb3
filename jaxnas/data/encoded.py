"""Sources of encoded images: folders of files, or tfds' ArrayRecord sets.

A source is small and picklable: worker processes get a copy of it, and open
its files themselves.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from jaxnas import progress
from jaxnas.data import array_records

SUFFIXES = ('.jpeg', '.jpg', '.png')


@runtime_checkable
class Encoded(Protocol):
  """Images of one split, each as the bytes of a JPEG or PNG file."""

  @property
  def labels_N(self) -> Int32[np.ndarray, ' N']:
    """From 0."""
    ...

  def __len__(self) -> int: ...

  def read(self, index: int) -> bytes:
    """Raises OSError where the bytes can't be had."""
    ...

  def name(self, index: int) -> str:
    """What a user finds the image by."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """A file an image."""

  root: str
  files_N: np.ndarray
  """Relative to the root, as bytes: a million strings are slow to pickle."""
  labels_N: Int32[np.ndarray, ' N']

  def __len__(self) -> int:
    return len(self.labels_N)

  def read(self, index: int) -> bytes:
    return Path(self.root, self.name(index)).read_bytes()

  def name(self, index: int) -> str:
    return os.fsdecode(self.files_N[index])


def load(dir: Path | str) -> tuple[Encoded, Encoded, int]:
  """Images to train on, to test on, and the number of classes.

  Args:
    dir: a folder with train/CLASS/FILE and val/CLASS/FILE (or validation), the
      files JPEG or PNG; or one that tfds prepared as array_record: the data
      set's own folder, its parent, or the one above that.

  Raises:
    FileNotFoundError: the folder is not there, or is neither.
    ValueError: it lacks images or a split, or is of another file format.
  """
  folder = Path(dir)
  if (folder / 'train').is_dir():
    return _load_files(folder)
  if found := array_records.find(folder):
    return array_records.load(found)
  raise FileNotFoundError(
    f'data.dir {folder} has neither train/CLASS/FILE nor a dataset_info.json '
    'of tensorflow-datasets.'
  )


def _load_files(folder: Path) -> tuple[Encoded, Encoded, int]:
  for name in ('val', 'validation'):
    if (folder / name).is_dir():
      break
  else:
    raise ValueError(f'{folder} has train, but neither val nor validation.')
  classes = _classes(folder / 'train')
  if strangers := sorted({*_classes(folder / name)} - {*classes}):
    raise ValueError(f'{folder}: train lacks class {strangers[0]} of {name}.')
  train = _list_files(folder, 'train', classes)
  return train, _list_files(folder, name, classes), len(classes)


def _classes(folder: Path) -> list[str]:
  names = sorted(
    entry.name
    for entry in folder.iterdir()
    if entry.is_dir() and not entry.name.startswith('.')
  )
  if not names:
    raise ValueError(f'{folder} has no folders, one for each class of images.')
  return names


def _list_files(folder: Path, split: str, classes: Sequence[str]) -> Files:
  files, labels = [], []
  names = progress.track(classes, f'listing {split} images', len(classes))
  for label, name in enumerate(names):
    path = folder / split / name
    if not path.is_dir() and split != 'train':
      continue
    found = sorted(
      f'{split}/{name}/{file}'
      for file in os.listdir(path)
      # What begins with a dot was left by a system, not by a photographer.
      if file.lower().endswith(SUFFIXES) and not file.startswith('.')
    )
    if not found:
      raise ValueError(f'{path} has no image ({", ".join(SUFFIXES)}).')
    files += map(os.fsencode, found)
    labels += [label] * len(found)
  return Files(str(folder), np.array(files), np.array(labels, np.int32))
