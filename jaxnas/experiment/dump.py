"""Dumps: all that `jaxnas.debug` needs to see a failure of training again.

A dump is a folder with the last good checkpoint, the config, whose seed says
every random number, and the step that failed.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxnas.config import Config, run_folder, to_json, types
from jaxnas.experiment import contents
from jaxnas.experiment.parts import Experiment, StandAlone
from jaxnas.runtime import files, places, strict_json
from jaxnas.training import loop

FILE = 'dump.json'


@dataclasses.dataclass(frozen=True)
class Dump:
  """The content of dump.json."""

  step: int
  """The step that gave a value that is not finite."""
  archs: list[str]
  """The architectures of that step; none where a density failed."""
  error: str
  checkpoint: int | None = None
  """Step of the last good checkpoint; None: replay from the start."""
  seed: int | None = None
  """Seed of an architecture alone, from 0; None: a supernet failed."""
  all: bool = False
  """An architecture alone failed in the program that trains any of them."""


@contextlib.contextmanager
def of_supernet(experiment: Experiment, workdir: Path) -> Iterator[None]:
  """Writes a dump where training meets a value that is not finite.

  Raises NonFinite, which says where it is.
  """
  try:
    yield
  except (loop.NonFinite, FloatingPointError) as error:
    step = getattr(error, 'step', experiment.steps)
    archs_PxE = getattr(error, 'archs_PxE', ())
    last = _newest(workdir)
    archs = [
      experiment.space.format(arch_E[: experiment.space.positions])
      for arch_E in archs_PxE
    ]
    about = Dump(
      step, archs, str(error), None if last is None else int(last.name)
    )
    where = write(about, experiment, workdir, last)
    of = f'{", ".join(archs)}: ' if archs else ''
    raise loop.NonFinite(f'{of}{error} {_again(where)}', step) from error


@contextlib.contextmanager
def of_stand_alone(
  built: StandAlone, workdir: Path, *, all: bool
) -> Iterator[None]:
  """Does the same for an architecture alone, which the error names."""
  try:
    yield
  except loop.NonFinite as error:
    archs = [built.space.format(arch_E) for arch_E in error.archs_PxE]
    about = Dump(error.step, archs, str(error), seed=error.seed, all=all)
    where = write(about, built, workdir)
    raise loop.NonFinite(f'{error} {_again(where)}', error.step) from error


def write(
  about: Dump,
  built: Experiment | StandAlone,
  workdir: Path,
  checkpoint: Path | None = None,
) -> Path:
  """Writes a dump whole, in place of an earlier one; returns its folder."""
  final = workdir / f'dump-{about.step}'
  if not files.writes():
    return final
  places.check(workdir)
  with tempfile.TemporaryDirectory(dir=workdir, prefix='.dump-') as name:
    part = Path(name) / 'part'
    part.mkdir()
    files.write_json(part / FILE, dataclasses.asdict(about))
    files.write_text(part / 'config.json', to_json(built.config))
    contents.keep(part, built.images)
    if checkpoint is not None:
      shutil.copytree(checkpoint, part / 'checkpoints' / checkpoint.name)
    places.remove(final)
    os.rename(part, final)
  return final


def read(folder: Path) -> tuple[Dump, Config]:
  """Reads a dump. Raises FileNotFoundError or ValueError where it is none."""
  file = folder / FILE
  if not file.exists():
    raise FileNotFoundError(
      f'{folder} holds no dump (no {FILE}): give what an error has named.'
    )
  about = files.parsed(
    file, lambda content: types.make(Dump, strict_json.loads(content))
  )
  return about, run_folder.read_config(folder)


def _newest(workdir: Path) -> Path | None:
  folder = workdir / 'checkpoints'
  steps = [path for path in folder.glob('*') if path.name.isdigit()]
  return max(steps, key=lambda path: int(path.name), default=None)


def _again(folder: Path) -> str:
  return f'See it again: python -m jaxnas.debug {folder}'
