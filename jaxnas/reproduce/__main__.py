"""Make the paper's tables and figures, and those around it.

Runs that are finished, in --out or in --results, are not repeated; those that
a signal stopped go on where they were. For instance `python -m jaxnas.reproduce
table3 --scale cpu --data.dir DIR --out DIR`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from jaxnas import cli, runs, validation

Name = Literal[
  'table3',
  'table4',
  'table5',
  'table6',
  'figure1',
  'figure2',
  'bse',
  'table_nb201',
  'table_imagenet',
  'table_samplers',
  'table_measures',
  'all',
]


@dataclasses.dataclass(frozen=True)
class Data:
  """Where images are."""

  dir: Path | None = None
  """CIFAR-10, as `jaxnas.prepare` wrote it."""
  imagenet: Path | None = None
  """ImageNet, of table_imagenet."""


@dataclasses.dataclass(frozen=True)
class Truth:
  """Tables of ground truth that are not shipped."""

  nas_bench_macro: Path | None = None
  """The json of NAS-Bench-Macro."""
  nas_bench_201: Path | None = None
  """What `jaxnas.prepare nas_bench_201` wrote."""


NO_DATA, NO_TRUTH = Data(), Truth()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
  """Flags of the command."""

  items: tyro.conf.Positional[tuple[Name, ...]]
  """What to make; all of a scale by `all`."""
  out: Path
  """Gets an item as ITEM.md and ITEM.json, figures, and runs/."""
  scale: Literal['cpu', 'paper'] = 'cpu'
  """cpu: the _cpu configs, on two cores; paper: the published schedules."""
  seeds: int | None = None
  """Runs of each kind. None: 3 of table 3 on Pooling, 1 of others."""
  temperatures: tuple[float, ...] = ()
  """More rows of table5, for both spaces."""
  results: Path = Path('results')
  """Where finished runs are looked for, and kept: a file a run."""
  dry_run: bool = False
  """Only say which runs are needed, which are finished, and hours left."""
  data: Data = NO_DATA
  truth: Truth = NO_TRUTH


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.read(
    Reproduce, argv, prog='python -m jaxnas.reproduce', description=__doc__
  )
  with cli.usage_errors():
    if not args.items:
      raise ValueError('name what to make: table3 for instance, or all.')
    if args.seeds is not None:
      validation.at_least_one('--seeds', args.seeds)
    for tau in args.temperatures:
      validation.above_zero('--temperatures', tau)
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.reproduce import drawn, items, plan, render, store, work
  from jaxnas.training.preemption import Preemption

  with cli.usage_errors():
    names = plan.chosen(args.items, args.scale)
    known = items.with_temperatures(args.temperatures)
    where = {
      'cifar10': args.data.dir and str(args.data.dir),
      'imagenet': args.data.imagenet and str(args.data.imagenet),
    }
    planned = {
      name: plan.jobs(known[name], args.scale, args.seeds, where)
      for name in names
    }
    results = store.read([args.out / 'results', args.results])
    needed = work.merged(
      [job for of in planned.values() for _, row in of for job in row]
    )
  if args.dry_run:
    show(needed, results, args.out / 'runs')
    return 0
  tables = dataclasses.asdict(args.truth)
  failed: list[str] = []
  if not all(store.complete(job, results) for job in needed):
    cli.prepare_process()

    def keep(result: store.Result) -> None:
      for folder in (args.out / 'results', args.results):
        store.write(result, folder)

    with cli.usage_errors():
      plan.check(needed, results, tables)
    args.out.mkdir(parents=True, exist_ok=True)
    again = 'stopped, nothing lost: the same command goes on'
    with cli.outcome(args.out, again), Preemption() as preemption:
      failed = work.do(
        needed, args.out / 'runs', results, keep, tables, preemption
      )
  args.out.mkdir(parents=True, exist_ok=True)
  for name, rows in planned.items():
    content = render.content(
      name,
      known[name],
      args.scale,
      rows,
      results,
      tables,
      plan.command(name, args.scale, args.seeds, args.temperatures),
    )
    every = [job for _, of_seeds in rows for job in of_seeds]
    content |= drawn.extras(name, every, results, tables, args.out)
    runs.write_json(args.out / f'{name}.json', content)
    text = render.markdown(content)
    runs.write_text(args.out / f'{name}.md', text)
    print(text)
  for line in failed:
    print(f'error: {line}', file=sys.stderr)
  return 1 if failed else 0


def show(needed, results, folder: Path) -> None:
  """Prints the runs that are needed, and what is left of them."""
  from jaxnas.reproduce import store, work

  out = RichTable(box=box.SIMPLE_HEAD, title=f'{len(needed)} runs')
  for head in ('run', 'seed', 'config', 'key', 'state', 'hours'):
    out.add_column(head)
  left, unknown = 0.0, 0
  for job in needed:
    hours = None
    if store.complete(job, results):
      state = 'finished'
    else:
      begun = (folder / job.folder / 'config.json').exists()
      state = 'begun' if begun else 'missing'
      hours = work.hours(job, results)
      left, unknown = left + (hours or 0), unknown + (hours is None)
    out.add_row(
      ', '.join(job.row.names),
      str(job.config.seed),
      job.file,
      job.key,
      state,
      '' if state == 'finished' else '?' if hours is None else f'{hours:.2f}',
    )
  done = sum(store.complete(job, results) for job in needed)
  known = f'{left:.1f} hours left'
  if unknown:
    known += f', and {unknown} runs of unknown length: none like them is there'
  out.caption = f'{done} of {len(needed)} are finished; {known}'
  Console(width=None if sys.stdout.isatty() else 110).print(out)


if __name__ == '__main__':
  sys.exit(main())
