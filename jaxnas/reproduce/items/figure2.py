"""Figure 2: gradient distance by layer, along training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnas.report import charts, compared
from jaxnas.reproduce import parts, render
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.jobs import Row


def rows(request: Request) -> list[Row]:
  """Makes one row: uniform training, with distances along the way."""
  return [
    Row(('Pooling', 'uniform'), 'pooling', 'uniform', parts=(parts.DISTANCES,))
  ]


def extras(finished: Finished) -> dict[str, Any]:
  """Draws both panels."""
  drawn = [
    figure
    for job in finished.jobs
    for figure in figures(finished.results[job.key]['parts']['distances'])
  ]
  return render.pictures(drawn, finished.out)


def figures(part: Mapping[str, Any]) -> list[charts.Figure]:
  """Makes both panels: layers by row, epochs from left to right."""
  names = part['tensors']
  order = sorted(range(len(names)), key=lambda t: compared.depth(names[t]))
  return [
    charts.Grid(
      name=f'figure2-{panel}',
      title=f'Mean gradient distance, {images}',
      xlabel='epoch',
      rows=[names[t].removesuffix('/kernel') for t in order],
      columns=[str(epoch) for epoch in part['epochs']],
      value_RxC=np.array(part[panel], float)[:, order].T,
      unit='mean cosine distance',
    )
    for panel, images in (
      ('training', 'a training batch each'),
      ('validation', 'one same validation batch'),
    )
  ]


ITEM = Item(
  title='Figure 2: gradient distance by layer, along training',
  columns=('space', 'training'),
  rows=rows,
  figure=True,
  extras=extras,
)
