"""The run directory: made, reopened, and kept from other processes.

It holds config.json, images.json, environment.json, metrics.jsonl,
checkpoints/, density.npz, samples.npz, predictions.npz, correlation.json and
ledger.json, from which any figure is redrawn.
"""

import dataclasses
import datetime
import itertools
import os
from pathlib import Path

from jaxnas.config import trusted
from jaxnas.config.experiment import Config
from jaxnas.config.files import differences, flatten, from_json, to_json
from jaxnas.runtime import lock, outputs, places
from jaxnas.runtime.files import parsed, write_text

# Files and folders that each command writes to its own; the first is there from
# the beginning, and says whose folder it is.
WRITES = {
  'train': (
    'config.json',
    'images.json',
    'environment.json',
    'metrics.jsonl',
    'checkpoints',
    'density.npz',
    'density_log.npz',
    'debiasing.json',
    'updates.npz',
    'samples.npz',
    'predictions.npz',
    'correlation.json',
    'diagnosis.json',
    'ensemble.json',
    'members',
    'ledger.json',
    'table.json',
    'tracker.json',
    'undebiased',
  ),
  'compare': (
    'config.json',
    'images.json',
    'compare.json',
    'results.json',
    'compare.png',
    'tracker.json',
  ),
  'sweep': (
    'config.json',
    'images.json',
    'sweep.json',
    'results.json',
    'table.json',
    'tracker.json',
  ),
  'retrain': (
    'config.json',
    'images.json',
    'tracker.json',
    'retrain.json',
    'environment.json',
    'results.jsonl',
    'result.json',
    'table.json',
  ),
  'rank': (
    'rank.json',
    'environment.json',
    'predictions.npz',
    'correlation.json',
  ),
  'measure': ('measure.json', 'density.png'),
  'calibrate': (
    'calibrate.json',
    'calibration.json',
    'posterior.npz',
    'suggested.txt',
  ),
  'search': (
    'search.json',
    'state.npz',
    'search.jsonl',
    'best.json',
    'search.png',
    'shifted',
  ),
}

# What says whose a folder with a config.json is, where several commands may
# write one; of training it is what no other command begins with.
MARKS = {
  'compare': ('compare.json',),
  'sweep': ('sweep.json',),
  'retrain': ('retrain.json',),
  'train': ('environment.json', 'metrics.jsonl', 'checkpoints'),
}
# Runs within the folder of another command that an error names.
NAMED = 3


def claim(config_file: str) -> Path:
  """Makes a new folder under runs/, named by the file and the time.

  Of processes that start in the same second each gets its own: the next ones
  have a number behind the time.

  Raises ValueError where it cannot be made.
  """
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  name = f'{Path(config_file).stem}-{now}'
  outputs.check_folder(Path('runs'), '--workdir')
  for number in itertools.count(1):
    folder = Path('runs', name if number == 1 else f'{name}-{number}')
    try:
      folder.mkdir(parents=True)
    except FileExistsError:
      continue
    except OSError as error:
      raise _unmade(folder, error) from error
    return folder
  raise AssertionError('there are endless numbers')


def _unmade(folder: Path, error: OSError) -> ValueError:
  return ValueError(
    f'{folder} cannot be made ({error.strerror}): choose another --workdir.'
  )


def open_run(
  workdir: Path,
  config: Config,
  *,
  resume: bool,
  command: str = 'train',
  run: Path | None = None,
  overwrite: bool = False,
) -> None:
  """Makes or reopens a run directory, and keeps other processes out of it.

  Args:
    workdir: the directory.
    config: the experiment.
    resume: it may hold this experiment already.
    command: who writes it, of `WRITES`.
    run: a run directory; this one is a real folder where it lies in it.
    overwrite: files that another command wrote may be replaced.

  Raises ValueError where a run would be overwritten, where the experiment to
  resume is another one or another command's, or where another process is at it.
  """
  make_workdir(workdir, command, run=run, overwrite=overwrite)
  existing = (workdir / 'config.json').exists()
  if existing and (other := written_by(workdir)) not in (None, command):
    raise ValueError(
      f'{workdir} was written by jaxnas.{other}, and jaxnas.{command} would '
      'write among that: choose another --workdir.'
    )
  if existing and not resume:
    raise ValueError(
      f'{workdir} holds a run already: add --resume to go on with it, or '
      'choose another --workdir.'
    )
  if existing and (differing := differences(config, read_config(workdir))):
    name, (ours, theirs) = next(iter(differing.items()))
    raise ValueError(
      f'{workdir} is a run with {name} {theirs}, not {ours}: resume it as it '
      'is, or choose another --workdir.'
    )
  modules = trusted.modules_of(flatten(config))
  if modules is not None:
    config = dataclasses.replace(config, modules=modules)
  write_text(workdir / 'config.json', to_json(config))


def make_workdir(
  workdir: Path,
  command: str,
  *,
  run: Path | None = None,
  overwrite: bool = False,
) -> None:
  """Makes the folder, unless it is there, and keeps other processes out of it.

  Args:
    workdir: the folder.
    command: who writes it, of `WRITES`.
    run: a run directory; the folder is a real one where it lies in it.
    overwrite: files that another command wrote may be replaced.

  Raises ValueError where it cannot be made, another process is at it, or
  something would be replaced.
  """
  outputs.check_folder(workdir, '--workdir')
  places.check(workdir, *([] if run is None else [run]))
  mark, *others = WRITES[command]
  there = [name for name in others if os.path.lexists(workdir / name)]
  if there and not overwrite and not (workdir / mark).exists():
    raise ValueError(
      f'{workdir} has {there[0]}, which jaxnas.{command} did not write: choose '
      'another --workdir, or add --overwrite.'
    )
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _unmade(workdir, error) from error
  lock.keep(workdir)
  places.clean(workdir)


def written_by(folder: Path) -> str | None:
  """Returns the command, of `MARKS`, whose folder this is; None where nothing
  tells."""
  for command, names in MARKS.items():
    if any(os.path.lexists(folder / name) for name in names):
      return command
  return None


def check_command(run: Path) -> None:
  """Raises ValueError where another command than training wrote the folder."""
  other = written_by(run)
  if other in (None, 'train'):
    return
  within = sorted(
    {file.parent for file in run.rglob('checkpoints') if file.is_dir()} - {run}
  )
  shown = ', '.join(str(folder) for folder in within[:NAMED])
  rest = f' and {len(within) - NAMED} more' if len(within) > NAMED else ''
  raise ValueError(
    f'{run} was written by jaxnas.{other}: give a run of jaxnas.train'
    + (f', such as are in it: {shown}{rest}.' if shown else '.')
  )


def read_config(workdir: Path) -> Config:
  """Raises FileNotFoundError where there is no run, Damaged where it is none
  that this version can read, and ValueError for a name that is no text or
  where it needs a module that is not trusted."""
  outputs.check_name(workdir, 'folder')
  file = workdir / 'config.json'
  if not file.exists():
    raise FileNotFoundError(
      f'{workdir} holds no run (no config.json): python -m jaxnas.train '
      '--config FILE starts one.'
    )
  config = parsed(file, from_json)
  trusted.check(config.modules, file)
  return config


def holds_run(folder: Path) -> bool:
  """Returns True for a folder with a config.json that a command would read."""
  file = folder / 'config.json'
  try:
    if file.exists():
      parsed(file, from_json)
      return True
  except (OSError, ValueError):
    pass
  return False
