"""Compare the architectures of a trained supernet: densities and distances.

For instance `python -m jaxnas.measure --run runs/macro --measure gradient
functional`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxnas import spaces
from jaxnas.config import (
  Config,
  Density,
  fields,
  run_flags,
  run_folder,
  validation,
)
from jaxnas.config.fields import Count
from jaxnas.config.registry import MEASURES
from jaxnas.config.run_flags import Hidden
from jaxnas.runtime import errors, files, startup, streams


@dataclasses.dataclass(frozen=True)
class Fields(Density):
  """Flags of the comparison; what only training uses is hidden."""

  file: Hidden = None
  measure: Hidden = Density.measure
  estimator: Hidden = Density.estimator
  prototypes: Hidden = Density.prototypes
  archs: Hidden = Density.archs
  scale: Hidden = Density.scale
  refresh_epochs: Hidden = None
  log_epochs: Hidden = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure(run_flags.RunCommand):
  """Flags of the command; what is not given is as in the run."""

  measure: tuple[str, ...]
  """Measures of density, taken one after the other."""
  estimator: Literal['inverse_mean_distance', 'kde']
  """From distances to a density."""
  archs: int | None = None
  """Number of architectures, drawn with a fixed seed. Default: all."""
  latency: bool = False
  """Time each op on this machine instead, for --cost_table of jaxnas.search."""
  latency_batch_size: Count = 1
  """Images in a forward pass that is timed."""
  density: Fields


def main(argv: Sequence[str] | None = None) -> int:
  args, config = run_flags.parse(as_in_run, argv, __doc__)
  measure(args, config, show=True)
  return 0


def measure(
  args: Measure,
  run: Config,
  ends: errors.Ends = errors.COMMAND,
  *,
  show: bool = False,
) -> dict[str, Any]:
  """Measures as the flags say; returns a `density.Density` by measure.

  Args:
    args: the flags.
    run: the config of the run.
    ends: of errors.
    show: print densities, and how they agree with others at hand.
  """
  workdir = args.workdir or args.run / 'measure'
  if args.latency:
    return time_ops(args, run, workdir, ends)
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import build, densities, measuring, origin, trained
  from jaxnas.report import figures
  from jaxnas.report.console import densities as console
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    startup.prepare_process()
    given = asked(args, run)
    archs_AxE = measuring.choose(spaces.get(run.space), args.archs, run.seed)
    experiment = dataclasses.replace(
      build.experiment(measuring.seen_with(run, args.density)), run=run
    )
    measuring.check(experiment, archs_AxE, given)
    state = trained.newest(experiment, args.run)
    run_folder.make_workdir(
      workdir, 'measure', run=args.run, overwrite=args.overwrite
    )
    mark = workdir / 'measure.json'
    files.write_json(mark, origin.describe(run=str(args.run)))
  print(
    f'{args.run}: the checkpoint is at step {int(state.step)} of '
    f'{experiment.steps}'
  )
  print(f'{args.run}: {experiment.images}')
  stopped = (
    f'stopped: {workdir} keeps the densities that are done; the same command '
    'estimates all of them again'
  )
  with ends.outcome(workdir, stopped), Preemption() as preemption:
    measured, of_rules = measuring.measure(
      experiment,
      state,
      given,
      archs_AxE,
      workdir,
      draw=lambda name, distance_AxA: figures.matrix(
        distance_AxA,
        workdir / f'distances-{name}.png',
        title=f'{name} distance of {len(distance_AxA)} architectures',
      ),
      poll=preemption.check,
    )
    figures.histogram(
      {
        f'{name}\n{given[name].estimator}': estimated.alpha_A
        for name, estimated in measured.items()
      },
      workdir / 'density.png',
    )
    for name, rows in of_rules.items():
      figures.updates(rows, workdir / f'updates-{name}.png')
    files.write_json(
      mark,
      origin.describe(
        run=str(args.run.absolute()),
        step=int(state.step),
        images=len(experiment.held_out.density),
        skipped_images=len(experiment.skipped),
        precision=str(experiment.net.dtype),
      ),
    )
  if show:
    console.show(experiment.space, args.estimator, measured)
    for name, rows in of_rules.items():
      console.show_updates(name, rows)
    like = densities.facts(experiment, state, next(iter(given.values())))
    console.show_agreement(
      measuring.comparable(workdir, args.run, archs_AxE, like)
    )
  return measured


def time_ops(
  args: Measure, run: Config, workdir: Path, ends: errors.Ends
) -> dict[str, Any]:
  """Times each op, and returns what the table's file holds."""
  from jaxnas.experiment import latency
  from jaxnas.nn import target
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    startup.prepare_process()
    run_folder.make_workdir(
      workdir, 'measure', run=args.run, overwrite=args.overwrite
    )
  stopped = 'stopped: the same command times all ops again'
  with ends.outcome(workdir, stopped), Preemption() as preemption:
    space, measured = latency.measure(
      run, args.latency_batch_size, preemption.check
    )
    dtype = str(target.dtype(run.precision))
    table = latency.write(
      workdir,
      space,
      measured,
      batch_size=args.latency_batch_size,
      dtype=dtype,
    )
  whole_C, tau = measured.measured_C, table['checked']['kendall']
  print(
    f'{workdir / latency.FILE}: {space.name} on {table["device"]}, '
    f'{args.latency_batch_size} images in {dtype}: {measured.base_ms:.4g} ms '
    f'in common, and up to {sum(c.max() for c in measured.by_op):.4g} ms by ops'
  )
  print(
    f'{len(whole_C)} networks compiled alone take {whole_C.min():.4g} to '
    f'{whole_C.max():.4g} ms; the table is {measured.error:.0%} off in the '
    f'mean, Kendall {"undefined" if tau is None else f"{tau:.2f}"}'
  )
  if measured.error > latency.FAR_OFF:
    print(
      'warning: this table is far off: raise --latency_batch_size, or time '
      'while the machine does nothing else'
    )
  print(
    f'use it: python -m jaxnas.search --run {args.run} --cost_table '
    f'{workdir / latency.FILE} --max_cost {np.median(whole_C):.3g}'
  )
  return table


