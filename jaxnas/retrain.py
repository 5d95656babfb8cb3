"""Train architectures alone, from scratch: the ground truth of a space.

For instance `python -m jaxnas.retrain --config digits_truth.py --all --workers
2`, or `python -m jaxnas.retrain --run RUN --arch best`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxnas.config import flags, validation
from jaxnas.many import flags as many
from jaxnas.runtime import errors, lock, startup, streams

if TYPE_CHECKING:
  from jaxnas.many.rows import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(many.Gathers):
  """Flags of the command."""

  run: Path | None = None
  """A run of jaxnas.train, instead of --config: its space and its data."""
  arch: str | None = None
  """One architecture, in the space's notation; best: what the search in the
  run's folder `search` has found, else what the run ranks first."""
  all: bool = False
  """Every architecture of the space, with one program; writes table.json."""
  archs: Path | None = None
  """A file with an architecture a line; writes a table of them."""
  sample: int | None = None
  """Number of architectures to draw, those that a run with ranking.archs of so
  many ranks; writes a table of them."""
  each: int = 1
  """Architectures of a table that a process trains one after the other, with
  --on and --workers: more where a training takes seconds, as its start does."""


class Asked(NamedTuple):
  """The architectures that a call trains."""

  arch: str | None = None
  """One alone."""
  archs: tuple[str, ...] | None = None
  """The rows of a table; None: all of the space."""


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Retrain, argv)
  if args.gather:
    return gather(args)
  if args.dry_run:
    return dry_run(args)
  failed: dict[str, str] = {}
  retrain(args, failed=failed)
  return report_failures(args, failed)


def retrain(
  args: Retrain,
  ends: errors.Ends = errors.COMMAND,
  failed: dict[str, str] | None = None,
) -> Path:
  """Trains as the flags say; returns the folder of what they reach.

  Args:
    args: the flags.
    ends: says what becomes of errors.
    failed: gets a line for each architecture that failed.
  """
  if args.only is not None:
    return retrain_rows(args, args.only.split(), ends)
  given = args.workdir or (args.run / 'retrain' if args.run else None)
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import build, contents, retraining
  from jaxnas.many import driver, rows
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    args = many.check(args)
    validation.at_least_one('--each', args.each)
    asked = chosen(args, given)
    if args.in_processes:
      driver.prepare(args)
    startup.prepare_process()
    # It raises where there are too many to list.
    archs_AxE = (
      None if asked.arch else rows.listed(args.experiment, asked.archs)
    )
    built = build.stand_alone(args.experiment, asked.arch)
    if args.run:
      contents.check(args.run, built.images)
    workdir = contents.open_run(
      given,
      args.experiment,
      built.images,
      resume=args.resume,
      name=args.config or 'retrain',
      command='retrain',
      run=args.run,
      overwrite=args.overwrite,
    )
    retraining.write_request(workdir, *asked)
  print(f'{workdir}: {built.images}')
  with ends.outcome(workdir), Preemption() as preemption:
    if archs_AxE is None:
      assert asked.arch is not None
      retraining.retrain(built, asked.arch, workdir, preemption)
      return workdir
    table = rows.Rows(args.experiment, archs_AxE, workdir)
    table.collect()
    if not args.in_processes:
      retraining.retrain_listed(built, archs_AxE, workdir, preemption)
      return workdir
    argv = many.argv_of_task(workdir, args, args.experiment)
    work, done = table.work(argv, args.each)
    ended = driver.run(work, args, preemption, done)
    if failed is not None and not args.later:
      failed.update(table.failed(ended))
    if not args.later:
      table.collect()
      table.write_table()
  return workdir


def retrain_rows(
  args: Retrain, archs: Sequence[str], ends: errors.Ends
) -> Path:
  """Trains some architectures of the table in --workdir; returns that.

  Raises SystemExit where one failed.
  """
  from jaxnas.experiment import build, contents, retraining
  from jaxnas.many import rows, tasks
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    startup.prepare_process()
    config = rows.saving_rarely(args.experiment)
    built = build.stand_alone(config, None)
    for arch in archs:
      built.space.parse(arch)
    args = many.check(args)
    assert args.workdir is not None
    workdir = args.workdir
    contents.check(workdir, built.images)

  def opened(arch: str) -> Path:
    folder = rows.folder(workdir, config, arch)
    with ends.usage():
      contents.open_run(
        folder, config, built.images, resume=True, command='retrain'
      )
      retraining.write_request(folder, None, [arch])
    return folder

  code = 0
  with ends.outcome(workdir), Preemption() as preemption:
    for arch, error in retraining.retrain_rows(
      built, archs, opened, preemption
    ):
      lock.release()
      folder = rows.folder(workdir, config, arch)
      if error is None:
        (folder / tasks.FAILED).unlink(missing_ok=True)
        continue
      code = 1
      line = f'error: {errors.line_of(error)}'
      print(line, file=sys.stderr)
      tasks.fail(folder, line, code)
  if code:
    raise SystemExit(code)
  return workdir


