"""Marks that stand beside a field of a config: its range and its owner.

`Annotated[int, Interval(ge=1, le=MOST), UsedWith('name', 'tree')]` says all
that `jaxnas.config.validation` holds a field to.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Any, get_type_hints

from annotated_types import Interval

from jaxnas.config.registry import Registry
from jaxnas.runtime import paths

# Counts, steps among them, are int32; numbers are float32.
MOST = 2**31 - 1
LARGEST = 3.4e38

# Devices round what is smaller to 0, as a divisor too.
SMALLEST = 1.2e-38

# More of these would not fit any machine.
MANY = 65536

Count = Annotated[int, Interval(ge=1, le=MOST)]
CountOrNone = Annotated[int | None, Interval(ge=1, le=MOST)]
Natural = Annotated[int, Interval(ge=0, le=MOST)]
Few = Annotated[int, Interval(ge=1, le=MANY)]
Share = Annotated[float, Interval(ge=0, le=1)]
NotNegative = Annotated[float, Interval(ge=0, le=LARGEST)]
PositiveOrNone = Annotated[float | None, Interval(gt=0, le=LARGEST)]

# Options of an entry that was registered from outside, by name.
Options = dict[str, bool | int | float | str] | None


@dataclasses.dataclass(frozen=True)
class UsedWith:
  """Says that only some values of another field of the section use this one."""

  owner: str
  values: tuple[str | None, ...]
  """None is among them where the field's own default may be such a value."""

  def __init__(self, owner: str, *values: str | None) -> None:
    object.__setattr__(self, 'owner', owner)
    object.__setattr__(self, 'values', values)


@dataclasses.dataclass(frozen=True)
class IsPath:
  """Says that a text is a path, which `make_absolute` makes absolute."""


PathOrNone = Annotated[str | None, IsPath()]


def make_absolute(section: Any) -> None:
  """Makes the paths of a section mean the same from any folder.

  A dataclass calls it when it is made, wherever it is made from.
  """
  for name in _paths(type(section)):
    if isinstance(value := getattr(section, name), str):
      object.__setattr__(section, name, paths.absolute(value))


@functools.cache
def _paths(section: type) -> tuple[str, ...]:
  return tuple(name for name, _ in marks(section, IsPath))


def marks(section: type, kind: type) -> Iterator[tuple[str, Any]]:
  """Yields (field, mark) for each field that has a mark of this kind.

  Args:
    section: a dataclass of the config.
    kind: Interval, UsedWith, IsPath or Registry.
  """
  for name, hint in get_type_hints(section, include_extras=True).items():
    for mark in getattr(hint, '__metadata__', ()):
      if isinstance(mark, kind):
        yield name, mark


def ranges(section: type) -> Iterator[tuple[str, Interval]]:
  """Yields each field's range, where it has one."""
  return marks(section, Interval)


def owners(section: type) -> Iterator[tuple[str, str, tuple[str | None, ...]]]:
  """Yields (field, the field that it belongs to, values that use it)."""
  for name, mark in marks(section, UsedWith):
    yield name, mark.owner, mark.values


def registries(section: type) -> Iterator[tuple[str, Registry]]:
  """Yields (field, the registry that it names an entry of)."""
  return marks(section, Registry)


def sections(config: type) -> Iterator[tuple[str, type]]:
  """Yields (name, dataclass) of the sections of a config."""
  for name, hint in get_type_hints(config).items():
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
      yield name, hint