def as_in_run(run: Path, config: Config) -> Measure:
  """Returns the flags that measure as the run did."""
  given = dataclasses.asdict(config.density)
  kde = config.density.estimator == 'kde'
  return Measure(
    run=run,
    measure=(config.density.measure,),
    estimator='kde' if kde else 'inverse_mean_distance',
    density=Fields(
      **{
        name: value
        for name, value in given.items()
        if name not in Fields.__annotations__
      }
    ),
  )


def asked(args: Measure, run: Config) -> dict[str, Density]:
  """Returns the config's section for each measure.

  A field that the run needed and this measure does not is at its default.

  Raises ValueError for a field that no measure of the command uses.
  """
  if not args.measure:
    raise ValueError('--measure names nothing: give one or several.')
  for name in args.measure:
    MEASURES.check(name, '--measure')
  chosen = {'measure': args.measure, 'estimator': (args.estimator,)}
  out = {}
  for name in args.measure:
    values = dataclasses.asdict(args.density)
    values |= {'measure': name, 'estimator': args.estimator}
    for field, owner, using in fields.owners(Density):
      if values[owner] not in using:
        of_run = values[field] == getattr(run.density, field)
        if of_run or {*using} & {*chosen[owner]}:
          values[field] = getattr(Density, field)
    if not MEASURES.takes_options(name) and (
      values['options'] == run.density.options
      or any(map(MEASURES.takes_options, args.measure))
    ):
      values['options'] = None
    out[name] = Density(**values)
    validation.validate(
      dataclasses.replace(run.undebiased(), density=out[name])
    )
  return out


if __name__ == '__main__':
  streams.run(main)
