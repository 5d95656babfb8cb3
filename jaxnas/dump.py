"""What is needed to see a failure of training again: `jaxnas.debug` reads it.

The last good checkpoint, the config with its seed, and the step.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnas import runs, strict_json
from jaxnas.config import Config, to_json
from jaxnas.spaces import Space

if TYPE_CHECKING:
  from jaxnas.build import Experiment

FILE = 'dump.json'


@dataclasses.dataclass(frozen=True)
class Dump:
  """What dump.json holds."""

  step: int
  """That gave a value that is not finite."""
  archs: list[str]
  """Of that step; of a density none."""
  error: str
  checkpoint: int | None = None
  """Step of the last good one; None: it is replayed from the start."""
  seed: int | None = None
  """Of an architecture alone, from 0; None: a supernet."""
  all: bool = False
  """Of an architecture alone: with the program that trains any of them."""


@contextlib.contextmanager
def of_supernet(experiment: 'Experiment', workdir: Path) -> Iterator[None]:
  """Writes a dump where training meets a value that is not finite.

  Raises NonFinite, which says where it is.
  """
  from jaxnas.training import loop

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
    where = write(about, experiment.config, workdir, last)
    of = f'{", ".join(archs)}: ' if archs else ''
    raise loop.NonFinite(f'{of}{error} {_again(where)}', step) from error


@contextlib.contextmanager
def of_alone(
  space: Space, config: Config, workdir: Path, *, all: bool
) -> Iterator[None]:
  """As `of_supernet`, of an architecture alone, which the error names."""
  from jaxnas.training import loop

  try:
    yield
  except loop.NonFinite as error:
    archs = [space.format(arch_E) for arch_E in error.archs_PxE]
    about = Dump(error.step, archs, str(error), seed=error.seed, all=all)
    where = write(about, config, workdir)
    raise loop.NonFinite(f'{error} {_again(where)}', error.step) from error


def write(
  about: Dump, config: Config, workdir: Path, checkpoint: Path | None = None
) -> Path:
  """All of it or nothing, in place of an earlier one; the folder it is in."""
  final = workdir / f'dump-{about.step}'
  if not runs.writes():
    return final
  with tempfile.TemporaryDirectory(dir=workdir, prefix='.dump-') as name:
    part = Path(name) / 'part'
    part.mkdir()
    runs.write_json(part / FILE, dataclasses.asdict(about))
    runs.write_text(part / 'config.json', to_json(config))
    if checkpoint is not None:
      shutil.copytree(checkpoint, part / 'checkpoints' / checkpoint.name)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(part, final)
  return final


def read(folder: Path) -> tuple[Dump, Config]:
  """Raises FileNotFoundError or ValueError where it is no dump."""
  file = folder / FILE
  if not file.exists():
    raise FileNotFoundError(
      f'{folder} holds no dump (no {FILE}): give what an error has named.'
    )
  try:
    values: Any = strict_json.loads(file.read_text())
    about = Dump(**values)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{file} is no dump: {error}') from error
  return about, runs.read_config(folder)


def _newest(workdir: Path) -> Path | None:
  folder = workdir / 'checkpoints'
  steps = [path for path in folder.glob('*') if path.name.isdigit()]
  return max(steps, key=lambda path: int(path.name), default=None)


def _again(folder: Path) -> str:
  return f'See it again: python -m jaxnas.debug {folder}'
