"""Figures 1 and 2, and table 6, which are no rows of metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.report import charts, compared, files, ranked
from jaxnas.reproduce import paired, published, render, store
from jaxnas.reproduce.jobs import Job


def extras(
  name: str,
  jobs: Sequence[Job],
  results: Mapping[str, store.Result],
  tables: Mapping[str, Path | None],
  out: Path,
) -> dict[str, Any]:
  """What an item adds to its content; its figures are written to `out`."""
  done = [job for job in jobs if store.complete(job, dict(results))]
  if name == 'table6' and done:
    return table6(results[done[0].key]['parts']['densities'])
  if name == 'figure1':
    return _figures(figure1(done, results, tables), out)
  if name == 'figure2':
    return _figures(
      [
        chart
        for job in done
        for chart in figure2(results[job.key]['parts']['distances'])
      ],
      out,
    )
  return {}


def table6(part: Mapping[str, Any]) -> dict[str, Any]:
  """Spearman with the last densities, by epoch and tensor set.

  A published figure stands where the same share of training is over.
  """
  total = part['epochs'][-1]
  shares = {
    epoch / published.TABLE_6_EPOCHS: rho
    for epoch, rho in published.TABLE_6.items()
  }
  lines = [
    f'Spearman of densities after so many of {total} epochs with the last '
    'ones; published: with 300 epochs, where as large a share is over.',
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


def figure1(
  jobs: Sequence[Job],
  results: Mapping[str, store.Result],
  tables: Mapping[str, Path | None],
) -> list[charts.Figure]:
  """Rank against rank, the best ringed."""
  out: list[charts.Figure] = []
  for colour, job in enumerate(jobs):
    truth_A, hits = paired.truth(job, tables), results[job.key]['hits']
    if truth_A is None or hits is None:
      continue
    title = ', '.join(job.row.names)
    top = results[job.key]['found']['top_kendall']
    out.append(
      charts.Chart(
        name=f'figure1-{ranked.slug(title)}',
        title=f'{title}: top tau {render.signed(top)}',
        xlabel='rank alone',
        ylabel='rank in the supernet',
        marks=[
          charts.Dots(
            label=title,
            colour=colour % 2,
            x_N=ranked.rank_of(truth_A),
            y_N=ranked.rank_of(np.array(hits, float)),
            ringed_M=np.argsort(-truth_A, kind='stable')[: ranked.BEST],
          )
        ],
        diagonal=True,
        ranks=True,
      )
    )
  return out


def figure2(part: Mapping[str, Any]) -> list[charts.Figure]:
  """Both panels: layers by colour, epochs from left to right."""
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


def _figures(drawn: Sequence[charts.Figure], out: Path) -> dict[str, Any]:
  lines = []
  for figure in drawn:
    picture, _ = files.save(figure, out)
    lines += [f'![{figure.title}]({picture.name})', '']
  return {'lines': lines}
