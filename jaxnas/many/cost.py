"""Says what trainings will take, by those that are done."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxnas.many import flags

# Finished folders that are weighed.
WEIGHED = 20

# Hours above which a warning stands.
A_DAY = 24.0


class Estimate(NamedTuple):
  """Trainings that are left, and what those that are done took."""

  left: int
  of: str
  """Says in words how many there are in all."""
  seconds: Sequence[float]
  """The time that each finished one took."""
  folders: Sequence[Path]
  """The folders of finished tasks, which are weighed."""
  tasks: int
  """Folders that will be made."""


def show(given: Estimate, where: flags.Many) -> None:
  """Prints how many trainings are left, the hours, and the disk they take."""
  print(f'{given.left:,} trainings are left, of {given.of}')
  at_once = where.at_once if where.later else where.workers or 1
  how = f'{at_once} at once' if at_once > 1 else 'one after the other'
  if not given.left:
    return
  if given.seconds:
    each_s = sum(given.seconds) / len(given.seconds)
    hours = each_s * given.left / at_once / 3600
    print(
      f'{hours:.2f} hours, {how}, at {each_s:.1f} s each (the mean of '
      f'{len(given.seconds)} that are done)'
    )
    if hours > A_DAY:
      print(f'warning: that is {hours / 24:.1f} days')
  else:
    print(
      'hours unknown: none like them is done in this folder; a few of them '
      'first would tell'
    )
  if not given.tasks:
    return
  if given.folders:
    some = given.folders[:WEIGHED]
    sizes = [weight(folder) for folder in some]
    count = sum(files for files, _ in sizes) / len(sizes) * given.tasks
    size = sum(size for _, size in sizes) / len(sizes) * given.tasks
    print(
      f'{size / 1e9:.3g} GB in {count:,.0f} files of {given.tasks:,} folders'
    )
  else:
    print('disk unknown: no folder of a task is finished')


def weight(folder: Path) -> tuple[int, int]:
  """Returns the number of files below a folder, and their bytes."""
  sizes = [path.lstat().st_size for path in folder.rglob('*') if path.is_file()]
  return len(sizes), sum(sizes)
