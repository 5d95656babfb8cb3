"""Rows of a benchmark: made from measurements, shown, read and compared."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from jaxnas.bench.cases import Case
from jaxnas.runtime import files, inputs, strict_json


class Row(TypedDict):
  """A case's result; what has no baseline has no ratio."""

  part: str
  case: str
  ours: float
  """Median of its rounds, in `unit`; so is `baseline`."""
  baseline: float | None
  ratio: float | None
  """Ratio of the medians; above 1 where ours is better."""
  unit: str
  spread: float
  """Half the range of the rounds' ratios, over their median; without a baseline
  half the range of ours, over its median."""


def row(
  case: Case, ours: Sequence[float], baseline: Sequence[float] | None
) -> Row:
  """Makes a row of the values of each round."""
  middle = statistics.median(ours)
  other = ratio = None
  spread = _spread(ours)
  if baseline is not None:
    other = statistics.median(baseline)
    ratio = _ratio(case.unit, middle, other)
    spread = _spread(
      [_ratio(case.unit, a, b) for a, b in zip(ours, baseline, strict=True)]
    )
  return Row(
    part=case.part,
    case=case.case,
    ours=middle,
    baseline=other,
    ratio=ratio,
    unit=case.unit,
    spread=spread,
  )


def more_is_better(unit: str) -> bool:
  return unit.endswith('/s') or unit.startswith('of peak')


def table(rows: Sequence[Row]) -> str:
  """Formats rows as lines, with numbers to four digits."""
  head = ('part', 'case', 'ours', 'baseline', 'unit', 'ratio', 'spread')
  cells = [head] + [
    (
      row['part'],
      row['case'],
      _shown(row['ours']),
      _shown(row['baseline']),
      row['unit'],
      _shown(row['ratio']),
      f'{row["spread"]:.1%}',
    )
    for row in rows
  ]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  # Words stand left, numbers right.
  sides = ('<', '<', '>', '>', '<', '>', '>')
  return '\n'.join(
    '  '.join(
      f'{cell:{side}{width}}'
      for cell, side, width in zip(line, sides, widths, strict=True)
    ).rstrip()
    for line in cells
  )


def check(
  rows: Sequence[Row], earlier: Sequence[Row], at_least: float
) -> list[str]:
  """Returns a line for each row that fell below a share of what it was before.

  What is compared is the ratio; where there is no baseline, ours, which only
  means something on the same machine. A row that one list lacks is left out.
  """
  before = {(row['part'], row['case']): row for row in earlier}
  lines = []
  for now in rows:
    then = before.get((now['part'], now['case']))
    if then is None:
      continue
    name = f'{now["part"]}, {now["case"]}'
    if now['ratio'] is not None and then['ratio'] is not None:
      if now['ratio'] < at_least * then['ratio']:
        lines.append(
          f'{name}: ratio {now["ratio"]:.4g}, was {then["ratio"]:.4g}'
        )
    elif now['ratio'] is then['ratio']:
      worse, better = now['ours'], then['ours']
      if not more_is_better(now['unit']):
        worse, better = better, worse
      if worse < at_least * better:
        lines.append(
          f'{name}: {now["ours"]:.4g} {now["unit"]}, was {then["ours"]:.4g}'
        )
  return lines


def read(file: Path) -> list[Row]:
  """Reads the rows that a benchmark wrote.

  Raises FileNotFoundError, or ValueError where it is something else.
  """
  inputs.check_file(file, '--check', 'give a file that --out wrote')
  try:
    rows = strict_json.loads(files.read_bytes(file))
  except ValueError as error:
    raise ValueError(f'{file} is no JSON: {error}.') from error
  if not isinstance(rows, list):
    raise ValueError(f'{file} is no list of rows: give what --out wrote.')
  for number, row in enumerate(rows):
    if not _is_row(row):
      raise ValueError(
        f'{file}: entry {number} is no row with {", ".join(KEYS)}: give what '
        '--out wrote.'
      )
  return rows


KEYS = tuple(Row.__annotations__)


def _is_row(row: object) -> bool:
  if not isinstance(row, dict) or row.keys() != {*KEYS}:
    return False
  words = all(isinstance(row[key], str) for key in ('part', 'case', 'unit'))
  numbers = all(_is_number(row[key]) for key in ('ours', 'spread'))
  return (
    words
    and numbers
    and all(
      row[key] is None or _is_number(row[key]) for key in ('baseline', 'ratio')
    )
  )


def _is_number(value: object) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _ratio(unit: str, ours: float, baseline: float) -> float:
  return ours / baseline if more_is_better(unit) else baseline / ours


def _spread(values: Sequence[float]) -> float:
  half, middle = (max(values) - min(values)) / 2, statistics.median(values)
  return half / middle if middle else half


def _shown(value: float | None) -> str:
  return '' if value is None else f'{value:.4g}'
