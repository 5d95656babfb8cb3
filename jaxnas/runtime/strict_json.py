"""Reads JSON by its standard; Python's own reader accepts more."""

import json
import math
from typing import Any

# Lists and objects within each other; what jaxnas writes has fewer than ten.
DEEPEST = 32

BYTE_ORDER = '\ufeff'


def loads(content: str | bytes) -> Any:
  """Returns the value of a JSON text.

  Raises ValueError where the text is no JSON, repeats a key, is nested too
  deeply, or has a number that is not finite, such as NaN and 1e999, or an
  integer of more than 64 bits.

  >>> loads('{"a": [1, 2.5]}')
  {'a': [1, 2.5]}
  >>> loads('{"a": 1, "a": 2}')
  Traceback (most recent call last):
  ValueError: 'a' stands there twice.
  """
  if isinstance(content, bytes):
    content = content.decode('utf-8')
  try:
    # Some editors begin a file with a mark of its byte order.
    value = json.loads(
      content.removeprefix(BYTE_ORDER), object_pairs_hook=_without_duplicates
    )
    _check('', value, DEEPEST)
  except RecursionError:
    raise ValueError('is nested too deeply.') from None
  return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  out: dict[str, Any] = {}
  for key, value in pairs:
    if key in out:
      raise ValueError(f'{key!r} stands there twice.')
    out[key] = value
  return out


def _check(where: str, value: Any, deepest: int) -> None:
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f'{where} is {value}, no finite number.')
  if isinstance(value, int) and not -(2**63) <= value < 2**64:
    raise ValueError(
      f'{where} is an integer of {value.bit_length()} bits, more than 64.'
    )
  if isinstance(value, dict | list) and not deepest:
    raise ValueError('is nested too deeply.')
  if isinstance(value, dict):
    for key, inner in value.items():
      _check(f'{where}[{key!r}]', inner, deepest - 1)
  elif isinstance(value, list):
    for i, inner in enumerate(value):
      _check(f'{where}[{i}]', inner, deepest - 1)
