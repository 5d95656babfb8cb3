"""metrics.jsonl: one row for every so many steps, their mean."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsFile:
  """Appends rows; a resumed run drops those after its restored step.

  Args:
    file: metrics.jsonl.
    step: the step that the run starts from.
  """

  def __init__(self, file: Path, step: int):
    rows = file.read_text().splitlines() if file.exists() else []
    kept = [row for row in rows if _step_of(row) <= step]
    file.write_text(''.join(f'{row}\n' for row in kept))
    self._stream = file.open('a', buffering=1)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    self._stream.write(json.dumps({'step': step, **values}) + '\n')

  def close(self) -> None:
    self._stream.close()


def _step_of(row: str) -> float:
  """Infinite for a row that an interruption cut short."""
  try:
    return float(json.loads(row)['step'])
  except (ValueError, KeyError, TypeError):
    return math.inf
