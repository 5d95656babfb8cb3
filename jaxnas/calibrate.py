"""Calibrate a run's ranking by a few architectures that were trained alone.

For instance `python -m jaxnas.calibrate --run RUN --suggest 20` names twenty to
train with `jaxnas.retrain --archs`; with their accuracies, `--truths FILE`
gives every architecture a mean and a standard deviation.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from jaxnas import truth
from jaxnas.config import Config, fields, flags, run_flags, run_folder
from jaxnas.config import validation as checks
from jaxnas.config.run_flags import AS_IN_RUN, Hidden
from jaxnas.runtime import errors, files, startup, streams


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrate(flags.Truth, run_flags.RunCommand):
  """Flags of the command, which reads no images."""

  truths: Path | None = None
  """Accuracies of architectures trained alone: a table, or a folder of
  jaxnas.retrain."""
  k: Annotated[int | None, Interval(ge=2, le=fields.MANY)] = None
  """Take so many accuracies from the ground truth, spread over the ranking, as
  if only they were known, and hold the others to what comes out."""
  suggest: Annotated[int | None, Interval(ge=1, le=fields.MANY)] = None
  """Name so many architectures to train next: spread over the ranking where
  none is known, else by expected improvement over the best one known."""
  deterministic: Hidden = False
  data: Hidden = AS_IN_RUN


def main(argv: Sequence[str] | None = None) -> int:
  args, config = run_flags.parse(
    lambda run, config: Calibrate(run=run), argv, __doc__
  )
  calibrate(args, config, show=True)
  return 0


def calibrate(
  args: Calibrate,
  config: Config,
  ends: errors.Ends = errors.COMMAND,
  *,
  show: bool = False,
) -> dict[str, Any]:
  """Calibrates as the flags say; returns what calibration.json holds.

  Args:
    args: the flags.
    config: the config of the run.
    ends: of errors.
    show: print the outcome.
  """
  workdir = args.workdir or args.run / 'calibrate'
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import calibrating, origin
  from jaxnas.report.console import calibration as console
  from jaxnas.truth import calibration

  with ends.usage():
    startup.prepare_process()
    for name, interval in fields.ranges(Calibrate):
      if (value := getattr(args, name)) is not None:
        checks.check_range(f'--{name}', value, interval)
    ranked = calibrating.read(args.run, config)
    trained_K, accuracy_K, table = chosen(args, config, ranked)
    run_folder.make_workdir(
      workdir, 'calibrate', run=args.run, overwrite=args.overwrite
    )
    files.write_json(
      workdir / 'calibrate.json', origin.describe(run=str(args.run.absolute()))
    )
  with ends.outcome(workdir):
    found, result = None, {}
    if len(trained_K) >= calibration.FEWEST:
      found, result = calibrating.calibrate(
        ranked, trained_K, accuracy_K, table, workdir, seed=config.seed
      )
      if show:
        console.show(ranked, found, result, table)
    if args.suggest is not None:
      result['suggested'] = calibrating.suggest(
        ranked, args.suggest, trained_K, accuracy_K, found, workdir
      )
      if show:
        console.suggest(
          result['suggested'], args.suggest, workdir / calibrating.SUGGESTED
        )
  return result


def chosen(
  args: Calibrate, config: Config, ranked: Any
) -> tuple[Any, Any, truth.Table | None]:
  """Returns rows and accuracies that are known, and the truth of others.

  Raises ValueError where flags are at odds or name nothing.
  """
  import numpy as np

  from jaxnas.experiment import calibrating
  from jaxnas.truth import calibration

  if args.truths is not None and args.k is not None:
    raise ValueError('--k is of --table: give it, or --truths, not both.')
  if args.truths is None and args.k is None and args.suggest is None:
    raise ValueError('give --truths FILE, or --k 20, or --suggest 20.')
  table = truth.find(
    ranked.space, config.data.name, args.table, args.run, args.table_column
  )
  none = np.zeros(0, int)
  if args.truths is not None:
    given = calibrating.truths(args.truths, config, ranked.space)
    return *calibrating.rows_known(ranked, given), table
  if args.k is None:
    return none, np.zeros(0), table
  if table is None:
    raise ValueError('--k takes accuracies from a table: give --table FILE.')
  known_K, accuracy_K = calibrating.rows_known(ranked, table)
  checks.at_most('--k', args.k, len(known_K), 'accuracies in the table')
  # Architectures whose accuracy the table lacks cannot be taken.
  k_N = calibration.by_quantiles(ranked.score_A[known_K], args.k, none)
  return known_K[k_N], accuracy_K[k_N], table


if __name__ == '__main__':
  streams.run(main)
