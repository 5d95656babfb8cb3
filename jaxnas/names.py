"""Names that users type, and the nearest one when they mistype."""

import difflib
from collections.abc import Collection


def check(label: str, name: str, known: Collection[str]) -> None:
  """Raises ValueError where the name is not known.

  >>> check('space', 'poling', ['digits', 'pooling'])
  Traceback (most recent call last):
  ValueError: space 'poling' is none of digits, pooling. Did you mean pooling?
  """
  if name not in known:
    # 'NAS-Bench-Macro' is how papers write it.
    near = difflib.get_close_matches(name.lower(), known, 1)
    hint = f' Did you mean {near[0]}?' if near else ''
    raise ValueError(f'{label} {name!r} is none of {", ".join(known)}.{hint}')
