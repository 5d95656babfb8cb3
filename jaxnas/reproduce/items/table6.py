"""Table 6: densities along uniform training, against the last ones.

The published numbers are those of Roshtkhari, Toews and Pedersoli, "Debiased
One-Shot NAS via Density-Aware Sampling", CVPR Findings 2026.
"""

from collections.abc import Mapping
from typing import Any

from jaxnas.reproduce import parts
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.jobs import Row

# Pooling: Spearman of the density after so many epochs of uniform training with
# the density after the last epoch.
PUBLISHED = {
  0: 0.00,
  5: 0.76,
  10: 0.88,
  50: 0.95,
  100: 0.96,
  200: 1.00,
  300: 1.00,
}
EPOCHS = 300


def rows(request: Request) -> list[Row]:
  """Makes one row: uniform training, with densities along the way."""
  return [
    Row(('Pooling', 'uniform'), 'pooling', 'uniform', parts=(parts.DENSITIES,))
  ]


def extras(finished: Finished) -> dict[str, Any]:
  """Adds the table of correlations by epoch."""
  if not finished.jobs:
    return {}
  result = finished.results[finished.jobs[0].key]
  return table(result['parts']['densities'])


def table(part: Mapping[str, Any]) -> dict[str, Any]:
  """Writes the Spearman with the last densities, by epoch and tensor set.

  A published number stands where the same share of training is over.
  """
  total = part['epochs'][-1]
  shares = {epoch / EPOCHS: rho for epoch, rho in PUBLISHED.items()}
  lines = [
    f'Spearman of densities after so many of {total} epochs with the last '
    f'ones; published: with {EPOCHS} epochs, where as large a share is over.',
    '',
    f'| epoch | {" | ".join(part["spearman"])} | published |',
    f'| --- |{" --- |" * (len(part["spearman"]) + 1)}',
  ]
  for number, epoch in enumerate(part['epochs']):
    cells = [
      '-' if of_set[number] is None else f'{of_set[number]:.2f}'
      for of_set in part['spearman'].values()
    ]
    known = [
      rho for share, rho in shares.items() if abs(share - epoch / total) < 1e-3
    ]
    cells.append(f'{known[0]:.2f}' if known else '')
    lines.append(f'| {epoch} | {" | ".join(cells)} |')
  return {'densities': dict(part), 'lines': [*lines, '']}


ITEM = Item(
  title='Table 6: densities along uniform training, against the last ones',
  columns=('space', 'training'),
  rows=rows,
  figure=True,
  extras=extras,
)
