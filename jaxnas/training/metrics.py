"""metrics.jsonl: one row for every so many steps, their mean."""

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxnas import runs

# Receives each row: (step, values).
Mirror = Callable[[int, Mapping[str, Any]], None]


class MetricsFile:
  """Appends rows; a resumed run drops those after its restored step.

  So it does with those of that step which are not of training: what they say
  is said again.

  Args:
    file: metrics.jsonl.
    step: the step that the run starts from.
    mirrors: where the same rows go besides.
  """

  def __init__(self, file: Path, step: int, mirrors: Sequence[Mirror] = ()):
    self._file, self._mirrors = file, mirrors
    rows = runs.read_rows(file, {'step': int})
    runs.write_rows(
      file,
      [
        row
        for row in rows
        if row['step'] < step or (row['step'] == step and 'loss' in row)
      ],
    )
    kept = file if runs.writes() else Path(os.devnull)
    self._stream = kept.open('a', buffering=1)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    with runs.naming(self._file):
      self._stream.write(json.dumps({'step': step, **values}) + '\n')
    for mirror in self._mirrors:
      mirror(step, values)

  def close(self) -> None:
    self._stream.close()


def tensorboard(folder: Path) -> Mirror:
  """Event files in `folder`; needs the extra of that name."""
  writer = importlib.import_module('tensorboardX').SummaryWriter(str(folder))

  def write(step: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
      writer.add_scalar(name, value, step)
    writer.flush()

  return write


def weights_and_biases(folder: Path, config: Mapping[str, Any]) -> Mirror:
  """A run of project 'jaxnas'; needs the extra 'wandb'."""
  run = importlib.import_module('wandb').init(
    project='jaxnas', dir=str(folder), config=dict(config), resume='allow'
  )
  return lambda step, values: run.log(dict(values), step=step)
