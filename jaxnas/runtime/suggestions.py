"""Checks names that users type, and suggests the nearest known one."""

import difflib
from collections.abc import Collection


def check(label: str, name: str, known: Collection[str]) -> None:
  """Raises ValueError for a name that is not known.

  >>> check('space', 'poling', ['digits', 'pooling'])
  Traceback (most recent call last):
  ValueError: space 'poling' is none of digits, pooling. Did you mean pooling?
  """
  if name not in known:
    raise ValueError(
      f'{label} {name!r:.200} is none of {", ".join(known)}.'
      + hint(name, known)
    )


def hint(name: str, known: Collection[str]) -> str:
  """Asks whether the nearest name is meant; returns '' where none is near."""
  # 'NAS-Bench-Macro' is how papers write it.
  near = difflib.get_close_matches(name.lower()[:200], known, 1)
  return f' Did you mean {near[0]}?' if near else ''
