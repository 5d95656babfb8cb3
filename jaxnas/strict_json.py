"""JSON as its standard has it: Python's own reader takes more than that."""

import json
import math
from typing import Any


def loads(content: str | bytes) -> Any:
  """What the text holds.

  Raises ValueError where it is no JSON, repeats a key, is nested too deeply,
  or has a number that is none, such as NaN and 1e999.

  >>> loads('{"a": [1, 2.5]}')
  {'a': [1, 2.5]}
  >>> loads('{"a": 1, "a": 2}')
  Traceback (most recent call last):
  ValueError: 'a' stands there twice.
  """
  if isinstance(content, bytes):
    content = content.decode('utf-8')
  try:
    value = json.loads(content, object_pairs_hook=_without_duplicates)
    _check_finite('', value)
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


def _check_finite(where: str, value: Any) -> None:
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f'{where} is {value}, no finite number.')
  if isinstance(value, dict):
    for key, inner in value.items():
      _check_finite(f'{where}[{key!r}]', inner)
  elif isinstance(value, list):
    for i, inner in enumerate(value):
      _check_finite(f'{where}[{i}]', inner)
