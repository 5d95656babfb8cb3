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
from typing import Literal

from jaxnas import cli, runs
from jaxnas.plan import table, topologies
from jaxnas.plan.topologies import Topology

# Operations of a space, all positions together: NAS-Bench-Macro has 24,
# MobileNet 273.
MANY = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(cli.OfExperiment):
  """Flags of the command."""

  topology: tuple[str, ...] = ()
  """Machines, such as v5e:4x4, v6e:8x8, v4:2x2x2, v5p:4x4x4, a100:8, h100:8."""
  effort: Literal['auto', 'quick', 'full'] = 'auto'
  """Of the compiler's to make the step fast. Quick is several times faster to
  wait for; memory comes out a little too high, traffic up to twice, and the
  largest batch is reckoned from the one that is compiled. Auto is quick for
  spaces of more than 100 operations, whose step takes hours otherwise."""
  largest_batch: bool = True
  """Find the largest batch that fits: by compiling more, where not quick."""
  out: Path | None = None
  """A JSON file for the figures and what they rest on."""


def is_quick(effort: str, counts: Sequence[int]) -> bool:
  """Of a space with so many candidates at each position."""
  return effort == 'quick' or (effort == 'auto' and sum(counts) > MANY)


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
        experiment,
        machine,
        largest=args.largest_batch,
        quick=is_quick(args.effort, experiment.space.counts),
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
