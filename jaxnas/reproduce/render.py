"""Writes items to be read: their numbers as JSON, and the same as Markdown."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.report import charts, svg
from jaxnas.reproduce import over_seeds, paired, store
from jaxnas.reproduce.item import Item
from jaxnas.reproduce.jobs import Job, Row, Scale

SCALED = 'scaled schedule: the `_cpu` configs, not the published ones'


def content(
  name: str,
  item: Item,
  scale: Scale,
  jobs: Sequence[tuple[Row, Sequence[Job]]],
  results: Mapping[str, store.Result],
  files: Mapping[str, Path | None],
  command: str,
) -> dict[str, Any]:
  """Returns the rows of an item, ready for JSON.

  Args:
    name: the item's name.
    item: the item.
    scale: the scale of its runs.
    jobs: rows with a job for each seed; none where a row has no run.
    results: finished runs by key.
    files: files of ground truth by space.
    command: the command that makes the item.
  """
  rows, done = [], []
  for row, of_seeds in jobs:
    found = [
      (job, results[job.key])
      for job in of_seeds
      if store.complete(job, dict(results))
    ]
    done += found
    rows.append(
      {
        'names': [*row.names],
        'wanted': len(of_seeds),
        'seeds': [job.config.seed for job, _ in found],
        'metrics': {
          metric.key: spread([metric.of(result) for _, result in found])
          for metric in item.metrics
        },
        'published': dict(row.published),
        'without': row.without,
      }
    )
  title = f'{item.title} ({SCALED})' if scale == 'cpu' else item.title
  return {
    'item': name,
    'title': title,
    'scale': scale,
    'command': command,
    'columns': [*item.columns],
    'rows': rows,
    'finished': len(done),
    'wanted': sum(len(of_seeds) for _, of_seeds in jobs),
    'note': item.note,
    'differences': paired.differences(
      [*itertools.chain(*(s for _, s in jobs))], results, files
    ),
    'runs': [_run(job, result) for job, result in done],
  }


def spread(values: Sequence[float | None]) -> dict[str, Any]:
  """Returns mean and sample standard deviation of the values that exist."""
  defined = [value for value in values if value is not None]
  return {
    'mean': float(np.mean(defined)) if defined else None,
    'deviation': float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
    'values': defined,
  }


def markdown(content: Mapping[str, Any], item: Item) -> str:
  """Writes the content of an item as Markdown."""
  rows, metrics = content['rows'], item.metrics
  compared = {m for m in metrics for row in rows if m.key in row['published']}
  head = [*content['columns'], 'n']
  for metric in metrics:
    head.append(metric.head)
    head += ['published'] if metric in compared else []
  body = []
  for row in rows:
    cells = [*row['names'], str(len(row['seeds']))]
    for metric in metrics:
      cells.append(_cell(row['metrics'][metric.key], metric.form))
      if metric in compared:
        known = row['published'].get(metric.key)
        cells.append('' if known is None else metric.form.format(known))
    body.append(cells)
  lines = [f'# {content["title"]}', '']
  if not rows:
    return '\n'.join([*lines, *content.get('lines', [])]).rstrip() + '\n'
  lines += [*table(head, body), '']
  notes = [
    'Mean ± standard deviation over n seeds. '
    f'{content["finished"]} of {content["wanted"]} runs are finished.',
    *(metric.note for metric in metrics),
    content['note'],
  ]
  lines += [' '.join(filter(None, notes)), '']
  for row in rows:
    if row['without']:
      lines += [f'{", ".join(row["names"])}: no run, {row["without"]}.', '']
  if content['differences']:
    lines += [
      "Kendall's tau, debiased less undebiased, the mean over seeds; 95% "
      'intervals over seeds (two or more), then over seeds and architectures:',
      '',
    ]
    for one in content['differences']:
      found = over_seeds.Estimate(
        **{field: one[field] for field in over_seeds.Estimate._fields}
      )
      lines.append(f'- {", ".join(one["names"])}: {found.text()}')
    lines.append('')
  lines += content.get('lines', [])
  lines += _runs(content)
  return '\n'.join(lines).rstrip() + '\n'


def _runs(content: Mapping[str, Any]) -> list[str]:
  if not content['runs']:
    return []
  baselines = {
    (run['space'], name): tau
    for run in content['runs']
    for name, tau in run['baselines'].items()
  }
  known = [
    f'{name} alone {tau:.3f} ({space})'
    for (space, name), tau in baselines.items()
    if tau is not None
  ]
  lines = ['## Runs', '']
  if known:
    lines += [f"Kendall's tau without any training: {', '.join(known)}.", '']
  head = ['run', 'seed', "Kendall's tau [95%]", 'ranked', 'images', 'wall time']
  lines += table(
    [*head, 'machine'],
    [
      [
        f'{", ".join(run["names"])} ({run["key"]})',
        str(run['seed']),
        run['tau'],
        f'{run["n"]:,}',
        f'{run["images"]:,}',
        f'{run["wall_s"] / 60:.1f} min',
        run['machine'],
      ]
      for run in content['runs']
    ],
  )
  commands = [f'{run["key"]}: {run["command"]}' for run in content['runs']]
  return [*lines, '', '```', content['command'], '', *commands, '```']


def _run(job: Job, result: store.Result) -> dict[str, Any]:
  found = result['found']
  interval = found.get('kendall_interval')
  tau = found.get('kendall')
  text = '-' if tau is None else f'{tau:.3f}'
  return {
    'key': job.key,
    'names': [*job.row.names],
    'space': result['space'],
    'seed': job.config.seed,
    'tau': text
    + (f' [{interval[0]:.2f}, {interval[1]:.2f}]' if interval else ''),
    'n': found['n'],
    'images': found['images'],
    'baselines': {
      name: values['kendall']
      for name, values in found.get('baselines', {}).items()
    },
    'wall_s': result['wall_s'],
    'machine': store.machine(result),
    'environment': result['environment'],
    'command': result['command'],
  }


def _cell(found: Mapping[str, Any], form: str) -> str:
  if found['mean'] is None:
    return '-'
  text = form.format(found['mean'])
  if found['deviation'] is not None:
    text += f' ± {form.format(found["deviation"])}'
  return text


def pictures(drawn: Sequence[charts.Figure], out: Path) -> dict[str, Any]:
  """Writes figures to a folder; returns the lines that show them."""
  lines = []
  for figure in drawn:
    (picture, _), _ = svg.save(figure, out)
    lines += [f'![{figure.title}]({picture.name})', '']
  return {'lines': lines}


def signed(value: float | None) -> str:
  return '-' if value is None else f'{value:+.3f}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  return [
    f'| {" | ".join(cells)} |' for cells in (head, ['---'] * len(head), *rows)
  ]
