"""Describes the training runs of items, and what tells one from another."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxnas import config
from jaxnas.config import Config, run_flags
from jaxnas.experiment import comparison, ensembles
from jaxnas.runtime.preemption import Preemption

Scale = Literal['cpu', 'paper']


class Part(NamedTuple):
  """A measurement of a finished run besides its ranking."""

  name: str
  """Its name in the result of the run."""
  measure: Callable[[Config, Path, Preemption], dict[str, Any]]
  """From a run's config and folder to numbers, ready for JSON. Parts of a run
  are measured in their order, so that one may read the files of another."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: a kind of run, repeated over seeds."""

  names: tuple[str, ...]
  """The words that name the row, one for each column."""
  config: str
  """Name of the config file, without _cpu and .py; or with .py, where one file
  serves every scale."""
  sampler: str
  """The sampler as `jaxnas.compare` writes it: tree:iterative+debias."""
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Fields of the config that differ, by 'section.field'."""
  published: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """Published numbers by the key of their metric."""
  seeds: int = 1
  """Number of runs where the command does not give one."""
  parts: tuple[Part, ...] = ()
  """Other measurements of the run."""
  without: str = ''
  """The reason why there is no such run, if there is none."""
  member: int = 0
  """Number of the supernet in an ensemble, of which the first is 0."""


@dataclasses.dataclass(frozen=True)
class Job:
  """A run that is to do, or done."""

  row: Row
  config: Config
  file: str
  """The name of the config file."""
  parts: tuple[Part, ...]

  @property
  def key(self) -> str:
    return key(self.config)

  @property
  def folder(self) -> str:
    return f'{self.config.space}-{self.key}'


def job(
  row: Row,
  scale: Scale,
  seed: int,
  where: Mapping[str, run_flags.Data] | None = None,
) -> Job:
  """Returns the run of a row.

  Args:
    row: a row of an item.
    scale: the scale, which chooses the config file.
    seed: a number that is added to the seed of the config.
    where: places of images and how they are read, by data.name.
  """
  file = row.config
  if not file.endswith('.py'):
    file += '_cpu.py' if scale == 'cpu' else '.py'
  base = config.load(file)
  base = changed(base, row.changes)
  base = changed(base, {'debias.baseline': False})
  made = comparison.configure(base, row.sampler, 'paths')
  made = changed(made, {'seed': base.seed + seed})
  made = ensembles.member(made, row.member)
  if where and made.data.name in where:
    made = run_flags.read_from(made, where[made.data.name])
  return Job(row, made, file, row.parts)


def changed(given: Config, changes: Mapping[str, Any]) -> Config:
  """Returns the config with other values of fields, by 'section.field'.

  Raises ValueError for a field that does not exist.
  """
  known = config.flatten(given)
  for name, value in changes.items():
    if name not in known:
      raise ValueError(f'{name} is no field of a config.')
    section, _, field = name.rpartition('.')
    if section:
      inner = dataclasses.replace(getattr(given, section), **{field: value})
      given = dataclasses.replace(given, **{section: inner})
    else:
      given = dataclasses.replace(given, **{field: value})
  return given


def experiment_fields(given: Config) -> dict[str, Any]:
  """Returns the fields that a result depends on, by 'section.field'."""
  return {
    name: value
    for name, value in config.of_experiment(given).items()
    if not name.startswith('retrain.')
  }


def key(given: Config) -> str:
  """Hashes the fields that a result depends on, to twelve hex digits.

  Fields at their defaults are left out, so that a new field of the config
  changes no key.
  """
  untouched = experiment_fields(Config())
  fields = {
    name: value
    for name, value in experiment_fields(given).items()
    if value != untouched[name]
  }
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def command(one: Job) -> str:
  """Returns the command that trains the same run from data in DIR."""
  file, ours = config.load(one.file), config.flatten(one.config)
  words = [
    f'--{name} {value}'
    for name, value in config.flatten(file).items()
    if ours[name] != value and name != 'data.dir'
    for value in [ours[name]]
  ]
  return ' '.join(
    [f'python -m jaxnas.train --config {one.file} --data.dir DIR', *words]
  )
