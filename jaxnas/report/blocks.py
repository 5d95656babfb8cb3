"""Describes what a section of the page has beside figures."""

import dataclasses
from collections.abc import Sequence

from jaxnas.report import charts


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells of text; the first cell of a row names the row."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ''
  sortable: bool = False
  """The reader sorts the rows by a column."""


@dataclasses.dataclass(frozen=True)
class Code:
  """Text that is shown as it is; the reader opens it where it is `folded`."""

  title: str
  text: str
  folded: bool = False


@dataclasses.dataclass(frozen=True)
class Network:
  """An architecture, drawn as a box for each position."""

  title: str
  boxes: Sequence[tuple[str, str, bool]]
  """Position, op, and whether another network of the page has another op."""


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page."""

  title: str
  blocks: Sequence[str | Table | Code | Network | charts.Figure]
  lacking: Sequence[str] = ()
  """Sentences about parts that are left out, and why."""
