"""Figure 1: rank in the supernet against rank alone."""

from typing import Any

import numpy as np

from jaxnas.report import charts, ranked
from jaxnas.reproduce import paired, render
from jaxnas.reproduce.item import Finished, Item
from jaxnas.reproduce.items import table3


def extras(finished: Finished) -> dict[str, Any]:
  """Draws a chart for each run, the best architectures ringed."""
  return render.pictures(figures(finished), finished.out)


def figures(finished: Finished) -> list[charts.Figure]:
  """Makes the charts of those runs whose predictions and truth are known."""
  out: list[charts.Figure] = []
  for colour, job in enumerate(finished.jobs):
    result = finished.results[job.key]
    truth_A = paired.truth_of(job, finished.tables)
    if truth_A is None or result['hits'] is None:
      continue
    title = ', '.join(job.row.names)
    top = render.signed(result['found']['top_kendall'])
    out.append(
      charts.Chart(
        name=f'figure1-{ranked.slug(title)}',
        title=f'{title}: top tau {top}',
        xlabel='rank alone',
        ylabel='rank in the supernet',
        marks=[
          charts.Dots(
            label=title,
            colour=colour % 2,
            x_N=ranked.rank_of(truth_A),
            y_N=ranked.rank_of(np.array(result['hits'], float)),
            ringed_M=np.argsort(-truth_A, kind='stable')[: ranked.BEST],
          )
        ],
        diagonal=True,
        ranks=True,
      )
    )
  return out


ITEM = Item(
  title='Figure 1: rank in the supernet against rank alone',
  columns=('space', 'training'),
  rows=table3.rows,
  figure=True,
  extras=extras,
)
