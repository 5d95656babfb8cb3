"""A file system of its own for one folder, which a few files fill.

It needs the right to mount, as root has outside of most containers.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
  """Yields what makes the folder's disk larger; skips where none can be had."""
  folder.mkdir(parents=True)
  size = f'size={kilobytes}k'
  refused = _called('mount', '-t', 'tmpfs', '-o', size, 'none', folder)
  if refused:
    pytest.skip(f'no file system can be mounted here: {refused}')

  def grow(kilobytes: int) -> None:
    refused = _called('mount', '-o', f'remount,size={kilobytes}k', folder)
    assert not refused, refused

  try:
    yield grow
  finally:
    _called('umount', '--lazy', folder)


def _called(*command: str | Path) -> str:
  """Returns what a command that fails says, '' for one that does not."""
  try:
    done = subprocess.run(command, capture_output=True, text=True)
  except OSError as error:
    return str(error)
  return (done.stderr.strip() or str(done.args)) if done.returncode else ''
