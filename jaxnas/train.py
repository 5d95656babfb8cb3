"""Train a supernet, debias it after the warm-up, rank its architectures.

For instance `python -m jaxnas.train --config quickstart.py`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxnas.config import flags
from jaxnas.runtime import environment, errors, processes, startup, streams


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(flags.Truth, flags.Command):
  """Flags of the command."""

  warmup_from: Path | None = None
  """A run whose warm-up to take over instead of repeating it, and its density
  where it was measured alike."""
  distributed: processes.Distributed = dataclasses.field(
    default_factory=processes.Distributed
  )


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Train, argv)
  config = args.experiment
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import start
  from jaxnas.report.console import ranking
  from jaxnas.runtime import preemption

  with errors.usage_errors():
    startup.prepare_process(args.distributed)
    started = start.start(
      config,
      args.workdir,
      name=args.config or 'run',
      table=args.table,
      table_column=args.table_column,
      warmup_from=args.warmup_from,
      resume=args.resume,
      overwrite=args.overwrite,
    )
  experiment, workdir, table, _ = started
  print(f'{workdir}: {config.space} on {config.data.name}, {experiment.images}')
  if table is not None:
    print(table)
  with (
    errors.outcome(workdir),
    processes.together(workdir),
    preemption.for_processes() as stop,
  ):
    results = start.finish(started, stop, environment.START_S)
    if processes.first():
      ranking.show(results)
  return 0


if __name__ == '__main__':
  streams.run(main)
