"""What a run would need and take on machines that are not there.

For instance `python -m jaxnas.plan --config mobilenet.py --topology v5e:4x4
h100:8`. The real training step is compiled for each: whether it fits, what it
moves, and how fast peak figures let it be. An estimate: nothing is measured,
nothing runs, and no images are needed.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxnas import cli, runs
from jaxnas.plan import table, topologies
from jaxnas.plan.topologies import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(cli.OfExperiment):
  """Flags of the command."""

  topology: tuple[str, ...] = ()
  """Machines, such as v5e:4x4, v6e:8x8, v4:2x2x2, v5p:4x4x4, a100:8, h100:8."""
  largest_batch: bool = True
  """Look for the largest batch that fits; without --quick by compiling more."""
  quick: bool = False
  """Compile with little optimization: several times faster; memory comes out a
  little too high, traffic up to twice, and the largest batch is reckoned from
  the one that is compiled. For spaces of many operations, whose
  step takes a compiler the better part of an hour."""
  out: Path | None = None
  """A JSON file for the figures and what they rest on."""


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.parse(Plan, argv)
  with cli.usage_errors():
    machines = to_plan(args.topology)
  # Nothing runs: a device that is here would only be taken from others.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from jaxnas.plan import compiling
  from jaxnas.plan.estimate import CAVEAT, estimate

  with cli.usage_errors():
    experiments = [
      compiling.experiment(args.experiment, machine) for machine in machines
    ]
  plans = []
  for machine, experiment in zip(machines, experiments, strict=True):
    print(f'{machine.name}: compiling', file=sys.stderr, flush=True)
    plans.append(
      estimate(
        experiment, machine, largest=args.largest_batch, quick=args.quick
      )
    )
  table.show(f'{Path(args.config or "").name}, planned', plans)
  print(CAVEAT)
  chips = {machine.kind: machine.chip for machine in machines}
  for kind, chip in chips.items():
    print(f'{kind}: {table.peaks(chip)}')
  if args.out is not None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(
      args.out,
      {
        'caveat': CAVEAT,
        'config': dataclasses.asdict(args.experiment),
        'environment': runs.environment(),
        'peaks': {kind: chip._asdict() for kind, chip in chips.items()},
        'plans': plans,
      },
    )
  return 0


def to_plan(names: Sequence[str]) -> list[Topology]:
  """Raises ValueError, before anything is compiled."""
  if not names:
    raise ValueError('say for what: --topology v5e:4x4 h100:8 for instance.')
  machines = [topologies.parse(name) for name in dict.fromkeys(names)]
  for machine in machines:
    topologies.check_compiler(machine)
  return machines


if __name__ == '__main__':
  sys.exit(main())