def chosen(args: Retrain, workdir: Path | None) -> Asked:
  """Returns the architectures to train, by flags or by the run.

  Raises ValueError where they name none, or other ones.
  """
  from jaxnas.experiment import retraining, trained
  from jaxnas.many import rows

  arch = args.arch
  if arch == 'best':
    if args.run is None:
      raise ValueError('--arch best is what a run has found: give --run RUN.')
    arch = trained.best_arch(args.run)
  ways = [arch is not None, args.all, args.archs is not None]
  given = sum([*ways, args.sample is not None])
  if workdir and args.resume and (workdir / retraining.TRAINS).exists():
    kept = retraining.arch_of(workdir)
    if not given and kept is None:
      listed = retraining.listed_in(workdir)
      return Asked(archs=None if listed is None else tuple(listed))
    if not given or (arch == kept and given == 1):
      # A table may become one of other architectures, which are independent.
      if kept is not None:
        return Asked(kept)
    else:
      raise ValueError(
        f'{workdir} trains {kept or "several"}, not {arch or "several"}: '
        'resume it as it is, or choose another --workdir.'
      )
  if given != 1:
    raise ValueError('give one of --arch ARCH, --all, --archs and --sample.')
  if arch is not None:
    if args.in_processes or args.dry_run:
      raise ValueError(
        '--arch is a single training: --on, --workers and --dry_run are of '
        '--all, --archs and --sample.'
      )
    return Asked(arch)
  if args.all:
    return Asked()
  if args.archs is not None:
    return Asked(archs=rows.read_archs(args.experiment, args.archs))
  assert args.sample is not None
  return Asked(archs=rows.drawn(args.experiment, args.sample))


def rows_of(args: Retrain) -> 'Rows':
  """Returns the table that flags are about, with nothing written."""
  from jaxnas.many import rows

  args = many.check(args)
  asked = chosen(args, args.workdir)
  if asked.arch is not None:
    raise ValueError(
      f'{args.workdir} trains {asked.arch} alone: --gather and --dry_run are '
      'of tables.'
    )
  workdir = args.workdir or Path('runs')
  archs_AxE = rows.listed(args.experiment, asked.archs)
  return rows.Rows(args.experiment, archs_AxE, workdir)


def gather(args: Retrain) -> int:
  """Shows how far a table is, and writes it as far as it is."""
  from jaxnas.many import driver

  with errors.usage_errors():
    driver.leave_devices()
    table = rows_of(args)
    # What this process trained itself has no folder.
    missing = {*table.missing()}
    driver.show(table.tasks(), str(args.workdir), {*table.names} - missing)
    table.write_table()
  return 0


def dry_run(args: Retrain) -> int:
  """Says what the trainings that are left would take."""
  from jaxnas.many import cost

  with errors.usage_errors():
    table = rows_of(args)
    missing, seeds = table.missing(), table.seeds
    done = table.read()
    left = len(table.names) * seeds - len(
      {
        (row['arch'], row['seed'])
        for row in done
        if row['arch'] in table.folders
      }
    )
    cost.show(
      cost.Estimate(
        left,
        f'{len(table.names)} networks x {seeds} seeds',
        [row['wall_s'] for row in done if 'wall_s' in row],
        [
          f for n, f in table.folders.items() if n not in missing and f.exists()
        ],
        len(missing) if args.in_processes else 0,
      ),
      args,
    )
  return 0


def report_failures(args: Retrain, failed: dict[str, str]) -> int:
  """Prints a line for each reason of failures, and returns the exit code."""
  if not failed:
    return 0
  from jaxnas.many import driver

  for line in driver.report(failed):
    print(f'error: {line}', file=sys.stderr)
  print(
    'try again with the same command and --resume; what is done stays',
    file=sys.stderr,
  )
  return 1


if __name__ == '__main__':
  streams.run(main)
