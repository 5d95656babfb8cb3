"""Finds encoded images in folders of files or tfds' ArrayRecord sets.

A source is small and picklable: worker processes get a copy of it, and open
its files themselves.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from jaxnas.data import array_records, folders, tfds_folders


@runtime_checkable
class Encoded(Protocol):
  """Images of one split, each as the bytes of a file."""

  @property
  def labels_N(self) -> Int32[np.ndarray, ' N']:
    """Labels, counted from 0."""
    ...

  def __len__(self) -> int: ...

  def read(self, index: int) -> bytes:
    """Returns the bytes of an image. Raises OSError where it can't."""
    ...

  def name(self, index: int) -> str:
    """Returns a name by which a user finds the image."""
    ...

  def listing(self) -> bytes:
    """Returns what all names are made of, to tell sources apart."""
    ...


def load(dir: Path | str) -> tuple[Encoded, Encoded, int]:
  """Returns the training images, the test images and the number of classes.

  Args:
    dir: a folder with train/CLASS/FILE and val/CLASS/FILE (or validation, or
      test); or one that tfds prepared as array_record: the data set's own
      folder, its parent, or the one above that.

  Raises:
    FileNotFoundError: there is no such folder, or it is neither of the two.
    ValueError: it lacks images or a split, or has another file format.
  """
  folder = Path(dir)
  if (folder / 'train').is_dir():
    return folders.load(folder)
  if found := tfds_folders.find(folder):
    return array_records.load(found)
  raise FileNotFoundError(
    f'data.dir {folder} has neither train/CLASS/FILE nor a dataset_info.json '
    'of tensorflow-datasets.'
  )
