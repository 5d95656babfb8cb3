"""Imports point down the rooms; nothing above is known below."""

import ast
from pathlib import Path

import pytest

import jaxnas

ROOT = Path(jaxnas.__file__).parent

# From the ground up; a room may import itself and what stands below it.
FLOORS = (
  {
    'allocator',
    'config',
    'names',
    'spaces',
    'correlation',
    'streams',
    'strict_json',
  },
  {
    'ledger',
    'caches',
    'locks',
    'validation',
    'figures',
    'runs',
    'prepared',
    'processes',
    'progress',
    'spread',
    'walk',
  },
  {'tables', 'nn', 'density', 'samplers', 'data'},
  {'supernets'},
  {'training', 'recalibration', 'evaluation', 'artifact'},
  {'searchers'},
  {
    'build',
    'cli',
    'compute',
    'data_config',
    'debiasing',
    'density_config',
    'density_log',
    'dump',
    'held_out',
    'logging_config',
    'ranking',
    'trained',
    'measure_flags',
    'measure_tables',
    'rebuilding',
    'sampler_config',
    'scoring',
    'warm_up',
  },
  {
    'train',
    'retrain',
    'stand_alone',
    'rank',
    'prepare',
    'measure',
    'compare',
    'compare_flags',
    'compare_tables',
    'bench',
    'search',
    'debug',
    'search_flags',
    'search_tables',
    'plan',
    'export',
    'export_weights',
    'report',
    'reproduce',
  },
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def room_of(file):
  return file.relative_to(ROOT).parts[0].removesuffix('.py')


def imports(file):
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == 'jaxnas':
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      first, _, rest = node.module.partition('.')
      if first == 'jaxnas':
        yield rest.partition('.')[0]


FILES = [file for file in ROOT.rglob('*.py') if file.name != '__init__.py']


@pytest.mark.smoke
@pytest.mark.parametrize(
  'file', FILES, ids=lambda file: str(file.relative_to(ROOT))
)
def test_imports_point_down(file):
  here = LEVEL[room_of(file)]
  for name in imports(file):
    # cli's outcome() names the end that training raises.
    if (room_of(file), name) == ('cli', 'training'):
      continue
    assert name in LEVEL, f'{name} has no floor'
    assert LEVEL[name] <= here, f'{file.name} imports {name}'


@pytest.mark.parametrize('room', ['config', 'validation', 'spaces', 'tables'])
def test_rooms_without_jax(room):
  files = [file for file in FILES if room_of(file) == room]
  assert files
  for file in files:
    names = {
      name
      for node in ast.walk(ast.parse(file.read_text()))
      if isinstance(node, ast.Import | ast.ImportFrom)
      for name in (
        [node.module or '']
        if isinstance(node, ast.ImportFrom)
        else [alias.name for alias in node.names]
      )
    }
    assert not {n for n in names if n.split('.')[0] in ('jax', 'flax')}
