"""Trained runs that another command reads."""

import dataclasses
from pathlib import Path

from jaxnas.config import (
  Config,
  Logging,
  Ranking,
  digest,
  run_folder,
  validation,
)
from jaxnas.experiment import build, contents
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files, ledger
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import TrainState

# The file that a run ends with, and that of several supernets.
RANKED, ENSEMBLE = 'correlation.json', 'ensemble.json'


def load(
  run: Path, config: Config, ranking: Ranking
) -> tuple[Experiment, TrainState]:
  """Loads a finished run, to be ranked by this section, and its last state.

  Raises ValueError or FileNotFoundError, one line.
  """
  # The file of its densities may be gone, and is not asked for again.
  seen = dataclasses.replace(
    config.undebiased(),
    logging=Logging(),
    # Reports along the run are of training.
    ranking=dataclasses.replace(
      Ranking(**dataclasses.asdict(ranking)),
      every_epochs=None,
      sample=Ranking.sample,
    ),
    density=dataclasses.replace(config.density, file=None, log_epochs=None),
  )
  if ranking.calibration_batches == config.ranking.calibration_batches:
    # Not asked for here: it goes where this ranking does not use it.
    seen = validation.without_unused(seen, 'ranking')
  validation.validate(seen)
  experiment = dataclasses.replace(build.experiment(seen), run=config)
  return experiment, finished(experiment, run)


def best_arch(run: Path) -> str:
  """Returns the arch that a search in the run found, else the first ranked:
  by the mean of its ensemble, and by the whole of `ranking.combine`, where the
  run has those.

  Raises FileNotFoundError where there is neither, ValueError where the folder
  is none of training, and Damaged where it was found in another run.
  """
  run_folder.check_command(run)
  for file, key in (
    ('search/best.json', 'arch'),
    (ENSEMBLE, 'best_arch'),
    (RANKED, 'best_arch'),
  ):
    if (run / file).exists():
      facts = {'config': digest(run_folder.read_config(run))}
      kind = {key: str, 'tied?': int, 'combined?': [{key: str, 'tied': int}]}
      result = files.read_result(run / file, kind, facts)
      result = [result, *result.get('combined', ())][-1]
      if (tied := result.get('tied', 1)) != 1:
        print(f'{run}: {result[key]} is the first of {tied} that tie as best')
      return result[key]
  raise FileNotFoundError(
    f'{run} has ranked nothing yet (no {RANKED}): finish it with python -m '
    f'jaxnas.train --workdir {run} --resume, or give --arch ARCH.'
  )


def check_config(run: Path) -> None:
  """Raises Different where config.json has changed since the run was trained.

  It says which images were trained on: by another seed these would be others.
  """
  try:
    kept = files.read_json(run / ledger.FILE, {'facts': {'config': str}})
  except (FileNotFoundError, errors.Damaged):
    # Then nothing says it.
    return
  if kept['facts']['config'] != digest(run_folder.read_config(run)):
    raise errors.Different(
      f'{run / "config.json"} has changed since the run was trained, as '
      f'{ledger.FILE} beside it tells: put back what jaxnas wrote.'
    )


def newest(experiment: Experiment, run: Path) -> TrainState:
  """Returns the state of the newest good checkpoint.

  Raises FileNotFoundError where there is none, ValueError where all are
  damaged, another command wrote the folder, or the config or the images are
  others.
  """
  run_folder.check_command(run)
  check_config(run)
  contents.check(run, experiment.images)
  folder = run / 'checkpoints'
  if folder.is_dir():
    with Checkpoints(folder, read_only=True) as checkpoints:
      if found := checkpoints.newest(experiment.init_state()):
        return found[0]
  raise FileNotFoundError(
    f'{run} has no checkpoint: train it further with --workdir {run} --resume.'
  )


def finished(experiment: Experiment, run: Path) -> TrainState:
  """Returns the state at the end of training.

  Raises ValueError or FileNotFoundError where the run has not come there.
  """
  state = newest(experiment, run)
  if int(state.step) < experiment.steps:
    raise ValueError(
      f'{run} is at step {int(state.step)} of {experiment.steps}: finish it '
      f'with python -m jaxnas.train --workdir {run} --resume.'
    )
  return state
