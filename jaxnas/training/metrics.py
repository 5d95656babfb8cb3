"""metrics.jsonl: a row for every so many steps, with their means."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.runtime import jsonl


class Mirror(NamedTuple):
  """Another place that receives the rows."""

  start: Callable[[int, Sequence[Mapping[str, Any]]], None]
  """Opens it, to go on from a step; takes the rows of that step that stay."""
  write: Callable[[int, Mapping[str, Any]], None]
  """Takes the step and the values of a row."""
  close: Callable[[bool], None]
  """Takes True where an error ended the run."""


class MetricsFile:
  """Appends rows to a file and its mirrors; closes the mirrors on exit.

  `go_on_from` opens the mirrors.

  Args:
    file: metrics.jsonl.
    mirrors: other places that receive the same rows.
    of: digest of the run's config, with which every row is sealed.
  """

  def __init__(self, file: Path, mirrors: Sequence[Mirror] = (), *, of: str):
    self._file, self._mirrors, self._of = file, mirrors, of

  def __enter__(self) -> 'MetricsFile':
    return self

  def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
    for mirror in self._mirrors:
      mirror.close(kind is not None)

  def go_on_from(self, step: int) -> None:
    """Drops the rows that a run which goes on from this step writes again.

    These are the rows of later steps, and those of this step that are not of
    training, such as correlations. Damaged rows are kept aside.
    """
    kept = [
      row
      for row in jsonl.read_good(self._file, {'step': int}, self._of)
      if row['step'] < step or (row['step'] == step and 'loss' in row)
    ]
    jsonl.write_rows(self._file, kept, self._of)
    for mirror in self._mirrors:
      mirror.start(step, [row for row in kept if row['step'] == step])

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    jsonl.append_row(self._file, {'step': step, **values}, self._of)
    for mirror in self._mirrors:
      mirror.write(step, values)
