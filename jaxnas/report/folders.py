"""What run directories hold, each part of it or why it is not there."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from jaxnas import density_log, runs, spaces, tables
from jaxnas.config import Config

# More would not be told apart by colour.
MOST = 8

# Whose networks alone cost what the space says.
OWN_IMAGES = ('digits', 'cifar10', 'imagenet')

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Run:
  """A run directory, read; a part that it lacks is None."""

  label: str
  folder: Path
  config: Config
  environment: dict[str, Any] | None
  metrics: list[dict[str, Any]]
  correlation: dict[str, Any] | None
  predictions: dict[str, np.ndarray] | None
  truth: tables.Table | None
  density: dict[str, np.ndarray] | None
  log: dict[str, np.ndarray] | None
  samples: dict[str, np.ndarray] | None
  ledger: dict[str, float] | None
  lacks: dict[str, str]
  """Why, by file."""

  @property
  def space(self) -> spaces.Space:
    return spaces.get(self.config.space)

  def alpha(self) -> tuple[dict[str, np.ndarray], str] | None:
    """Architectures and densities, and of when: the sampler's, else the
    last of the log."""
    if self.density is not None:
      return self.density, 'after the warm-up'
    if self.log is None:
      return None
    last = {
      'archs_AxE': self.log['archs_AxE'],
      'alpha_A': self.log['alpha_LxA'][-1],
    }
    return last, f'after epoch {self.log["epoch_L"][-1]}'

  def accuracy_of(
    self, archs_AxE: np.ndarray
  ) -> Float[np.ndarray, ' A'] | None:
    """In the supernet; NaN of those that were not ranked."""
    if self.predictions is None or not self.space.enumerable:
      return None
    out_A = np.full(self.space.size, np.nan)
    ranked_A = self.space.index(self.predictions['archs_AxE'])
    out_A[ranked_A] = self.predictions['accuracy_A']
    return out_A[self.space.index(archs_AxE)]


def read(folders: Sequence[Path]) -> list[Run]:
  """Runs, and behind each the undebiased twin that it has.

  Raises ValueError or FileNotFoundError where a folder holds no run, or where
  they are too many.
  """
  every: list[Path] = []
  for folder in folders:
    runs.read_config(folder)
    twin = folder / 'undebiased'
    found = [folder, twin] if (twin / 'config.json').exists() else [folder]
    every += [one for one in found if one not in every]
  if len(every) > MOST:
    raise ValueError(
      f'{len(every)} runs; a page shows at most {MOST} side by side: give '
      'fewer.'
    )
  return [_read(*pair) for pair in zip(_labels(every), every, strict=True)]


def _labels(folders: Sequence[Path]) -> list[str]:
  """Paths without what they share; of a single one its name."""
  paths = [folder.resolve() for folder in folders]
  if len(paths) == 1:
    return [paths[0].name]
  shared = Path(os.path.commonpath(paths))
  # A run and its twin: the name of the run stays.
  shared = shared.parent if shared in paths else shared
  return [path.relative_to(shared).as_posix() for path in paths]


def _read(label: str, folder: Path) -> Run:
  config, lacks = runs.read_config(folder), {}

  def part(name: str, load: Callable[[Path], T]) -> T | None:
    file = folder / name
    if not file.exists():
      lacks[name] = 'is not there'
      if name == 'density.npz' and not config.debiases:
        lacks[name] = 'is of debiased runs'
      return None
    try:
      return load(file)
    except (KeyError, TypeError, ValueError) as error:
      lacks[name] = f'cannot be read: {error}'
      return None

  space = spaces.get(config.space)

  def about_archs(file: Path) -> dict[str, np.ndarray]:
    arrays = runs.read_npz(file)
    space.validate(arrays['archs_AxE'])
    return arrays

  metrics = part(
    'metrics.jsonl', lambda file: runs.read_rows(file, {'step': int})
  )
  return Run(
    label=label,
    folder=folder,
    config=config,
    environment=part('environment.json', _object),
    metrics=metrics or [],
    correlation=part('correlation.json', _object),
    predictions=part('predictions.npz', about_archs),
    truth=part('table.json', lambda file: tables.load(space, file)),
    density=part('density.npz', about_archs),
    log=part(density_log.FILE, about_archs),
    samples=part('samples.npz', runs.read_npz),
    ledger=part('ledger.json', _seconds),
    lacks=lacks,
  )


def _object(file: Path) -> dict[str, Any]:
  value = json.loads(file.read_text('utf-8'))
  if not isinstance(value, dict):
    raise ValueError(f'{file.name} is no object')
  return value


def _seconds(file: Path) -> dict[str, float]:
  """By kind, as `ledger.json` has them."""
  value = _object(file)['seconds']
  if not isinstance(value, dict):
    raise ValueError("its 'seconds' are no object")
  return {
    kind: float(amount)
    for kind, amount in value.items()
    if isinstance(amount, int | float)
  }
