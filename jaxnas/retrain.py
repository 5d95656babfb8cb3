"""Train architectures alone, from scratch: the ground truth of a space.

For instance `python -m jaxnas.retrain --config digits_truth.py --all`.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxnas import cli, runs, spaces, tables

if TYPE_CHECKING:
  pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(cli.Command):
  """Flags of the command."""

  arch: str | None = None
  """One architecture, in the space's notation."""
  all: bool = False
  """Every architecture of the space."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Retrain, argv)
  config = args.experiment
  workdir = args.workdir or runs.new_workdir(args.config or 'retrain')
  from jaxnas.training.preemption import Preemption

  with cli.usage_errors():
    space = spaces.get(config.space)
    if args.all == (args.arch is not None):
      raise ValueError('give either --arch ARCH or --all.')
    archs_AxE = space.enumerate() if args.all else space.parse(args.arch)[None]
    train_alone = trainer(config)
    runs.open_run(workdir, config, resume=args.resume)
  with cli.outcome(workdir), Preemption() as preemption:
    accuracy = retrain(
      space, archs_AxE, train_alone, config.retrain.seeds, workdir, preemption
    )
    if args.all:
      table = tables.Table(...)
  return 0
