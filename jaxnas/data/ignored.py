"""Says what lies beside the images of a data set and is not read."""

import dataclasses
from collections import Counter
from collections.abc import Mapping

from jaxnas.runtime import words

# Reasons that a line names; others are added up.
_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Ignored:
  """Holds what is not read: files by the reason, and others by name."""

  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  """Numbers of files, by the reason."""
  names: tuple[str, ...] = ()
  """Arrays of an npz, or folders beside those of the splits."""

  def __add__(self, other: 'Ignored') -> 'Ignored':
    return Ignored(
      Counter(self.counts) + Counter(other.counts), self.names + other.names
    )

  def __bool__(self) -> bool:
    return any(self.counts.values()) or bool(self.names)

  def __str__(self) -> str:
    """Writes in words what is ignored.

    >>> str(Ignored(counts={'hidden': 1, 'ending in .txt': 3}))
    '4 files ignored (3 ending in .txt, 1 hidden)'
    >>> str(Ignored({'hidden': 1}, names=('x_val', 'y_val')))
    "1 file ignored (1 hidden), 'x_val' and 'y_val' ignored"
    """
    return ', '.join(filter(None, (self._files(), self._others())))

  def _files(self) -> str:
    most = Counter(self.counts).most_common()
    parts = [f'{count} {reason}' for reason, count in most[:_NAMED]]
    if rest := sum(count for _, count in most[_NAMED:]):
      parts.append(f'{rest} others')
    number = words.counted(sum(self.counts.values()), 'file')
    return f'{number} ignored ({", ".join(parts)})' if parts else ''

  def _others(self) -> str:
    # A name may hold anything, and be of any length.
    shown = [f'{name!r:.40}' for name in self.names[:_NAMED]]
    if rest := len(self.names) - len(shown):
      shown.append(words.counted(rest, 'other'))
    *most, last = shown or ['']
    named = f'{", ".join(most)} and {last}' if most else last
    return f'{named} ignored' if named else ''
