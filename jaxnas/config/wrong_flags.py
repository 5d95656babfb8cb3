"""Says which flags are wrong, and what may be meant."""

import difflib
import itertools
import re
import typing
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxnas.config import fields
from jaxnas.runtime import suggestions

# A flag and its type.
Flag = tuple[str, Any]


def check_paths(paths: Container[str], argv: Sequence[str]) -> None:
  """Raises ValueError where a path is given no text, by a flag or by place.

  That would be the folder in which the command was started, and mostly is a
  variable of a shell that is not set.

  Args:
    paths: the flags whose values are paths.
    argv: the words of the command line.
  """
  words = [word for arg in argv for word in arg.split('=', 1)]
  for name, value in itertools.pairwise(['', *words]):
    if value:
      continue
    if not name.startswith('--'):
      raise ValueError('an argument is empty: give one, or leave it out.')
    if name.replace('-', '_').replace('__', '--', 1) in paths:
      raise ValueError(f'{name} is empty, where a path is needed: give one.')


def is_path(hint: Any, marks: Iterable[Any]) -> bool:
  """Returns True for the type of a flag that is a path, or marked as one."""
  return Path in (hint, *typing.get_args(hint)) or any(
    isinstance(mark, fields.IsPath) for mark in marks
  )


def nearest(name: str, flags: Iterable[Flag]) -> str:
  """Suggests the flag that may be meant, by its last part or whole name."""
  key = name.removeprefix('--').replace('-', '_')
  if key == name:
    return ''
  negated = _negated(key) is not None
  names = [
    flag
    for flag, hint in flags
    if not negated or bool in (hint, *typing.get_args(hint))
  ]
  known = {flag.rpartition('.')[2]: flag for flag in names}
  known |= {flag.removeprefix('--'): flag for flag in names}
  near = difflib.get_close_matches(_negated(key) or key, known, 1)
  if not near:
    return ''
  meant = known[near[0]]
  if negated:
    section, dot, field = meant.removeprefix('--').rpartition('.')
    meant = f'--{section}{dot}no_{field}'
  return f' Did you mean {meant}?'


def _negated(key: str) -> str | None:
  """Returns the flag whose opposite is meant, as by no_x.y and x.no_y."""
  plain = re.sub(r'(^|\.)no_', r'\1', key, count=1)
  return None if plain == key else plain


def without_box(text: str) -> str:
  """Returns tyro's error as one line, without the frame around it."""
  lines = [line.strip(' │╭╮╰╯─') for line in text.splitlines()]
  # The first line is its title, and the last says how to ask for help. A
  # terminal without the characters of a frame gets dashes.
  said = ' '.join(line for line in lines[1:] if line.strip('-'))
  said, _, _ = said.partition(' For full helptext')
  said = said.replace(' Argument helptext:', ';')
  wrong = re.search(r"invalid choice '(.*?)' .* one of \((.*)\)", said)
  if wrong is None:
    return said
  choices = [choice.strip(" '") for choice in wrong[2].split(',')]
  return said + suggestions.hint(wrong[1], choices)
