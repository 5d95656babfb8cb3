"""A record of images that could not be read."""

from collections.abc import Iterable, Iterator

from jaxnas.runtime import words


class SkippedImages:
  """Names of unreadable images that others replaced.

  It grows while images are read, by the threads that read them.
  """

  def __init__(self) -> None:
    self._names: set[str] = set()

  def add(self, names: Iterable[str]) -> None:
    self._names.update(names)

  def __iter__(self) -> Iterator[str]:
    """Yields the names in alphabetical order."""
    return iter(sorted(self._names))

  def __str__(self) -> str:
    """Says what became of the images; there must be one."""
    number = words.counted(len(self), 'unreadable image')
    return f'{number} replaced by others, such as {min(self)}'

  def __len__(self) -> int:
    return len(self._names)
