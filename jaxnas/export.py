"""Hand over one architecture as a network that runs without jaxnas.

For instance `python -m jaxnas.export --run RUN --arch best --workdir DIR`, of a
run of jaxnas.train (weights inherited, batch normalisation recalibrated and
frozen) or of jaxnas.retrain (weights retrained). DIR gets network.bin, a
program of JAX with all weights, params/, an Orbax checkpoint, and network.json,
what they are; jaxnas.artifact says how to load them.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxnas import cli, runs, spaces, trained
from jaxnas.config import Config
from jaxnas.retrain import WHICH, arch_of

if TYPE_CHECKING:
  from jaxnas.export_weights import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(trained.Command):
  """Flags of the command."""

  workdir: Annotated[Path | None, tyro.conf.arg(aliases=('--out',))] = None
  """What the command writes, a new or empty folder. Default: export in the
  run."""
  arch: str | None = None
  """In the space's notation; best: what a search of the run has found, else
  what the run ranks first. Of a retrained run: its own."""
  batches: int | None = None
  """Of inherited weights: training batches, of data.batch_size images, that
  batch normalisation is recalibrated on. Default: as the run ranks, else 20, or
  as many as there are."""
  seed: int | None = None
  """Of retrained weights: which of the run's seeds. Default: 0, since the best
  on the test images would be chosen by them."""


def main(argv: Sequence[str] | None = None) -> int:
  args, config = trained.parse(
    lambda run, config: Export(
      run=run, batches=config.ranking.calibration_batches
    ),
    argv,
    __doc__,
  )
  workdir = (args.workdir or args.run / 'export').absolute()
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas import export_weights

  cli.prepare_process()
  with cli.usage_errors():
    check_empty(workdir)
    arch = which(args, config)
    if is_retrained(args.run):
      make = export_weights.retrained(args.run, config, arch, args.seed or 0)
    else:
      make = export_weights.inherited(args.run, config, arch, args.batches)
  with cli.outcome(workdir):
    facts = hand_over(make(), config, arch, workdir)
  size = sum(
    file.stat().st_size for file in workdir.rglob('*') if file.is_file()
  )
  print(
    f'{workdir}: {arch}, {facts["params"]:,} parameters, {facts["macs"]:,} '
    f'multiply-adds, {size / 1e6:.1f} MB; {facts["accuracy"]:.2%} of '
    f'{facts["accuracy_images"]} {facts["accuracy_split"]} images, logits '
    f'within {facts["largest_difference"]:.1e} of those of {args.run}'
  )
  return 0


def is_retrained(run: Path) -> bool:
  return (run / WHICH).exists()


def check_empty(workdir: Path) -> None:
  """Raises ValueError where something would be overwritten."""
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'{workdir} is no folder: choose another --workdir.')
  if workdir.is_dir() and any(workdir.iterdir()):
    raise ValueError(f'{workdir} is not empty: choose another --workdir.')
  runs.check_folder(workdir, '--workdir')


def which(args: Export, config: Config) -> str:
  """The architecture, in the space's notation.

  Raises ValueError or FileNotFoundError where none of the space is named, the
  run has no other, or a flag is of the other kind of run.
  """
  space, run, given = spaces.get(config.space), args.run, args.arch
  if not is_retrained(run):
    if args.seed is not None:
      raise ValueError(
        f'--seed is of retrained weights; {run} is a run of jaxnas.train.'
      )
    if given is None:
      raise ValueError('no architecture: give --arch ARCH, or --arch best.')
    arch = trained.best_arch(run) if given == 'best' else given
    return space.format(space.parse(arch))
  if args.batches != config.ranking.calibration_batches:
    raise ValueError(
      f'--batches is of inherited weights; {run} is a run of jaxnas.retrain.'
    )
  arch = arch_of(run)
  if arch is None:
    raise ValueError(
      f'{run} retrained all architectures and kept no weights: retrain one '
      'with python -m jaxnas.retrain --arch ARCH.'
    )
  if (
    given not in (None, 'best')
    and (space.parse(given) != space.parse(arch)).any()
  ):
    raise ValueError(
      f'{run} retrained {arch}, not {given}: leave --arch out, or retrain that.'
    )
  return arch


def hand_over(
  source: 'Source', config: Config, arch: str, workdir: Path
) -> dict[str, Any]:
  """Writes all of it or nothing, and returns what network.json holds.

  Raises ArithmeticError where what was written is another network.
  """
  from jaxnas import artifact

  alone, normalise = source.alone, source.held_out.normalise
  space = alone.space
  arch_E = space.parse(arch)
  costs = space.costs(arch_E[None])
  facts = {
    'space': space.name,
    'arch': arch,
    'ops': [names[op] for names, op in zip(space.ops, arch_E, strict=True)],
    'image_shape': list(space.image_shape),
    'classes': space.classes,
    'mean': normalise.mean_C.tolist(),
    'std': normalise.std_C.tolist(),
    'dtype': str(alone.dtype),
    'activation': config.supernet.activation,
    'data': config.data.name,
    'params': int(costs.params_A[0]),
    'macs': int(costs.macs_A[0]),
    'weights': source.facts,
    'platforms': list(artifact.PLATFORMS),
    **runs.environment(),
  }
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=workdir.parent, prefix=f'{workdir.name}.part-'
  ) as folder:
    part = Path(folder) / 'network'
    artifact.write(part, alone, source.variables, normalise, facts)
    facts |= artifact.check(part, source.expected, source.held_out)
    facts['accuracy_split'] = source.split
    runs.write_json(part / artifact.FACTS, facts)
    os.replace(part, workdir)
  return facts


if __name__ == '__main__':
  sys.exit(main())
