"""Where a Config comes from and goes to.

A config file is Python with `get_config() -> Config`; its docstring says
command, hardware, time and result.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxnas import names, strict_json
from jaxnas.config import types
from jaxnas.config.experiment import NOT_THE_EXPERIMENT, Config


def find(name: str) -> Path:
  """The config file: a path, in ./configs, or shipped with the package.

  Raises FileNotFoundError with the names that there are.
  """
  package = Path(__file__).parents[1]
  # A checkout keeps the shipped configs beside the package, a wheel inside.
  folders = (Path('configs'), package / 'configs', package.parent / 'configs')
  for file in (Path(name), *(folder / name for folder in folders)):
    if file.is_file():
      return file
  known = sorted(
    {file.name for folder in folders for file in folder.glob('*.py')}
  )
  raise FileNotFoundError(
    f'config {name!r} is neither a file nor one of {", ".join(known)}.'
    + names.hint(name, known)
  )


def load(name: str) -> Config:
  """Runs the config file's get_config(); `name` as in `find`."""
  file = find(name)
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'config {file} is not Python: its name must end in .py.')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except (Exception, SystemExit) as error:
    raise ValueError(
      f'config {file} does not load: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, Config):
    raise ValueError(
      f'config {file}: get_config() returns {type(config).__name__}, '
      'not jaxnas.config.Config.'
    )
  try:
    types.check(config)
  except ValueError as error:
    raise ValueError(f'config {file}: {error}') from None
  return config


def differences(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
  """Fields of the experiment that differ: 'section.field' -> both values."""
  ours, theirs = of_experiment(config), of_experiment(other)
  return {
    name: (value, theirs[name])
    for name, value in ours.items()
    if value != theirs[name]
  }


def of_experiment(config: Config) -> dict[str, Any]:
  """{'section.field': value}, of what a run and its resumption share."""
  return {
    name: value
    for name, value in flatten(config).items()
    if not {name, name.partition('.')[0]} & {*NOT_THE_EXPERIMENT}
  }


def flatten(config: Config) -> dict[str, Any]:
  """{'section.field': value}."""
  out = {}
  for name, value in dataclasses.asdict(config).items():
    if isinstance(value, dict):
      out |= {f'{name}.{field}': inner for field, inner in value.items()}
    else:
      out[name] = value
  return out


def to_json(config: Config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str | bytes) -> Config:
  """The inverse of `to_json`.

  Raises ValueError naming a field that is unknown or of another type.
  """
  return types.make(Config, strict_json.loads(text))
