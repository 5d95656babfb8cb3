"""Rank a trained supernet's architectures anew, and hold them to the truth.

It ranks on other images, on more of them, or with batch normalisation another
way; for instance `python -m jaxnas.rank --run RUN --ranking.split test
--ranking.bn recalibrate`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnas import truth
from jaxnas.config import Config, Ranking, flags, run_flags, run_folder
from jaxnas.runtime import errors, files, startup, streams


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank(flags.Truth, run_flags.RunCommand):
  """Flags of the command; what is not given is as in the run."""

  ranking: run_flags.Ranking


def main(argv: Sequence[str] | None = None) -> int:
  args, config = run_flags.parse(as_in_run, argv, __doc__)
  result = rank(args, config)
  from jaxnas.report.console import ranking as console

  console.show({'ranking': result})
  return 0


def as_in_run(run: Path, config: Config) -> Rank:
  """Returns the flags that rank as the run did."""
  return Rank(run=run, ranking=run_flags.ranking_of(config))


def rank(
  args: Rank, config: Config, ends: errors.Ends = errors.COMMAND
) -> dict[str, Any]:
  """Ranks as the flags say; returns what correlation.json holds."""
  given = args.ranking
  name = f'rank-{given.split}-{given.bn}'
  if given.average != Ranking.average:
    name += f'-{given.average}'
  workdir = args.workdir or args.run / name
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import (
    averages,
    made_of,
    origin,
    predictions,
    reports,
    trained,
  )
  from jaxnas.runtime.preemption import Preemption

  with ends.usage():
    startup.prepare_process()
    experiment, state = trained.load(args.run, config, args.ranking)
    scored = averages.states(experiment, state, args.run)
    table = truth.find(
      experiment.space,
      config.data.name,
      args.table,
      args.run,
      args.table_column,
    )
    if table is not None:
      # Raises where it does not cover what is ranked.
      table.accuracy(experiment.ranking_archs_AxE)
    run_folder.make_workdir(
      workdir, 'rank', run=args.run, overwrite=args.overwrite
    )
    files.write_json(
      workdir / 'rank.json', made_of.evaluation(experiment, state)
    )
  print(f'{args.run}: {experiment.images}')
  if table is not None:
    print(table)
  stopped = 'stopped, nothing lost: the same command goes on'
  with ends.outcome(workdir, stopped), Preemption() as preemption:
    if not predictions.take_over(experiment, state, args.run, workdir):
      predictions.predict(
        experiment,
        state,
        experiment.ranking_archs_AxE,
        workdir,
        preemption.check,
        scored,
      )
    files.write_json(
      workdir / origin.FILE,
      origin.describe(run=str(args.run.absolute()), step=int(state.step)),
    )
    return reports.summarize(experiment, workdir, table)


if __name__ == '__main__':
  streams.run(main)
