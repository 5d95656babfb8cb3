"""Modules from outside the package that a run needs, and who may import them.

A run remembers by name which modules registered its space, its sampler and so
on. A run that was handed over runs no code: such a module is imported where the
user names it as `--trust_module`, and never from the folder of a run.
"""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Fields whose value is the address `module:function` of somebody's own code.
FUNCTIONS = ('data.augment', 'optimizer.loss')

# The module that registered a name, by (field of the config, name).
_owners: dict[tuple[str, str], str] = {}

# Functions that this process registered, by address.
_functions: dict[str, Callable[..., Any]] = {}


def own(field: str, name: str, module: str) -> None:
  """Keeps which module registered the name that a field of the config has."""
  if (known := name_of(module)) is not None:
    _owners[field, name] = known


def name_of(module: str) -> str | None:
  """Returns the name by which another process imports a module of this one.

  A script is imported by the name of its file; a notebook cannot be.
  """
  if module != '__main__':
    return module
  main = sys.modules['__main__']
  if (spec := getattr(main, '__spec__', None)) is not None:
    return spec.name.removesuffix('.__main__')
  file = getattr(main, '__file__', None)
  return Path(file).stem if file else None


def modules_of(named: dict[str, object]) -> str | None:
  """Returns the modules of what a config names from outside, or None.

  Args:
    named: values by field, as `files.flatten` gives them.
  """
  found = {
    module
    for (field, name), module in _owners.items()
    if named.get(field) == name
  } | {address.partition(':')[0] for address in _addresses(named).values()}
  return ','.join(sorted(found)) or None


def check(modules: str | None, file: Path) -> None:
  """Raises ValueError where a run needs a module that has registered nothing.

  Args:
    modules: names, separated by commas.
    file: the config.json that names them, for the message.
  """
  for module in (modules or '').split(','):
    if module and module not in _owners.values():
      raise ValueError(
        f'{file} needs the module {module!r:.80}, which is none of jaxnas: add '
        '--trust_module with its name if you trust its code, or import it '
        'before in Python.'
      )


def register_function(function: Callable[..., Any]) -> str:
  """Lets a config name a function, and returns its address for that.

  A run remembers the function's module; in another process a command imports
  that where `--trust_module` says so.

  Args:
    function: one that stands at the top of its module.

  Raises ValueError for a function that has no name of its own there.
  """
  at = address(function)
  module, _, name = at.partition(':')
  # A notebook's is known in this process alone.
  known = name_of(module) or module
  _owners['--trust_module', known] = known
  _functions[f'{known}:{name}'] = function
  return f'{known}:{name}'


def address(function: Callable[..., Any] | str) -> str:
  """Returns the `module:function` of a function, or of such a text itself.

  Raises ValueError for a function that has no name in its module.
  """
  if isinstance(function, str):
    return function
  name = getattr(function, '__qualname__', type(function).__name__)
  if not name.isidentifier():
    raise ValueError(
      f'{name} has no name of its own in a module: define it at the top of one.'
    )
  return f'{function.__module__}:{name}'


def check_functions(named: Mapping[str, object]) -> None:
  """Raises ValueError for a function whose address or module is not in order.

  It imports nothing.

  Args:
    named: values by field, as `files.flatten` gives them.
  """
  for field, at in _addresses(named).items():
    module, colon, name = at.partition(':')
    if not (colon and _is_module(module) and name.isidentifier()):
      raise ValueError(
        f'{field} is {at!r:.80}; it must be module:function, such as '
        'my_module:my_function.'
      )
    if at not in _functions and module not in _owners.values():
      raise ValueError(
        f'{field} {at} needs the module {module!r}, which is none of jaxnas: '
        f'add --trust_module {module} if you trust its code, or in Python call '
        'jaxnas.register_function with the function.'
      )


def function(field: str, at: str | None, *arguments: str) -> Any:
  """Returns the function at an address, or None for none.

  `check_functions` comes before it.

  Args:
    field: of the config, which says the address.
    at: the address.
    arguments: names for the arguments that it is called with, in order.

  Raises ValueError where there is no function of so many arguments.
  """
  if at is None:
    return None
  module, _, name = at.partition(':')
  found = _functions.get(at)
  try:
    found = found or getattr(importlib.import_module(module), name)
    inspect.signature(found).bind(*arguments)
  except (ImportError, AttributeError, TypeError) as error:
    raise ValueError(
      f'{field} {at} is no function ({", ".join(arguments)}): {error}.'
    ) from error
  return found


def _addresses(named: Mapping[str, object]) -> dict[str, str]:
  return {
    field: str(named[field])
    for field in FUNCTIONS
    if named.get(field) is not None
  }


def _is_module(name: str) -> bool:
  return re.fullmatch(r'[^\W\d]\w*(\.[^\W\d]\w*)*', name) is not None


def trust(module: str, holds_run: Callable[[Path], bool]) -> None:
  """Imports a module, whose code the user trusts, and what it registers.

  From then on a config may name its functions, too.

  Args:
    module: its name.
    holds_run: True for a folder that a command would read as a run.

  Raises ValueError where it cannot be imported or lies in the folder of a run.
  """
  if not _is_module(module):
    raise ValueError(f'--trust_module {module!r:.80} is no name of a module.')
  _see_here()
  try:
    # Finding the first part runs none of its code.
    spec = importlib.util.find_spec(module.partition('.')[0])
    if spec is None:
      raise ImportError('it is not found')
    for place in (spec.origin, *(spec.submodule_search_locations or ())):
      _check_place(module, place, holds_run)
    importlib.import_module(module)
    own('--trust_module', module, module)
  except Exception as error:
    if isinstance(error, Untrusted):
      raise
    raise ValueError(
      f'--trust_module {module} cannot be imported '
      f'({type(error).__name__}: {error}): install it, or add its folder to '
      'PYTHONPATH.'
    ) from error


def _see_here() -> None:
  """Lets Python find modules in this folder, last of all.

  `python -m` finds them; the command `jaxnas`, a script of another folder,
  would not.
  """
  here = os.getcwd()
  if not sys.flags.safe_path and not {'', here} & {*sys.path}:
    sys.path.append(here)


class Untrusted(ValueError):
  """A module lies in the folder of a run, which may be someone else's."""


def _check_place(
  module: str, place: str | None, holds_run: Callable[[Path], bool]
) -> None:
  for folder in Path(os.path.realpath(place or '.')).parents if place else ():
    if holds_run(folder):
      raise Untrusted(
        f'--trust_module {module} lies in the run {folder}, of which no code '
        'is run: start the command from another folder.'
      )
