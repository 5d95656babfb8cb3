"""Says what files may hold: kinds of JSON values, and of arrays.

A kind of JSON value is a type; a tuple of kinds, any of which will do; a list
of one kind, for a list of such values; or a dict from keys to kinds. There a
key that ends in ? may be missing, and * stands for any other key.

A kind of array is letters of numpy's `dtype.kind`. Its shape stands in its
name: `alpha_LxA` has axes L and A, which every array of the file shares, and a
name without letters is a single value.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NUMBER = (int, float)
NUMBER_OR_NONE = (int, float, type(None))

_AXES = re.compile(r'_([A-Z](?:x[A-Z])*)$')
_WORDS = {'iu': 'integers', 'f': 'floats', 'U': 'text', 'b': 'booleans'}


class Lacks(ValueError):
  """An object lacks a key."""

  def __init__(self, name: str) -> None:
    super().__init__(f'it lacks {name}')
    self.name = name


def check_json(value: Any, kind: Any, where: str = '') -> None:
  """Raises ValueError, naming the place, where a value is of another kind.

  >>> check_json({'n': 3, 'tau': None}, {'n': int, 'tau?': NUMBER})
  Traceback (most recent call last):
  ValueError: tau is None
  """
  if isinstance(kind, Mapping) and isinstance(value, dict):
    for key, inner in kind.items():
      name = key.removesuffix('?')
      if name in value:
        check_json(value[name], inner, _within(where, name))
      elif key != '*' and name == key:
        raise Lacks(_within(where, name))
    if '*' in kind:
      for name in value.keys() - kind.keys():
        check_json(value[name], kind['*'], _within(where, name))
  elif isinstance(kind, list) and isinstance(value, list):
    for number, inner in enumerate(value):
      check_json(inner, kind[0], _within(where, str(number)))
  elif not _is(value, kind):
    raise ValueError(f'{where or "it"} is {value!r:.80}')


def _is(value: Any, kind: Any) -> bool:
  if isinstance(kind, tuple):
    return any(_fits(value, one) for one in kind)
  # True is an int, and no number.
  return isinstance(kind, type) and (
    isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
  )


def _fits(value: Any, kind: Any) -> bool:
  try:
    check_json(value, kind)
  except ValueError:
    return False
  return True


def _within(where: str, name: str) -> str:
  return f'{where}.{name}' if where else name


def check_arrays(
  arrays: Mapping[str, np.ndarray],
  kinds: Mapping[str, str],
  sizes: Mapping[str, int] | None = None,
) -> None:
  """Raises ValueError where an array has another type or shape.

  Args:
    arrays: by name, all those of `kinds`.
    kinds: letters of dtype.kind by name.
    sizes: lengths of axes by letter, where they are known.
  """
  known = dict(sizes or {})
  for name, letters in kinds.items():
    array, axes = arrays[name], axes_of(name)
    if array.ndim == len(axes) and array.dtype.kind in letters:
      for axis, size in zip(axes, array.shape, strict=True):
        known.setdefault(axis, size)
      if array.shape == tuple(known[axis] for axis in axes):
        continue
    shape = ', '.join(str(known.get(axis, axis)) for axis in axes)
    raise ValueError(
      f'{name} is {array.dtype} of shape {array.shape}; it must be '
      f'{_WORDS[letters]} of shape ({shape})'
    )


def axes_of(name: str) -> tuple[str, ...]:
  """Returns the letters of the axes in a name.

  >>> axes_of('distance_LxMxM')
  ('L', 'M', 'M')
  """
  found = _AXES.search(name)
  return tuple(found[1].split('x')) if found else ()
