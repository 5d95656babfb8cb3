"""Says what an item is: a table or a figure with the runs that it needs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.reproduce.jobs import Job, Row, Scale
from jaxnas.reproduce.metrics import RANKING, Metric
from jaxnas.reproduce.store import Result


class Request(NamedTuple):
  """The part of a command that decides which rows an item has."""

  scale: Scale
  temperatures: tuple[float, ...] = ()
  """Temperatures besides an item's own."""


class Finished(NamedTuple):
  """The runs of an item that are finished, and where its figures go."""

  jobs: Sequence[Job]
  results: Mapping[str, Result]
  """Results by the key of their job."""
  tables: Mapping[str, Path | None]
  """Files of ground truth by space."""
  out: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """A table or a figure.

  All that is known about it stands in its own file: the runs that its rows
  need, the published numbers beside them, and what is drawn besides rows of
  numbers.
  """

  title: str
  columns: tuple[str, ...]
  """Heads of the words that name a row."""
  rows: Callable[[Request], list[Row]]
  metrics: tuple[Metric, ...] = RANKING
  scales: tuple[Scale, ...] = ('cpu', 'paper')
  note: str = ''
  figure: bool = False
  """One seed is enough: others show nothing more."""
  sweeps_temperatures: bool = False
  """The rows have the temperatures of the request."""
  extras: Callable[[Finished], dict[str, Any]] | None = None
  """Makes what the item adds to its content: `lines` of Markdown, and numbers.
  It may write figures to `out`."""
