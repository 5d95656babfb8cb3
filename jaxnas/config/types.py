"""Checks that values of a dataclass are of the types that it declares."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jaxnas.runtime import paths, suggestions

T = TypeVar('T')

_WORDS = {
  bool: 'true or false',
  int: 'an integer',
  float: 'a number',
  str: 'text',
  Path: 'a path',
  type(None): 'None',
}


def check(given: Any, prefix: str = '') -> None:
  """Raises ValueError naming the first field of another type.

  Nothing is converted, but an integer may stand for a number.

  Args:
    given: a dataclass; those in it are looked into.
    prefix: before the names of fields.
  """
  for name, hint in typing.get_type_hints(type(given)).items():
    value, name = getattr(given, name), f'{prefix}{name}'
    if not dataclasses.is_dataclass(hint):
      _check_value(name, value, hint)
    elif isinstance(value, typing.cast(type, hint)):
      check(value, f'{name}.')
    else:
      raise ValueError(
        f'{name} is {value!r:.80}; it must be a {_name(hint)}(...).'
      )


def make(cls: type[T], values: Any, prefix: str = '') -> T:
  """Makes a dataclass of values, as `dataclasses.asdict` gives them.

  Raises ValueError naming a field that is unknown, missing or of another type.
  """
  if not isinstance(values, Mapping):
    raise ValueError(
      f'{prefix.rstrip(".") or "it"} is {values!r:.80}; it must be an object '
      f'with the fields of {cls.__name__}.'
    )
  hints, given = typing.get_type_hints(cls), {}
  known = [f'{prefix}{field}' for field in hints]
  for name, value in values.items():
    suggestions.check('field', f'{prefix}{name}', known)
    hint = hints[name]
    if dataclasses.is_dataclass(hint):
      value = make(typing.cast(type, hint), value, f'{prefix}{name}.')
    else:
      _check_value(f'{prefix}{name}', value, hint)
      value = _number(f'{prefix}{name}', value, hint)
    given[name] = value
  for field in dataclasses.fields(typing.cast(Any, cls)):
    defaults = field.default, field.default_factory
    if field.name not in given and defaults == (dataclasses.MISSING,) * 2:
      raise ValueError(f'it lacks {prefix}{field.name}.')
  return cls(**given)


def replaced(given: T, values: Mapping[str, Any], prefix: str = '') -> T:
  """Returns a dataclass with other values, as people give them in Python.

  One in it is given whole, or as those of its fields that change; a text may
  stand for a path, and a list or one value for several.

  Raises ValueError naming a field that is unknown or of another type.
  """
  hints, new = typing.get_type_hints(type(given)), {}
  known = [f'{prefix}{field}' for field in hints]
  for name, value in values.items():
    suggestions.check('field', f'{prefix}{name}', known)
    before, hint = getattr(given, name), hints[name]
    if not dataclasses.is_dataclass(before):
      value = _as(hint, value)
      _check_value(f'{prefix}{name}', value, hint)
      value = _number(f'{prefix}{name}', value, hint)
    elif isinstance(value, Mapping):
      value = replaced(before, value, f'{prefix}{name}.')
    elif not isinstance(value, type(before)):
      raise ValueError(
        f'{prefix}{name} is {value!r:.80}; it must be a {_name(hint)}(...), '
        'or a dict of its fields.'
      )
    new[name] = value
  return dataclasses.replace(typing.cast(Any, given), **new)


def _as(hint: Any, value: Any) -> Any:
  """Returns a value in the form that a field has."""
  if Path in (hint, *typing.get_args(hint)) and isinstance(value, str):
    return Path(paths.expanded(value))
  if typing.get_origin(hint) is tuple and not isinstance(value, tuple):
    return tuple(value) if isinstance(value, list) else (value,)
  return value


def _check_value(name: str, value: Any, hint: Any) -> None:
  if not _fits(value, hint):
    raise ValueError(f'{name} is {value!r:.80}; it must be {_describe(hint)}.')


def _number(name: str, value: Any, hint: Any) -> Any:
  """Returns an integer that stands for a number as one."""
  kinds = (hint, *typing.get_args(hint))
  if type(value) is not int or float not in kinds or int in kinds:
    return value
  try:
    return float(value)
  except OverflowError:
    raise ValueError(
      f'{name} is an integer of {value.bit_length()} bits; it must be a number '
      'below 1.8e308.'
    ) from None


def _fits(value: Any, hint: Any) -> bool:
  if hint is Any:
    return True
  kind, options = typing.get_origin(hint), typing.get_args(hint)
  if kind is typing.Literal:
    return any(type(value) is type(o) and value == o for o in options)
  if kind is tuple:
    return isinstance(value, tuple) and all(
      _fits(item, options[0]) for item in value
    )
  if kind is list:
    return isinstance(value, list) and all(
      _fits(item, options[0]) for item in value
    )
  if kind is dict:
    return isinstance(value, dict) and all(
      _fits(key, options[0]) and _fits(item, options[1])
      for key, item in value.items()
    )
  if options:
    return any(_fits(value, option) for option in options)
  # True is an int, and no number.
  if isinstance(value, bool):
    return hint is bool
  return isinstance(value, (float, int) if hint is float else hint)


def _describe(hint: Any) -> str:
  kind, options = typing.get_origin(hint), typing.get_args(hint)
  if kind is typing.Literal:
    return f'one of {", ".join(map(str, options))}'
  if kind in (tuple, list):
    return f'several of: {_describe(options[0])}'
  if kind is dict:
    return 'an object of names and values'
  if options:
    return ' or '.join(map(_describe, options))
  return _WORDS.get(hint, _name(hint))


def _name(hint: Any) -> str:
  return getattr(hint, '__name__', str(hint))


# Letters that a count may end in.
_UNITS = {'': 1, 'k': 10**3, 'K': 10**3, 'M': 10**6, 'G': 10**9}


def count(name: str, text: str | None) -> int | None:
  """Reads a count as people write it; None stays None.

  Raises ValueError where the text is no number.

  >>> count('--max_macs', '330M')
  330000000
  """
  if text is None:
    return None
  # float() takes other scripts' digits, underscores and 'nan' too.
  found = re.fullmatch(r'([0-9.]+(?:e[0-9]{1,2})?)([kKMG]?)', text)
  try:
    digits, unit = found.groups() if found else ('', '')
    return round(float(digits) * _UNITS[unit])
  except (ValueError, OverflowError) as error:
    raise ValueError(
      f'{name} is {text!r}; it must be a number from 0, such as 40K or 330M.'
    ) from error
