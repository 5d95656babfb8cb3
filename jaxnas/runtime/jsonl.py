"""Rows of a run in jsonl files, which grow while it works.

A row that was cut short is none; one that is damaged is named and kept aside.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.runtime import files, kinds, places, seals


class Rows(NamedTuple):
  """The content of a jsonl file."""

  good: list[dict[str, Any]]
  bad: list[tuple[int, bytes]]
  """Lines that are no such rows, and their numbers from 1."""


def read_rows(
  file: Path, kind: Mapping[str, Any], of: str | None = None
) -> list[dict[str, Any]]:
  """Reads the good rows of `rows`."""
  return rows(file, kind, of).good


def rows(file: Path, kind: Mapping[str, Any], of: str | None = None) -> Rows:
  """Reads the objects of a kind from a jsonl file; none where it is missing.

  A last line that was cut short is neither good nor bad.

  Args:
    file: a jsonl file.
    kind: of every row.
    of: what `append_row` sealed rows with; None: they have no seals.

  Raises Damaged where it is no regular file, or too large.
  """
  out = Rows([], [])
  if not file.exists():
    return out
  lines = files.parsed(file, lambda content: content).split(b'\n')
  for number, line in enumerate(lines, 1):
    try:
      row = files.json_object(line, {})
      if of is not None:
        row = seals.opened(row, of)
      kinds.check_json(row, kind)
      out.good.append(row)
    except ValueError:
      if number < len(lines):
        out.bad.append((number, line))
  return out


def read_good(
  file: Path, kind: Mapping[str, Any], of: str
) -> list[dict[str, Any]]:
  """Reads the good rows of `rows`, to be written again.

  Others are kept in a folder beside the file, and named in a warning.
  """
  found = rows(file, kind, of)
  if found.bad and files.writes():
    aside = places.aside(file)
    files.append(aside, b''.join(line + b'\n' for _, line in found.bad))
    numbers = ', '.join(str(number) for number, _ in found.bad)
    print(
      f'warning: {file}: rows that are damaged, or of another run, are moved '
      f'to {aside}: {numbers:.200}'
    )
  return found.good


def write_rows(
  file: Path, rows: Iterable[Mapping[str, Any]], of: str | None = None
) -> None:
  """Writes rows to a jsonl file, whole or not at all, as `append_row` does."""
  files.write_text(file, ''.join(_line(row, of) for row in rows))


def append_row(
  file: Path, row: Mapping[str, Any], of: str | None = None
) -> None:
  """Adds a row to a jsonl file. Raises OSError naming the file, or Damaged.

  Args:
    file: a jsonl file.
    row: JSON.
    of: what the row belongs to, with which it is sealed; None: no seal.
  """
  files.append(file, _line(row, of).encode())


def _line(row: Mapping[str, Any], of: str | None) -> str:
  return json.dumps(row if of is None else seals.sealed(row, of)) + '\n'
