"""One-shot neural architecture search in JAX, debiased by density.

    import jaxnas
    run = jaxnas.run_experiment('quickstart.py', 'runs/first')
    run.correlation['kendall'], run.table()

`run` is a `Run`, and `jaxnas.open_run('runs/first')` gives it again later. The
commands are `python -m jaxnas.train` and its like.
"""

import importlib
from typing import Any

from jaxnas.runtime import allocator, loading

if loading.is_command():
  # First, since `watch` starts a thread.
  allocator.tune()
  loading.watch()

# The room of each name. They are imported when they are asked for, since JAX
# takes seconds; no module of the package has one of these names, so that
# importing a module hides none of them.
_HOMES = {
  'Run': 'api',
  'compare_samplers': 'api',
  'load_config': 'api',
  'open_run': 'api',
  'register_function': 'api',
  'register_optimizer': 'api',
  'register_rule': 'api',
  'register_sampler': 'api',
  'register_space': 'api',
  'run_experiment': 'api',
  'Costs': 'spaces',
  'Network': 'supernets',
  'Space': 'spaces',
  'Config': 'config',
  'Checkpoint': 'config',
  'Data': 'config',
  'Debias': 'config',
  'Density': 'config',
  'Logging': 'config',
  'Mesh': 'config',
  'Optimizer': 'config',
  'Ranking': 'config',
  'Retrain': 'config',
  'Sampler': 'config',
  'Supernet': 'config',
}

__all__ = ['__version__', *sorted(_HOMES)]  # pyright: ignore


def __getattr__(name: str) -> Any:
  if name == '__version__':
    value = importlib.import_module('importlib.metadata').version('jaxnas')
  elif name in _HOMES:
    home = importlib.import_module(f'{__name__}.{_HOMES[name]}')
    value = getattr(home, name)
  else:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  # What this module needs for itself is no part of what it offers.
  return sorted({*globals(), *__all__} - {'Any', 'importlib', 'loading'})
