"""Trackers: where metrics go besides their file."""

import importlib
import importlib.util
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxnas.config import Config, Logging, flatten
from jaxnas.runtime import errors, files, places
from jaxnas.training.metrics import Mirror

# The file of a folder that keeps the name under which trackers know it.
FILE = 'tracker.json'


def check(given: Logging) -> None:
  """Raises ValueError where a package for logging is missing."""
  for name in ('project', 'entity', 'name', 'group', 'tags'):
    value = getattr(given, name)
    if value != getattr(Logging, name) and not given.wandb:
      raise ValueError(f'logging.{name} is of logging.wandb: set that too.')
    if value is not None and not value.strip(' ,'):
      raise ValueError(f'logging.{name} is {value!r}; it must name something.')
  for extra, module in (('tensorboard', 'tensorboardX'), ('wandb', 'wandb')):
    wanted = getattr(given, extra)
    if wanted and importlib.util.find_spec(module) is None:
      raise ValueError(f"logging.{extra} needs pip install 'jaxnas[{extra}]'.")


def mirrors(
  config: Config, workdir: Path, group: Path | None = None
) -> list[Mirror]:
  """Returns what receives rows of metrics besides their file.

  Args:
    config: the experiment.
    workdir: the folder of metrics.jsonl. It is one run of a tracker, however
      often it is resumed.
    group: the folder of the command, whose runs are shown together: twins,
      samplers and seeds. None: the run stands alone.
  """
  out: list[Mirror] = []
  if not files.writes():
    return out
  if config.logging.tensorboard:
    out.append(tensorboard(workdir / 'tensorboard'))
  if config.logging.wandb:
    out.append(weights_and_biases(workdir, config, group or workdir))
  return out


def conclude(
  config: Config,
  workdir: Path,
  group: Path | None,
  step: int,
  values: Mapping[str, float | str],
) -> None:
  """Gives the trackers what a run has come to.

  TensorBoard shows it as a run of its own, in `final`, which is written anew;
  Weights & Biases as the run's summary.
  """
  if config.logging.tensorboard:
    board = tensorboard(workdir / 'tensorboard' / 'final')
    board.start(0, [])
    board.write(
      step, {k: v for k, v in values.items() if not isinstance(v, str)}
    )
    board.close(False)
  if config.logging.wandb:
    run = wandb_run(workdir, config, group or workdir)
    run.summary.update(dict(values))
    run.finish(exit_code=0)


def final(
  result: Mapping[str, Any], debiasing: Mapping[str, Any] | None
) -> dict[str, float | str]:
  """Returns the final table as a tracker takes it: names and single values.

  Args:
    result: what correlation.json holds.
    debiasing: what debiasing.json holds, where there is one.
  """
  named = {
    'kendall': 'kendall',
    'spearman': 'spearman',
    'top_kendall': 'top_kendall',
    'chosen': 'best_arch',
    'chosen_supernet_accuracy': 'best_arch_accuracy',
    'accuracy': 'best_arch_true_accuracy',
  }
  out = {name: result[key] for name, key in named.items() if key in result}
  given = {'kendall': result.get('kendall_interval'), **(debiasing or {})}
  for name in ('kendall', 'density', 'probability'):
    if given.get(name):
      out |= dict(
        zip((f'{name}_low', f'{name}_high'), given[name], strict=True)
      )
  for name in ('temperature', 'effective'):
    if name in given:
      out[name] = given[name]
  return {
    f'final/{name}': value for name, value in out.items() if value is not None
  }


def tensorboard(folder: Path) -> Mirror:
  """Writes event files into `folder`; needs the extra of that name.

  Where a run goes on, events of its step and of later ones are purged.
  """
  writer: Any = None
  last: dict[str, int] = {}

  def start(step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    nonlocal writer
    places.make(folder)
    writer = importlib.import_module('tensorboardX').SummaryWriter(
      str(folder),
      purge_step=step,
      # Two files of one second would be one.
      filename_suffix=f'.{time.time_ns()}',
    )
    for row in rows:
      write(step, {name: row[name] for name in row if name != 'step'})

  def write(step: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
      # Rows of training and of rankings share their epoch.
      if last.get(name) != step:
        writer.add_scalar(name, value, step)
        last[name] = step
    writer.flush()

  def close(failed: bool) -> None:
    del failed
    if writer is not None:
      writer.close()

  return Mirror(start, write, close)


def weights_and_biases(workdir: Path, config: Config, group: Path) -> Mirror:
  """Logs to a run of W&B; needs the extra 'wandb'."""
  run: Any = None

  def start(step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    nonlocal run
    # W&B has these rows, and drops those of steps that it has.
    del step, rows
    run = wandb_run(workdir, config, group)

  def write(step: int, values: Mapping[str, Any]) -> None:
    run.log(dict(values), step=step)

  def close(failed: bool) -> None:
    if run is not None:
      run.finish(exit_code=int(failed))

  return Mirror(start, write, close)


def wandb_run(workdir: Path, config: Config, group: Path) -> Any:
  """Opens a folder's run of W&B, as often as it is asked for.

  Another run that this process has open, as one of the user's own, is neither
  logged to nor closed.
  """
  places.make(workdir / 'wandb')
  above, given = group.absolute(), config.logging
  name = workdir.absolute().relative_to(above.parent)
  tags = (given.tags or '').split(',')
  if given.name is not None:
    name = Path(given.name, *name.parts[1:])
  try:
    return importlib.import_module('wandb').init(
      project=given.project,
      entity=given.entity,
      dir=str(workdir),
      config=flatten(config),
      id=identity(workdir),
      resume='allow',
      reinit='create_new',
      allow_val_change=True,
      name=name.as_posix(),
      group=given.group or f'{above.name}-{identity(group)}',
      tags=[tag.strip() for tag in tags if tag.strip()],
    )
  except Exception as error:
    # The client raises many kinds of errors, of networks and of accounts.
    raise OSError(
      f'Weights & Biases begins no run ({errors.reason(error)}): '
      'WANDB_MODE=offline needs neither network nor account; or leave out '
      '--logging.wandb.'
    ) from error


def identity(folder: Path) -> str:
  """Returns the name under which trackers know a folder; it is kept there."""
  file = folder / FILE
  if file.exists():
    return files.read_json(file, {'id': str})['id']
  made = secrets.token_hex(6)
  files.write_json(file, {'id': made})
  return made
