"""Estimate memory and time of a run on machines that are not there.

For instance `python -m jaxnas.plan --config mobilenet.py --topology v5e:4x4
h100:8`. The command compiles the real training step for each machine, and says
whether it fits, what it moves, and how fast peak figures let it be. Nothing is
measured, nothing runs, and no images are needed.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxnas.config import flags
from jaxnas.plan import table, topologies
from jaxnas.plan.topologies import Topology
from jaxnas.runtime import (
  environment,
  errors,
  files,
  jax_settings,
  outputs,
  streams,
)

# Spaces with more operations, all positions together, are compiled quickly:
# NAS-Bench-Macro has 24, MobileNet 273.
MANY = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(flags.Writes, flags.OfExperiment):
  """Flags of the command."""

  topology: tuple[str, ...] = ()
  """Machines, such as v5e:4x4, v6e:8x8, v4:2x2x2, v5p:4x4x4, a100:8, h100:8."""
  effort: Literal['auto', 'quick', 'full'] = 'auto'
  """Effort of the compiler to make the step fast. Quick takes a fraction of
  the time; memory comes out a little too high, traffic up to twice too high,
  and the largest batch is computed from the one that is compiled. Auto is quick
  for spaces of more than 100 operations, whose step takes hours otherwise."""
  largest_batch: bool = True
  """Find the largest batch that fits; this compiles more steps unless quick."""
  out: Path | None = None
  """A JSON file for the figures and the assumptions behind them."""


def is_quick(effort: str, counts: Sequence[int]) -> bool:
  """Returns True where a step of a space is compiled quickly.

  Args:
    effort: the flag.
    counts: the number of candidates at each position of the space.
  """
  return effort == 'quick' or (effort == 'auto' and sum(counts) > MANY)


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Plan, argv)
  with errors.usage_errors():
    if args.out is not None:
      outputs.check_file(
        args.out, '--out', check_ours, overwrite=args.overwrite
      )
    machines = to_plan(args.topology)
  # Nothing runs, so leave the devices of this machine to others.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from jaxnas.plan import compiling
  from jaxnas.plan.estimate import CAVEAT, estimate

  with errors.usage_errors():
    jax_settings.check()
    experiments = [
      compiling.experiment(args.experiment, machine) for machine in machines
    ]
  plans = []
  # Compilers take memory, and a disk may be full.
  with errors.outcome(args.out or Path(), 'stopped'):
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
    chips = {machine.kind: machine.chip for machine in machines}
    if args.out is not None:
      args.out.parent.mkdir(parents=True, exist_ok=True)
      files.write_json(
        args.out,
        {
          'caveat': CAVEAT,
          'config': dataclasses.asdict(args.experiment),
          'environment': environment.environment(),
          'peaks': {kind: chip._asdict() for kind, chip in chips.items()},
          'plans': plans,
        },
      )
  table.show(f'{Path(args.config or "").name}, planned', plans)
  print(CAVEAT)
  for kind, chip in chips.items():
    print(f'{kind}: {table.peaks(chip)}')
  return 0


def check_ours(file: Path) -> None:
  """Raises ValueError where a file holds no plans."""
  files.read_json(file, {'caveat': str, 'plans': list})


def to_plan(names: Sequence[str]) -> list[Topology]:
  """Parses the machines.

  Raises ValueError, before anything is compiled, for one that is not known or
  whose compiler is missing.
  """
  if not names:
    raise ValueError('name machines: --topology v5e:4x4 h100:8 for instance.')
  machines = [topologies.parse(name) for name in dict.fromkeys(names)]
  for machine in machines:
    topologies.check_compiler(machine)
  return machines


if __name__ == '__main__':
  streams.run(main)
