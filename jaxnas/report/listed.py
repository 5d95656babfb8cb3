"""Makes what the page lists: networks, architectures and commands."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnas.config import to_json
from jaxnas.report import ranked
from jaxnas.report.blocks import Code, Network, Table
from jaxnas.report.folders import Run
from jaxnas.runtime import words
from jaxnas.spaces import Space
from jaxnas.spaces.nas_bench_201 import EDGES, CellSpace

# A page with more rows would be slow.
MOST_LISTED = 300


def networks(runs: Sequence[Run]) -> list[Network]:
  """Draws what each run chose; runs that chose the same share a drawing."""
  by: dict[str, list[str]] = {}
  for run in runs:
    if run.correlation is not None:
      by.setdefault(run.correlation['best_arch'], []).append(run.label)
  return drawn(runs[0].space, by)


def drawn(space: Space, by: Mapping[str, Sequence[str]]) -> list[Network]:
  """Draws architectures by the labels of the runs that chose them."""
  archs = [space.parse(arch).tolist() for arch in by]
  names = [
    f'{source} to {node}'
    for source, node in (EDGES if isinstance(space, CellSpace) else ())
  ] or [str(e + 1) for e in range(space.positions)]
  return [
    Network(
      f'Chosen by {" and ".join(who)}: {arch}',
      [
        (names[e], space.ops[e][op], len({one[e] for one in archs}) > 1)
        for e, op in enumerate(ops)
      ],
    )
    for (arch, who), ops in zip(by.items(), archs, strict=True)
  ]


def architectures(runs: Sequence[Run]) -> list[Table]:
  """Lists what is known about each architecture of the first ranked run."""
  run = next((run for run in runs if run.predictions is not None), None)
  if run is None or run.predictions is None:
    return []
  columns, count = ranked.columns(run), len(run.predictions['accuracy_A'])
  order = (-run.predictions['accuracy_A']).argsort(kind='stable')[:MOST_LISTED]
  listed = f'The first {len(order):,} of {words.counted(count, "architecture")}'
  if len(order) == count:
    listed = f'All {words.counted(count, "architecture")}'
  return [
    Table(
      [*columns],
      [[column[a] for column in columns.values()] for a in order.tolist()],
      f'{listed}, as {run.label} ranks them. Click on a head to sort by its '
      'column.',
      sortable=True,
    )
  ]


def reproduction(runs: Sequence[Run]) -> list[Any]:
  """Lists commands, machines, versions and configs."""
  rows = []
  for run in runs:
    there = run.environment or {}
    rows.append(
      [
        run.label,
        str(there.get('platform', '-')),
        str(there.get('cpus', '-')),
        str(there.get('precision', '-')),
        str(there.get('python', '-')),
      ]
    )
  versions = {
    run.label: (run.environment or {}).get('versions', {}) for run in runs
  }
  packages = dict.fromkeys(name for one in versions.values() for name in one)
  return [
    *commands(runs),
    Table(['', 'platform', 'CPUs', 'precision', 'Python'], rows),
    Table(
      ['', *packages],
      [
        [label, *(str(one.get(name, '-')) for name in packages)]
        for label, one in versions.items()
      ],
    ),
    *(
      Code(f'{run.name}/config.json', to_json(run.config), folded=True)
      for run in runs
    ),
  ]


def commands(runs: Sequence[Run]) -> list[Code]:
  """Returns what trains each run again, to be pasted where its folder is seen.

  The command that was typed would not do: it may have been a resumption's, or
  a notebook's.
  """
  out = []
  folders = {run.folder for run in runs}
  for run in runs:
    if run.folder.name == 'undebiased' and run.folder.parent in folders:
      continue
    twin = run.folder / 'undebiased'
    labels = [one.label for one in runs if one.folder in (run.folder, twin)]
    line = ['python', '-m', 'jaxnas.train']
    line += ['--config', str(run.folder / 'config.json')]
    if run.truth is not None:
      line += ['--table', str(run.folder / 'table.json')]
    if run.config.modules:
      line += ['--trust_module', run.config.modules]
    line += ['--workdir', f'{run.folder.resolve().name}-again']
    out.append(Code(f'Train again: {", ".join(labels)}', shlex.join(line)))
  return out
