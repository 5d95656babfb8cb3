"""Finds images in folders of files, one folder for each class."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from jaxnas.data import crops
from jaxnas.data.ignored import Ignored
from jaxnas.runtime import progress

# Folders of the images that rank; the first that is there is taken.
_TESTS = ('val', 'valid', 'validation', 'test')


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """Images of one split, each in a file of its own."""

  root: str
  files_N: np.ndarray
  """Names relative to the root, as bytes, which are faster to pickle."""
  labels_N: Int32[np.ndarray, ' N']
  ignored: Ignored = dataclasses.field(default_factory=Ignored)

  def __len__(self) -> int:
    return len(self.labels_N)

  def read(self, index: int) -> bytes:
    return Path(self.root, self.name(index)).read_bytes()

  def name(self, index: int) -> str:
    return os.fsdecode(self.files_N[index])

  def listing(self) -> bytes:
    return self.files_N.tobytes()


def load(folder: Path) -> tuple[Files, Files, int]:
  """Returns the training images, the test images and the number of classes.

  Classes are the folders in train, in alphabetical order, and their images
  are all files in them and below them that Pillow reads by their names, as
  torchvision's ImageFolder finds them. What is hidden, or in __MACOSX, is none.

  Raises ValueError where a split or a class lacks images.
  """
  for test in _TESTS:
    if (folder / test).is_dir():
      break
  else:
    raise ValueError(
      f'{folder} has train, but none of {", ".join(_TESTS)} to rank on: give '
      'one of these names to the folder of other images of its classes.'
    )
  classes = _classes(folder / 'train')
  if 'train' in classes and {*classes} <= {'train', *_TESTS}:
    raise ValueError(
      f'{folder / "train"} holds {", ".join(classes)}, no classes: the data '
      f'set is one folder deeper: --data.dir {folder / "train"}.'
    )
  if strangers := sorted({*_classes(folder / test)} - {*classes}):
    raise ValueError(
      f'{folder}: train lacks class {strangers[0]} of {test}: put the images '
      f'of {test} into folders of the same names as those of train.'
    )
  train = _list_files(folder, 'train', classes)
  unread = [name for name in _TESTS if name != test]
  train = dataclasses.replace(
    train,
    ignored=train.ignored
    + Ignored(names=tuple(n for n in unread if (folder / n).is_dir())),
  )
  return train, _list_files(folder, test, classes), len(classes)


def _classes(folder: Path) -> list[str]:
  names = sorted(
    entry.name
    for entry in folder.iterdir()
    if entry.is_dir() and not _hidden(entry.name)
  )
  if not names:
    raise ValueError(
      f'{folder} has no folders, one for each class of images: put each image '
      'into that of its class.'
    )
  return names


def _list_files(folder: Path, split: str, classes: Sequence[str]) -> Files:
  files: list[str] = []
  labels: list[int] = []
  # A link back to any of these would give a class the images of all.
  home = (folder / split).resolve()
  above = tuple(_identity(place) for place in (home, *home.parents))
  # Strangers have been refused: what is left is no folder of a class.
  ignored = Counter(
    reason
    for name in os.listdir(folder / split)
    if name not in classes
    for _, reason in _walk(folder / split, name, above, 'beside the classes')
  )
  names = progress.track(classes, f'listing {split} images', len(classes))
  for label, name in enumerate(names):
    path = folder / split / name
    if not path.is_dir() and split != 'train':
      continue
    there = [*_walk(folder, f'{split}/{name}', above)]
    ignored.update(reason for _, reason in there if reason)
    # As sorted(os.walk(...)) gives them: the files of a folder come together.
    found = sorted(
      (file for file, reason in there if not reason), key=os.path.split
    )
    if not found:
      others = Ignored(counts=Counter(reason for _, reason in there))
      raise ValueError(
        f'{path} has no image that Pillow reads'
        + (f', and {others}' if others else '')
        + ': take the folder away, or fill it.'
      )
    files += found
    labels += [label] * len(found)
  return Files(
    str(folder),
    np.array([*map(os.fsencode, files)]),
    np.array(labels, np.int32),
    Ignored(counts=ignored),
  )


def _walk(
  root: Path,
  name: str,
  above: tuple[tuple[int, int], ...],
  reason: str = '',
) -> Iterator[tuple[str, str]]:
  """Yields each file at `name` or below it, and why it is none to read.

  Args:
    root: a folder.
    name: a path in it.
    above: device and number of the folders above, which a link may lead to.
    reason: why nothing below is to be read; '' where it is.
  """
  path = os.path.join(root, name)
  last = os.path.basename(name)
  reason = _hidden(last) or reason
  if not os.path.isdir(path):
    reason = reason or _other(last)
    if not reason and not os.path.isfile(path):
      reason = 'broken links' if os.path.islink(path) else 'no regular files'
    yield name, reason
    return
  here = _identity(path)
  if here in above:
    yield name, 'links to a folder above'
    return
  with os.scandir(path) as entries:
    inside = [
      (entry.name, entry.is_file(follow_symlinks=False)) for entry in entries
    ]
  above = (*above, here)
  for inner, plain in inside:
    if plain and not (reason or _hidden(inner) or _other(inner)):
      # The usual case asks the disk nothing more.
      yield f'{name}/{inner}', ''
    else:
      yield from _walk(root, f'{name}/{inner}', above, reason)


def _identity(path: str | Path) -> tuple[int, int]:
  """Returns the device and the number of what a path leads to."""
  found = os.stat(path)
  return found.st_dev, found.st_ino


def _other(name: str) -> str:
  """Returns how a file's name ends where it is not that of an image."""
  if name.lower().endswith(crops.suffixes()):
    return ''
  ending = os.path.splitext(name)[1].lower()
  return f'ending in {ending}' if ending else 'without a suffix'


def _hidden(name: str) -> str:
  """Returns why a file or folder is not to be looked at, '' where it is.

  Systems, not photographers, leave files that begin with a dot.
  """
  if name == '__MACOSX':
    return 'in __MACOSX'
  return 'hidden' if name.startswith('.') else ''
