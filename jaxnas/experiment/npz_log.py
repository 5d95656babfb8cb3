"""Logs along a run as npz files: arrays with a row for each epoch logged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.runtime import files, kinds

# The epoch of each row, after which it was measured.
EPOCHS = 'epoch_L'


def append(
  file: Path,
  epoch: int,
  row: Mapping[str, np.ndarray],
  fixed: Mapping[str, np.ndarray],
  facts: Mapping[str, Any],
) -> None:
  """Adds a row to a log, which is made where it is missing.

  Rows of this epoch and later ones, which a run that is resumed leaves, are
  dropped.

  Args:
    file: the log.
    epoch: epochs of training that are done.
    row: arrays that have one value a row.
    fixed: arrays that all rows share.
    facts: what the log was made of.

  Raises Damaged where it is of another run, or the new row does not fit.
  """
  rows = {EPOCHS: np.array(epoch), **row}
  before = _earlier(file, rows, facts) if file.exists() else {}
  earlier_L = before.get(EPOCHS, np.zeros(0, int)) < epoch
  files.write_npz(
    file,
    {
      **fixed,
      **{
        name: np.concatenate(
          [*([before[name][earlier_L]] if before else []), value[None]]
        )
        for name, value in rows.items()
      },
    },
    facts,
  )


def _earlier(
  file: Path, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Reads the rows that a log holds so far."""
  kind = {
    name: 'iu' if row.dtype.kind in 'iu' else row.dtype.kind
    for name, row in rows.items()
  }
  sizes = {
    axis: size
    for name, row in rows.items()
    for axis, size in zip(kinds.axes_of(name)[1:], row.shape, strict=True)
  }
  before, _ = files.read_arrays(file, kind, facts, sizes)
  return before
