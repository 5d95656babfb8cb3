"""The house: rooms stand on floors, imports point down, nothing is circular."""

import ast
import functools
from pathlib import Path

import pytest

import jaxnas

ROOT = Path(jaxnas.__file__).parent

# From the ground up. A room may import itself and what stands below it, and
# the commands at the top of the package stand above all rooms.
FLOORS = (
  {'runtime'},
  {'config', 'spaces', 'nn'},
  {'truth', 'data', 'density', 'supernets'},
  {'samplers'},
  {'training', 'searchers'},
  {'experiment'},
  {'report', 'plan'},
  {'many'},
  {'reproduce', 'bench'},
)
COMMANDS = {
  'train',
  'rank',
  'search',
  'retrain',
  'calibrate',
  'compare',
  'sweep',
  'measure',
  'export',
  'prepare',
  'debug',
}
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
LEVEL |= dict.fromkeys(COMMANDS, len(FLOORS))
# What calls the commands.
LEVEL |= {'api': len(FLOORS) + 1, '__main__': len(FLOORS) + 1}

# What answers to `--help`, which takes no time for JAX.
WITHOUT_JAX = ('config', 'spaces', 'truth')


def module_name(file):
  name = '.'.join(file.relative_to(ROOT.parent).with_suffix('').parts)
  return name.removesuffix('.__init__')


MODULES = {module_name(file): file for file in sorted(ROOT.rglob('*.py'))}


@functools.cache
def tree(module):
  return ast.parse(MODULES[module].read_text())


def room_of(module):
  return [*module.split('.'), ''][1]


def imported(nodes):
  """Names of our own modules that these import statements load."""
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (a.name for a in node.names if a.name.startswith('jaxnas'))
    elif isinstance(node, ast.ImportFrom) and node.module:
      if node.module.split('.')[0] != 'jaxnas':
        continue
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        yield whole if whole in MODULES else node.module


def late(module):
  """Import statements that stand within functions."""
  return {
    inner
    for node in ast.walk(tree(module))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for inner in ast.walk(node)
    if isinstance(inner, ast.Import | ast.ImportFrom)
  }


@functools.cache
def imports(module):
  return {*imported(ast.walk(tree(module)))} - {module}


@pytest.mark.smoke
@pytest.mark.parametrize('module', [m for m in MODULES if m != 'jaxnas'])
def test_imports_point_down(module):
  here = LEVEL[room_of(module)]
  for other in imports(module) - {'jaxnas'}:
    if room_of(other) != room_of(module):
      assert LEVEL[room_of(other)] < here, f'{module} imports {other}'


@pytest.mark.smoke
def test_only_commands_stand_beside_the_rooms():
  files = {file.stem for file in ROOT.glob('*.py')}
  assert files - {'__init__', '__main__'} <= COMMANDS
  rooms = {file.parent.name for file in ROOT.glob('*/__init__.py')}
  assert rooms == {'api', *(room for floor in FLOORS for room in floor)}


@pytest.mark.smoke
def test_no_module_imports_itself_through_others():
  """Modules, not only rooms: also within a room."""
  done, path = set(), []

  def visit(module):
    if module in path:
      pytest.fail(' -> '.join([*path[path.index(module) :], module]))
    if module in done:
      return
    path.append(module)
    for other in sorted(imports(module) & MODULES.keys()):
      visit(other)
    path.pop()
    done.add(module)

  for module in MODULES:
    visit(module)


@pytest.mark.smoke
@pytest.mark.parametrize('module', MODULES)
def test_only_commands_import_late(module):
  """They parse flags first, so that `--help` is quick."""
  name = module.rpartition('.')[2]
  if room_of(module) in COMMANDS or name == '__main__':
    return
  assert not {*imported(late(module))}, f'{module} imports within a function'


@pytest.mark.parametrize('module', MODULES)
def test_nothing_is_imported_for_annotations_alone(module):
  assert 'TYPE_CHECKING' not in MODULES[module].read_text() or (
    room_of(module) in COMMANDS or module.endswith('__main__')
  )


@pytest.mark.parametrize(
  'module', [m for m in MODULES if room_of(m) in WITHOUT_JAX]
)
def test_rooms_without_jax(module):
  names = {
    name
    for node in ast.walk(tree(module))
    if isinstance(node, ast.Import | ast.ImportFrom)
    for name in (
      [node.module or '']
      if isinstance(node, ast.ImportFrom)
      else [alias.name for alias in node.names]
    )
  }
  assert not {n for n in names if n.split('.')[0] in ('jax', 'flax')}
