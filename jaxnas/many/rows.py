"""A table of ground truth, each architecture of which is a task of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import spaces
from jaxnas.config import Config, digest, validation
from jaxnas.experiment import build, contents, origin, outcomes
from jaxnas.many import tasks
from jaxnas.many.tasks import Task, Work
from jaxnas.runtime import files, jsonl

# A process of its own saves so often, since most trainings are short.
SAVE_MINUTES = 5.0


class Rows:
  """A table whose architectures are trained each in a folder of its own.

  Args:
    config: of all of them.
    archs_AxE: the architectures of the table.
    workdir: the run directory of the table.
  """

  def __init__(
    self, config: Config, archs_AxE: Int[np.ndarray, 'A E'], workdir: Path
  ) -> None:
    self.config, self.archs_AxE, self.workdir = config, archs_AxE, workdir
    self.space, self.of = spaces.get(config.space), digest(config)
    archs_DxE, _ = outcomes.networks(self.space, archs_AxE)
    self.names = [self.space.format(arch_E) for arch_E in archs_DxE]
    self.folders = {name: folder(workdir, config, name) for name in self.names}

  @property
  def seeds(self) -> int:
    return self.config.retrain.seeds

  def read(self) -> list[dict[str, Any]]:
    """Reads what is done, here and in the folders of rows."""
    return outcomes.gathered(self.workdir, self.of, self.folders, self.seeds)

  def collect(self) -> None:
    """Brings what is done into one file; the folder must be this process's."""
    outcomes.read_results(self.workdir / outcomes.RESULTS, self.of)
    jsonl.write_rows(self.workdir / outcomes.RESULTS, self.read(), self.of)

  def missing(self) -> list[str]:
    """Returns the architectures that lack a seed."""
    done = outcomes.accuracies(self.read())
    return [
      name
      for name in self.names
      if any((name, seed) not in done for seed in range(self.seeds))
    ]

  def tasks(self) -> list[Task]:
    """Returns each architecture as a task; its rows say whether it is done."""
    return [Task(name, folder, None) for name, folder in self.folders.items()]

  def work(self, argv: Sequence[str], each: int) -> tuple[Work, int]:
    """Returns the tasks that are left, and the number of the others.

    Args:
      argv: flags of all of them.
      each: architectures that a process trains one after the other, as one
        task: the start of a process takes seconds.
    """
    missing = self.missing()
    groups = [missing[at : at + each] for at in range(0, len(missing), each)]
    work = tasks.begin(
      self.workdir,
      'jaxnas.retrain',
      argv,
      [
        Task(
          ' '.join(names),
          # Its log lies with the first of them.
          self.folders[names[0]],
          None,
        )
        for names in groups
      ],
    )
    return work, -(-(len(self.names) - len(missing)) // each)

  def failed(self, ended: Mapping[str, str]) -> dict[str, str]:
    """Returns why architectures failed, by architecture.

    Args:
      ended: the last line of each task that failed, by its name.
    """
    missing = {*self.missing()}
    of_group = {
      name: line for names, line in ended.items() for name in names.split()
    }
    states = {task.name: tasks.state(task) for task in self.tasks()}
    out = {}
    for name in self.names:
      if name in missing and name in of_group:
        state, why = states[name]
        out[name] = why if state == 'failed' else of_group[name]
    return out

  def write_table(self) -> None:
    """Writes the table of those that are done, if any."""
    done = outcomes.accuracies(self.read())
    space = contents.space_of(self.workdir, self.config)
    table = outcomes.table_of(space, self.archs_AxE, done, self.seeds)
    if table is None:
      print(f'{self.workdir}: no architecture has all of its seeds yet')
      return
    made_of = outcomes.provenance(self.config.data.name)
    made_of['skipped_images'] = self._skipped()
    # Some may have been trained in this folder, before there were tasks.
    made_of |= origin.of_folders([self.workdir, *self.folders.values()])
    outcomes.write_table(table, self.workdir / outcomes.TABLE, made_of)

  def _skipped(self) -> int:
    """Returns the largest number of images that a training replaced."""
    if self.config.data.name != 'imagenet':
      return 0
    counts = [
      files.read_json(file, {'skipped_images': int})['skipped_images']
      for folder in self.folders.values()
      if (file := folder / outcomes.RESULT).exists()
    ]
    return max(counts, default=0)


def folder(workdir: Path, config: Config, arch: str) -> Path:
  """Returns the folder in which an architecture of a table is trained."""
  return tasks.sharded(workdir, {'config': digest(config), 'arch': arch})


def saving_rarely(config: Config) -> Config:
  """Returns the config with checkpoints by the minute, if it asks for no
  others: an epoch may take less than a checkpoint."""
  given = config.checkpoint
  if given.every_epochs != 1:
    return config
  rarely = dataclasses.replace(
    given,
    every_epochs=config.retrain.epochs,
    every_minutes=given.every_minutes or SAVE_MINUTES,
  )
  return dataclasses.replace(config, checkpoint=rarely)


def read_archs(config: Config, file: Path) -> tuple[str, ...]:
  """Reads architectures, one a line; what follows # is a comment.

  Raises ValueError, with the line, where one is none of the space.
  """
  space, out = spaces.get(config.space), []
  try:
    lines = files.read_bytes(file).decode('utf-8-sig').splitlines()
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise ValueError(
      f'--archs {file} cannot be read ({reason}): give a file with an '
      'architecture a line.'
    ) from error
  for number, line in enumerate(lines, 1):
    if text := line.partition('#')[0].strip():
      try:
        out.append(space.format(space.parse(text)))
      except ValueError as error:
        raise ValueError(f'--archs {file}, line {number}: {error}') from error
  if not out:
    raise ValueError(f'--archs {file} names no architecture: write one a line.')
  return tuple(dict.fromkeys(out))


def drawn(config: Config, count: int) -> tuple[str, ...]:
  """Draws different architectures: those that `ranking.archs` of so many ranks.

  A run of the same config can then be held to their table. Raises ValueError
  where there are not so many.
  """
  space = spaces.get(config.space)
  validation.at_least_one('--sample', count)
  validation.at_most('--sample', count, space.size, 'architectures')
  ranking = dataclasses.replace(config.ranking, archs=count)
  ranked_AxE = build.ranking_archs(
    dataclasses.replace(config, ranking=ranking), space
  )
  names = [space.format(arch_E) for arch_E in ranked_AxE]
  return tuple(dict.fromkeys(names))


def listed(
  config: Config, archs: Sequence[str] | None
) -> Int[np.ndarray, 'A E']:
  """Returns the architectures of a table, None for all, as a matrix.

  Raises ValueError where all of a space are asked for that has too many.
  """
  space = spaces.get(config.space)
  if archs is None:
    return space.enumerate()
  return np.stack([space.parse(arch) for arch in archs])
