"""Hand over one architecture as a network that runs without jaxnas.

For instance `python -m jaxnas.export --run RUN --arch best --workdir DIR`, of a
run of jaxnas.train or of jaxnas.retrain. Where RUN/retrain has trained the
architecture from scratch, those weights are taken; else the inherited ones,
with batch normalisation recalibrated and frozen. DIR gets network.bin, a
program of JAX with all weights, params/, an Orbax checkpoint, network.json,
what they are, and README.md, which says how to load them.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxnas import spaces
from jaxnas.config import Config, run_flags, run_folder
from jaxnas.runtime import errors, outputs, places, startup, streams, words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(run_flags.RunCommand):
  """Flags of the command."""

  workdir: Annotated[Path | None, tyro.conf.arg(aliases=('--out',))] = None
  """Folder to write, new or empty. Default: export in the run."""
  arch: str | None = None
  """In the space's notation; best: what a search of the run has found, else
  what the run ranks first. Of a retrained run: its own."""
  batches: int | None = None
  """Training batches, of data.batch_size images, on which batch normalisation
  of inherited weights is recalibrated. Default: as many as the run ranks by,
  else 20, or as many as there are."""
  seed: int | None = None
  """Seed of a retrained run to export. Default: 0, since the test images would
  choose the best one."""
  weights: Literal['inherited', 'retrained'] | None = None
  """Weights of a run of jaxnas.train. Default: retrained, where its folder
  `retrain` has them and --batches is not given, else inherited."""
  torch: bool = False
  """Also write weights.pt, a state dict for PyTorch; needs the extra torch."""
  onnx: bool = False
  """Also write network.onnx; needs the extra onnx."""


# Packages of the extras.
PACKAGES = {
  'torch': ('torch',),
  'onnx': ('torch', 'onnx', 'onnxscript', 'onnxruntime'),
}


def main(argv: Sequence[str] | None = None) -> int:
  args, config = run_flags.parse(as_in_run, argv, __doc__)
  export(args, config)
  return 0


def as_in_run(run: Path, config: Config) -> Export:
  """Returns the flags that recalibrate as the run did."""
  return Export(run=run, batches=config.ranking.calibration_batches)


def export(
  args: Export, config: Config, ends: errors.Ends = errors.COMMAND
) -> dict[str, Any]:
  """Hands over what the flags say; returns what network.json holds."""
  workdir = (args.workdir or args.run / 'export').absolute()
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import export

  with ends.usage():
    startup.prepare_process()
    check_free(workdir, args)
    forms = further_forms(args, config)
    arch = chosen(args, config)
    retrained = retrained_in(args, config, arch)
    if retrained:
      config = run_flags.read_from(
        run_folder.read_config(retrained).on_one_device(), args.data
      )
      make = export.retrained(retrained, config, arch, args.seed or 0)
    else:
      make = export.inherited(args.run, config, arch, args.batches)
  with ends.outcome(workdir):
    metadata = export.hand_over(make(), config, arch, workdir, forms)
  taken = (
    f'retrained weights of {retrained}, seed {args.seed or 0}'
    if retrained
    else 'inherited weights'
  )
  size = sum(
    file.stat().st_size for file in workdir.rglob('*') if file.is_file()
  )
  tested = words.counted(
    metadata['accuracy_images'], f'{metadata["accuracy_split"]} image'
  )
  print(
    f'{workdir}: {arch} with {taken}, {metadata["params"]:,} parameters, '
    f'{metadata["macs"]:,} multiply-adds, {words.of_bytes(size)}; '
    f'{metadata["accuracy"]:.2%} of {tested}, logits within '
    f'{metadata["largest_difference"]:.1e} of those of {retrained or args.run}'
  )
  return metadata


def check_free(workdir: Path, args: Export) -> None:
  """Raises ValueError where something would be overwritten."""
  from jaxnas.experiment import artifact

  places.check(workdir, args.run)
  if os.path.lexists(workdir) and (
    workdir.is_symlink() or not workdir.is_dir()
  ):
    raise ValueError(f'{workdir} is no folder: choose another --workdir.')
  there = [path.name for path in workdir.glob('*')]
  if {*there} - {*artifact.FILES} or (there and not args.overwrite):
    raise ValueError(
      f'{workdir} is not empty: choose another --workdir, or, for what was '
      'exported before, add --overwrite.'
    )
  outputs.check_folder(workdir, '--workdir')


def further_forms(args: Export, config: Config) -> list[Any]:
  """Returns what writes a network for others than JAX.

  Raises ValueError where a package is missing, or a space has no such network.
  """
  for extra, packages in PACKAGES.items():
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if getattr(args, extra) and missing:
      raise ValueError(
        f'--{extra} needs {" and ".join(missing)}: pip install '
        f"'jaxnas[{extra}]'."
      )
  if not (args.torch or args.onnx):
    return []
  from jaxnas.experiment import torch_export

  torch_export.check(spaces.get(config.space))
  return [
    write
    for asked, write in (
      (args.torch, torch_export.weights),
      (args.onnx, torch_export.onnx),
    )
    if asked
  ]


def retrained_in(args: Export, config: Config, arch: str) -> Path | None:
  """Returns the folder whose retrained weights to hand over, or None.

  It says why those of the run's folder `retrain` are not taken.

  Raises ValueError where a flag is of the other kind of weights.
  """
  from jaxnas.experiment import outcomes, retraining

  recalibrates = args.batches != config.ranking.calibration_batches
  if retraining.is_of_retraining(args.run):
    if recalibrates or args.weights == 'inherited':
      given = '--batches' if recalibrates else '--weights inherited'
      raise ValueError(
        f'{given} is of inherited weights; {args.run} is a run of '
        'jaxnas.retrain.'
      )
    return args.run
  folder, space = args.run / 'retrain', spaces.get(config.space)
  why = None
  if args.weights == 'inherited' or recalibrates:
    why = 'inherited weights are asked for'
    if args.weights == 'retrained':
      raise ValueError('--batches is of inherited weights: leave it out.')
  elif not retraining.is_of_retraining(folder):
    why = f'there is no {folder}'
  elif (other := retraining.arch_of(folder)) is None:
    why = f'{folder} retrained all architectures and kept no weights'
  elif (space.parse(other) != space.parse(arch)).any():
    why = f'{folder} retrained {other}, not {arch}'
  elif not (folder / outcomes.RESULT).exists():
    why = f'{folder} is not done (no {outcomes.RESULT})'
  if why is None:
    return folder
  if args.weights == 'retrained' or args.seed is not None:
    flag = '--seed' if args.seed is not None else '--weights retrained'
    raise ValueError(
      f'{flag} is of retrained weights; {why}: python -m jaxnas.retrain --run '
      f'{args.run} --arch {arch} makes them.'
    )
  if retraining.is_of_retraining(folder):
    print(f'{why}: inherited weights')
  return None


def chosen(args: Export, config: Config) -> str:
  """Returns the architecture to hand over, in the space's notation.

  Raises ValueError or FileNotFoundError where none of the space is named, the
  run has no other, or a flag is of the other kind of run.
  """
  from jaxnas.experiment import retraining, trained

  space, run, given = spaces.get(config.space), args.run, args.arch
  if not retraining.is_of_retraining(run):
    if given is None:
      raise ValueError('no architecture: give --arch ARCH, or --arch best.')
    arch = trained.best_arch(run) if given == 'best' else given
    return space.format(space.parse(arch))
  arch = retraining.arch_of(run)
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


if __name__ == '__main__':
  streams.run(main)
