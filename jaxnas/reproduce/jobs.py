"""One training run of an item, and what tells it from all others."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from jaxnas import compare_flags, config
from jaxnas.config import NOT_THE_EXPERIMENT, Config

Scale = Literal['cpu', 'paper']


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: a kind of run, repeated over seeds."""

  names: tuple[str, ...]
  """What the row is, a word a column."""
  config: str
  """Name of the config file, without _cpu and .py."""
  sampler: str
  """As `jaxnas.compare` writes it: tree:iterative+debias."""
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Fields of the config that differ, by 'section.field'."""
  published: Mapping[str, float] = dataclasses.field(default_factory=dict)
  """By metric."""
  seeds: int = 1
  """Where the command does not say how many."""
  parts: tuple[str, ...] = ()
  """What is measured of a run besides its ranking; see `parts`."""
  without: str = ''
  """Why there is no such run, if there is none."""


@dataclasses.dataclass(frozen=True)
class Job:
  """A run to do, or done."""

  row: Row
  config: Config
  file: str
  """Of the config."""
  parts: tuple[str, ...]

  @property
  def key(self) -> str:
    return key(self.config)

  @property
  def folder(self) -> str:
    return f'{self.config.space}-{self.key}'


# At `--scale cpu`, over what the _cpu configs say.
CPU: Mapping[str, Mapping[str, Any]] = {
  # Every architecture counts, on fewer images: half an hour of a core a run.
  # On 128 uniform training has a tau of 0.07, on 250 of 0.23; an epoch more
  # leaves accuracies as close together (standard deviation 0.018, then 0.019).
  'nas_bench_macro': {
    'epochs': 1,
    'density.batch_size': 16,
    'ranking.archs': None,
    'ranking.images': 250,
  },
  # Its own config is uniform throughout.
  'nas_bench_201': {
    'warmup_epochs': 1,
    'epochs': 1,
    'debias.effective_fraction': 0.5,
    'density.batch_size': 4,
    'ranking.images': 250,
  },
}


def job(
  row: Row,
  scale: Scale,
  seed: int,
  parts: tuple[str, ...] = (),
  where: Mapping[str, str | None] | None = None,
) -> Job:
  """The run of a row.

  Args:
    row: of an item.
    scale: which configs.
    seed: added to that of the config.
    parts: measured besides what the row asks for.
    where: data.dir by data.name.
  """
  file = f'{row.config}_cpu.py' if scale == 'cpu' else f'{row.config}.py'
  base = config.load(file)
  if scale == 'cpu':
    base = changed(base, CPU.get(base.space, {}))
  base = changed(base, row.changes)
  base = changed(base, {'debias.baseline': False})
  made = compare_flags.configure(base, row.sampler, 'paths')
  made = changed(made, {'seed': base.seed + seed})
  if where and where.get(made.data.name):
    made = changed(made, {'data.dir': where[made.data.name]})
  return Job(row, made, file, tuple(dict.fromkeys((*row.parts, *parts))))


def changed(given: Config, changes: Mapping[str, Any]) -> Config:
  """The config with these fields, by 'section.field'.

  Raises ValueError for a field that there is not.
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
  """By 'section.field', those that the result depends on."""
  return {
    name: value
    for name, value in config.flatten(given).items()
    if not {name, name.partition('.')[0]} & {*NOT_THE_EXPERIMENT, 'retrain'}
  }


def key(given: Config) -> str:
  """Twelve hex digits: of the fields that the result depends on.

  Those at their defaults are left out, so that a field which is added to the
  config changes no key.
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
  """What trains the same with `jaxnas.train`, its data in DIR."""
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
