"""Config files in, JSON out and in again.

A config file is Python with `get_config() -> Config`, whose docstring says
command, hardware, time and result; or the config.json of a run, which trains
that run again.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxnas.config import trusted, types
from jaxnas.config.experiment import NOT_THE_EXPERIMENT, Config
from jaxnas.runtime import paths, seals, strict_json, suggestions


def find(name: str) -> Path:
  """Finds a config file: a path, a name in ./configs, or one that is shipped.

  Raises FileNotFoundError with the names that there are.
  """
  package = Path(__file__).parents[1]
  # A checkout keeps the shipped configs beside the package, a wheel inside.
  folders = (Path('configs'), package / 'configs', package.parent / 'configs')
  for file in (
    Path(paths.expanded(name)),
    *(folder / name for folder in folders),
  ):
    if file.is_file():
      return file
  known = sorted(
    {file.name for folder in folders for file in folder.glob('*.py')}
  )
  raise FileNotFoundError(
    f'config {name!r} is neither a file nor one of {", ".join(known)}.'
    + suggestions.hint(name, known)
  )


def load(name: str) -> Config:
  """Runs the config file's get_config(), or reads JSON; `name` as in `find`."""
  file = find(name)
  if file.suffix == '.json':
    return _read(file)
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  if spec is None or spec.loader is None:
    raise ValueError(
      f'config {file} is not Python: its name must end in .py, or in .json for '
      'the config.json of a run.'
    )
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


def _read(file: Path) -> Config:
  """Reads the config.json of a run."""
  try:
    config = from_json(file.read_bytes())
  except ValueError as error:
    raise ValueError(f'config {file}: {error}') from None
  trusted.check(config.modules, file)
  return config


def differences(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
  """Returns the fields that differ: 'section.field' -> both values."""
  ours, theirs = of_experiment(config), of_experiment(other)
  return {
    name: (value, theirs[name])
    for name, value in ours.items()
    if value != theirs[name]
  }


def of_experiment(config: Config) -> dict[str, Any]:
  """Returns {'section.field': value} for what a resumed run must share.

  A file of densities is what it holds.
  """
  flat = flatten(config)
  flat['density.file'] = flat['density.file_digest'] or flat['density.file']
  return {
    name: value
    for name, value in flat.items()
    if not {name, name.partition('.')[0]} & {*NOT_THE_EXPERIMENT}
  }


def digest(config: Config) -> str:
  """Returns a digest of an experiment, which its results carry.

  Fields at their defaults do not count: a version that adds one still knows the
  results of those before it.
  """
  # A number may have been given as an integer.
  given = of_experiment(from_json(to_json(config)))
  defaults = of_experiment(Config())
  return seals.seal(
    {name: value for name, value in given.items() if value != defaults[name]}
  )


def flatten(config: Config) -> dict[str, Any]:
  """Returns {'section.field': value} for every field."""
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
  """Reads what `to_json` wrote.

  Raises ValueError naming a field that is unknown or of another type.
  """
  return types.make(Config, strict_json.loads(text))
