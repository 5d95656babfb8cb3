"""Reads run directories: every part that they hold, and why others are not."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from jaxnas import spaces, truth
from jaxnas.config import Config, digest, run_files, run_folder
from jaxnas.experiment import contents, density_log, diagnosing, updates
from jaxnas.runtime import files, jsonl, ledger

# More runs could not be told apart by colour.
MOST = 8

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Run:
  """A run directory, read; a part that it lacks is None."""

  label: str
  """The page calls it so."""
  name: str
  """The page names its folder so: without what all folders share."""
  folder: Path
  config: Config
  space: spaces.Space
  """The architectures, for the run's images."""
  environment: dict[str, Any] | None
  metrics: list[dict[str, Any]]
  correlation: dict[str, Any] | None
  predictions: dict[str, np.ndarray] | None
  truth: truth.Table | None
  density: dict[str, np.ndarray] | None
  log: dict[str, np.ndarray] | None
  updates: dict[str, np.ndarray] | None
  diagnosis: dict[str, Any] | None
  samples: dict[str, np.ndarray] | None
  ledger: dict[str, float] | None
  lacks: dict[str, str]
  """Reasons why a part that is there is not shown, by the name of its file."""

  def alpha(self) -> tuple[dict[str, np.ndarray], str] | None:
    """Architectures with their densities, and when these were estimated.

    Those that the sampler was given go before the last of the log.
    """
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
    """Accuracies in the supernet; NaN where an architecture was not ranked."""
    if self.predictions is None or not self.space.enumerable:
      return None
    return self.space.looked_up(
      self.predictions['archs_AxE'], self.predictions['accuracy_A'], archs_AxE
    )


def read(folders: Sequence[Path]) -> list[Run]:
  """Reads runs, and behind each the undebiased twin that it has.

  Raises ValueError or FileNotFoundError where a folder holds no run of
  training, and ValueError where there are more than `MOST`.
  """
  every: list[Path] = []
  for folder in folders:
    run_folder.read_config(folder)
    run_folder.check_command(folder)
    twin = folder / 'undebiased'
    found = [folder, twin] if (twin / 'config.json').exists() else [folder]
    every += [one for one in found if one not in every]
  if len(every) > MOST:
    raise ValueError(
      f'{len(every)} runs; a page shows at most {MOST} side by side: give '
      'fewer.'
    )
  configs = [run_folder.read_config(folder) for folder in every]
  names = _paths(every)
  labels = labels_of(configs) or names
  return [_read(*one) for one in zip(labels, names, every, strict=True)]


def labels_of(configs: Sequence[Config]) -> list[str] | None:
  """Calls runs by what they are: the words in which they differ.

  None where these words do not tell them apart.
  """
  words = [
    (
      config.sampler.name,
      'debiased' if config.debiases else 'undebiased',
      f'seed {config.seed}',
    )
    for config in configs
  ]
  differ = [len({*of_kind}) > 1 for of_kind in zip(*words, strict=True)]
  if not any(differ):
    # A run alone is called by its training.
    differ = [False, True, False]
  out = [
    ', '.join(word for word, told in zip(of_run, differ, strict=True) if told)
    for of_run in words
  ]
  return out if len({*out}) == len(out) else None


def _paths(folders: Sequence[Path]) -> list[str]:
  """Returns paths without what they share; a single one keeps its name."""
  paths = [folder.resolve() for folder in folders]
  if len(paths) == 1:
    return [paths[0].name]
  shared = Path(os.path.commonpath(paths))
  # A run and its twin: the name of the run stays.
  shared = shared.parent if shared in paths else shared
  return [path.relative_to(shared).as_posix() for path in paths]


def _read(label: str, name: str, folder: Path) -> Run:
  config, lacks = run_folder.read_config(folder), {}

  def part(file_name: str, load: Callable[[Path], T]) -> T | None:
    file = folder / file_name
    if not os.path.lexists(file):
      return None
    try:
      return load(file)
    except (FileNotFoundError, ValueError) as error:
      lacks[file_name] = f'cannot be read: {error}'
      return None

  space, facts = spaces.get(config.space), {'config': digest(config)}
  if (folder / contents.FILE).exists():
    space = (
      part(contents.FILE, lambda file: contents.space_of(file.parent, config))
      or space
    )
  sizes = {'E': space.positions}

  def arrays(kind: Mapping[str, str]) -> Callable[[Path], dict[str, Any]]:
    def load(file: Path) -> dict[str, np.ndarray]:
      found, _ = files.read_arrays(file, kind, facts, sizes)
      if 'archs_AxE' in found:
        space.validate(found['archs_AxE'])
      return found

    return load

  def metrics(file: Path) -> list[dict[str, Any]]:
    found = jsonl.rows(file, run_files.METRICS, facts['config'])
    if found.bad:
      numbers = ', '.join(str(number) for number, _ in found.bad)
      lacks[file.name] = (
        f'has rows that are damaged, or of another run: {numbers:.200}'
      )
    return found.good

  def correlation(file: Path) -> dict[str, Any]:
    return files.read_result(file, run_files.CORRELATION, facts)

  return Run(
    label=label,
    name=name,
    folder=folder,
    config=config,
    space=space,
    environment=part(
      'environment.json',
      lambda file: files.read_json(file, run_files.ENVIRONMENT),
    ),
    metrics=part('metrics.jsonl', metrics) or [],
    correlation=part('correlation.json', correlation),
    predictions=part('predictions.npz', arrays(run_files.PREDICTIONS)),
    truth=part('table.json', lambda file: truth.load(space, file)),
    density=part('density.npz', arrays(run_files.DENSITY)),
    log=part(density_log.FILE, arrays(run_files.DENSITY_LOG)),
    updates=part(updates.FILE, arrays(run_files.UPDATES)),
    diagnosis=part(
      diagnosing.FILE,
      lambda file: files.read_result(file, run_files.DIAGNOSIS, facts),
    ),
    samples=part(
      'samples.npz',
      arrays(
        run_files.SAMPLES if space.enumerable else run_files.SAMPLES_OF_OPS
      ),
    ),
    ledger=part(
      ledger.FILE, lambda file: ledger.read(file, facts['config'])['seconds']
    ),
    lacks=lacks,
  )
