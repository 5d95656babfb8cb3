"""One command for all: `jaxnas COMMAND FLAGS`, as `python -m jaxnas.COMMAND`.

Without a command it lists them.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jaxnas
from jaxnas.runtime import streams, suggestions

# In the order in which they are of use.
COMMANDS = (
  'train',
  'report',
  'rank',
  'search',
  'calibrate',
  'retrain',
  'export',
  'compare',
  'sweep',
  'measure',
  'prepare',
  'plan',
  'reproduce',
  'debug',
  'bench',
)


def main(argv: Sequence[str] | None = None) -> int | None:
  command, *flags = [*(sys.argv[1:] if argv is None else argv)] or ['']
  if command in ('', '-h', '--help', 'help'):
    print(listing())
    return 0
  if command == '--version':
    print(jaxnas.__version__)
    return 0
  try:
    suggestions.check('command', command, COMMANDS)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return importlib.import_module(module_of(command)).main(flags)


def module_of(command: str) -> str:
  """Returns the module that a command is: of a room, its `__main__`."""
  folder = Path(__file__).with_name(command)
  return f'jaxnas.{command}' + ('.__main__' if folder.is_dir() else '')


def listing() -> str:
  """Returns all commands with one line each."""
  lines = [
    'jaxnas COMMAND FLAGS, the same as python -m jaxnas.COMMAND FLAGS',
    '',
  ]
  for command in COMMANDS:
    # Read and not imported, which would take longer.
    file = Path(__file__).with_name(command)
    file = file / '__main__.py' if file.is_dir() else file.with_suffix('.py')
    doc = ast.get_docstring(ast.parse(file.read_text('utf-8'))) or ''
    lines.append(f'  {command:<10} {doc.splitlines()[0].rstrip(".")}')
  return '\n'.join(
    [
      *lines,
      '',
      'To begin: jaxnas train --config quickstart.py; then: jaxnas report RUN.',
      'Each has --help. From Python: import jaxnas; help(jaxnas).',
    ]
  )


def run() -> None:
  """Runs the process of the console script."""
  streams.run(main)


if __name__ == '__main__':
  streams.run(main)
