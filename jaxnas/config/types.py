"""Whether the values of a dataclass are of the types that it declares."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jaxnas import names

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
  """Raises ValueError naming the first field that holds something else.

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
  """The dataclass with these values, as `dataclasses.asdict` gives them.

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
    names.check('field', f'{prefix}{name}', known)
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


def _check_value(name: str, value: Any, hint: Any) -> None:
  if not _fits(value, hint):
    raise ValueError(f'{name} is {value!r:.80}; it must be {_describe(hint)}.')


def _number(name: str, value: Any, hint: Any) -> Any:
  """An integer that stands for a number, as one; all else as it is."""
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
  if kind is tuple:
    return f'several of: {_describe(options[0])}'
  if options:
    return ' or '.join(map(_describe, options))
  return _WORDS.get(hint, _name(hint))


def _name(hint: Any) -> str:
  return getattr(hint, '__name__', str(hint))
