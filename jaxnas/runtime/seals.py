"""Seals: a value goes with its digest, so that a change of it is noticed.

They guard against accidents and mix-ups; whoever changes a value on purpose can
seal it again.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from typing import Any

SEAL = 'seal'

# The key of what a result was made of, in JSON and in npz.
FACTS = 'facts'


def sealed(values: Mapping[str, Any], of: str = '') -> dict[str, Any]:
  """Adds a digest of the values, which `opened` checks and takes off.

  Args:
    values: JSON.
    of: what the values belong to, such as the digest of a config; in another
      place the seal does not hold.
  """
  return {**values, SEAL: seal(values, of)}


def opened(values: Any, of: str = '') -> dict[str, Any]:
  """Returns the values that were sealed. Raises ValueError where they changed.

  >>> opened(sealed({'step': 3}))
  {'step': 3}
  >>> opened(sealed({'step': 3}) | {'step': 4})
  Traceback (most recent call last):
  ValueError: it differs from its digest
  """
  if not isinstance(values, dict) or SEAL not in values:
    raise ValueError('it has no digest')
  values = dict(values)
  if values.pop(SEAL) != seal(values, of):
    raise ValueError('it differs from its digest')
  return values


def seal(values: Mapping[str, Any], of: str = '') -> str:
  """Returns the digest of JSON values, in any order of their keys."""
  text = of + json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def check_facts(found: Any, facts: Mapping[str, Any]) -> None:
  """Raises ValueError where a result was not made of what it must be."""
  # As JSON holds them.
  for name, ours in json.loads(json.dumps(facts)).items():
    theirs = found.get(name) if isinstance(found, dict) else None
    if theirs is None:
      raise ValueError(f'it does not say of which {name} it was made')
    if theirs != ours:
      raise ValueError(
        f'it is the result of another run: of {name} {reprlib.repr(theirs)}, '
        f'not {reprlib.repr(ours)}'
      )
