"""Make the paper's tables and figures, and some beside them.

Finished runs, in --out or in --results, are not repeated; runs that a signal
stopped go on where they were. For instance `python -m jaxnas.reproduce
table3 --scale cpu --data.dir DIR --out DIR`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxnas.config import fields, flags, run_flags, validation
from jaxnas.many import flags as many
from jaxnas.runtime import (
  errors,
  files,
  inputs,
  lock,
  outputs,
  startup,
  streams,
  words,
)


@dataclasses.dataclass(frozen=True)
class Data(run_flags.Data):
  """Folders of images, and how they are read."""

  dir: fields.PathOrNone = None
  """CIFAR-10, as `jaxnas.prepare` wrote it."""
  imagenet: fields.PathOrNone = None
  """ImageNet, for table_imagenet."""

  def by_name(self) -> dict[str, run_flags.Data]:
    """Returns where each data set lies, and how it is read."""
    photos = run_flags.Data(self.imagenet, self.workers, self.on_error)
    return {'cifar10': run_flags.Data(self.dir), 'imagenet': photos}


@dataclasses.dataclass(frozen=True)
class Truth:
  """Tables of ground truth that are not shipped."""

  nas_bench_macro: Path | None = None
  """The json of NAS-Bench-Macro."""
  nas_bench_201: Path | None = None
  """The file that `jaxnas.prepare nas_bench_201` wrote."""


NO_DATA, NO_TRUTH = Data(), Truth()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(many.Many, flags.Writes):
  """Flags of the command."""

  items: tyro.conf.Positional[tuple[str, ...]]
  """Tables and figures to make, such as table3 and figure1, or all of a scale;
  jaxnas/reproduce/README.md lists them."""
  out: Path
  """The folder for each item as ITEM.md and ITEM.json, figures, and runs/."""
  scale: Literal['cpu', 'paper'] = 'cpu'
  """The _cpu configs, made for two cores, or the published schedules."""
  seeds: int | None = None
  """Runs of each kind. None: 3 for table3 on Pooling, 1 for others."""
  temperatures: tuple[float, ...] = ()
  """More temperatures for the rows of table5, in both spaces."""
  results: Path = Path('results')
  """The folder in which finished runs are found and kept, a file each."""
  dry_run: bool = False
  """Say which runs are needed, which are finished, and the hours left."""
  gather: bool = False
  """Train nothing: make the items of the runs that are finished."""
  data: Data = NO_DATA
  truth: Truth = NO_TRUTH


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.read(
    Reproduce, argv, prog='python -m jaxnas.reproduce', description=__doc__
  )
  with errors.usage_errors():
    many.check(args)
    if not args.items:
      raise ValueError('name what to make: table3 for instance, or all.')
    if args.seeds is not None:
      validation.at_least_one('--seeds', args.seeds)
    for tau in args.temperatures:
      validation.above_zero('--temperatures', tau)
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.many import driver
  from jaxnas.many.tasks import begin
  from jaxnas.reproduce import arrays, items, plan, render, store, work
  from jaxnas.reproduce.item import Finished, Request
  from jaxnas.runtime.preemption import Preemption

  with errors.usage_errors():
    names = plan.chosen(args.items, args.scale)
    check_out(args, names)
    check_places(args)
    request = Request(args.scale, args.temperatures)
    where = args.data.by_name()
    planned = {
      name: plan.jobs(items.get(name), request, args.seeds, where)
      for name in names
    }
    results = store.read([args.out / 'results', args.results])
    needed = work.merged(
      [
        job
        for rows in planned.values()
        for _, of_seeds in rows
        for job in of_seeds
      ]
    )
    plan.check_flags(needed, args.data)
    if args.only is not None:
      needed = plan.only(needed, args.only)
  if args.dry_run:
    show(needed, results, args.out / 'runs')
    return 0
  tables = dataclasses.asdict(args.truth)
  failed: list[str] = []
  left = [job for job in needed if not store.complete(job, results)]
  if left and not args.gather:

    def keep(result: store.Result, of_run: arrays.Arrays) -> store.Result:
      store.write(result, of_run, args.out / 'results')
      return store.write(result, of_run, args.results)

    with errors.usage_errors():
      if args.in_processes:
        driver.prepare(args)
      startup.prepare_process()
      plan.check(needed, results, tables)
      if args.only is not None:
        lock.keep(args.out / 'runs' / left[0].folder)
    args.out.mkdir(parents=True, exist_ok=True)
    again = 'stopped, nothing lost: the same command goes on'
    with errors.outcome(args.out, again), Preemption() as preemption:
      if args.in_processes:
        tasks = work.tasks(left, args.out)
        ended = driver.run(
          begin(
            args.out, 'jaxnas.reproduce.__main__', argv_of_task(args), tasks
          ),
          args,
          preemption,
          len(needed) - len(left),
        )
        if args.later:
          return 0
        failed = driver.report(ended)
        results = store.read([args.out / 'results', args.results])
      else:
        failed = work.do(
          needed, args.out / 'runs', results, keep, tables, preemption
        )
  if args.only is not None:
    return report_failures(failed)
  args.out.mkdir(parents=True, exist_ok=True)
  for name, rows in planned.items():
    item = items.get(name)
    content = render.content(
      name,
      item,
      args.scale,
      rows,
      results,
      tables,
      plan.command(name, request, args.seeds),
    )
    if item.extras is not None:
      done = [
        job
        for _, of_seeds in rows
        for job in of_seeds
        if store.complete(job, results)
      ]
      content |= item.extras(Finished(done, results, tables, args.out))
    files.write_json(args.out / f'{name}.json', content)
    text = render.markdown(content, item)
    files.write_text(args.out / f'{name}.md', text)
    print(text)
  return report_failures(failed)


def report_failures(failed: Sequence[str]) -> int:
  """Prints a line for each run that failed, and returns the exit code."""
  for line in failed:
    print(f'error: {line}', file=sys.stderr)
  return 1 if failed else 0


def argv_of_task(args: Reproduce) -> list[str]:
  """Returns the flags with which a process does one of the runs."""
  words = [*args.items, '--scale', args.scale]
  places = {
    'out': args.out,
    'results': args.results,
    'truth.nas_bench_macro': args.truth.nas_bench_macro,
    'truth.nas_bench_201': args.truth.nas_bench_201,
  }
  values = {
    name: place and place.absolute() for name, place in places.items()
  } | {
    'seeds': args.seeds,
    'trust_module': args.trust_module,
    'data.dir': args.data.dir,
    'data.imagenet': args.data.imagenet,
    'data.workers': args.data.workers,
    'data.on_error': args.data.on_error,
  }
  for name, value in values.items():
    if value is not None:
      words += [f'--{name}', str(value)]
  if args.temperatures:
    words += ['--temperatures', *map(str, args.temperatures)]
  return words


def check_out(args: Reproduce, names: Sequence[str]) -> None:
  """Raises ValueError where files are in the way that no item is."""
  for name in names:
    content, text = (args.out / f'{name}.{suffix}' for suffix in ('json', 'md'))

    def ours(file: Path, content: Path = content) -> None:
      files.read_json(content, {'item': str, 'rows': list})

    for file in (content, text):
      outputs.check_file(file, '--out', ours, overwrite=args.overwrite)


def check_places(args: Reproduce) -> None:
  """Raises an error where a flag names what cannot be what it must be.

  Folders may be missing, since a dry run needs none.
  """
  outputs.check_folder(args.results, '--results')
  for name, place in dataclasses.asdict(args.truth).items():
    if place is not None:
      inputs.check_file(place, f'--truth.{name}')
  for name in ('dir', 'imagenet'):
    if (place := getattr(args.data, name)) is not None:
      inputs.check_folder(Path(place), f'--data.{name}')


def show(needed, results, folder: Path) -> None:
  """Prints the runs that are needed, their state, and the hours left."""
  from jaxnas.reproduce import store, work
  from jaxnas.runtime import table

  out = table.table(
    words.counted(len(needed), 'run'),
    ['run', 'seed', 'config', 'key', 'state', 'hours'],
    words=['config', 'key', 'state'],
  )
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
    known += f', and {words.counted(unknown, "run")} of unknown length: none '
    known += 'like them is done'
  out.caption = f'{done} of {len(needed)} are finished; {known}'
  table.show(out, width=table.WIDTH)


if __name__ == '__main__':
  streams.run(main)
