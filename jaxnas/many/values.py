"""Combinations of values of a config's fields, from texts as FIELD=A,B,C."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from jaxnas.config import Config, digest, flatten, types, validation
from jaxnas.config.experiment import NOT_THE_EXPERIMENT
from jaxnas.runtime import suggestions

# Runs of a sweep share a space and its images.
SHARED = ('space', 'data.name', 'data.size', 'data.options')

# More values than these were not meant.
MOST = 100_000

ALONE = 'the config'


def combined(
  base: Config, texts: Sequence[str]
) -> tuple[dict[str, Config], list[int]]:
  """Returns experiments by label, and the seeds of each.

  Raises ValueError for a text that means no values of a field.

  >>> from jaxnas.config import Config
  >>> configs, seeds = combined(Config(), ['epochs=1,2', 'seed=0..2'])
  >>> [*configs], seeds
  (['epochs=1', 'epochs=2'], [0, 1, 2])
  """
  given = [_read(base, text) for text in texts]
  names = [name for name, _ in given]
  if twice := {name for name in names if names.count(name) > 1}:
    raise ValueError(f'--set has {min(twice)} twice: give its values once.')
  by_name = dict(given)
  seeds = [value for _, value in by_name.pop('seed', [('', base.seed)])]
  out: dict[str, Config] = {}
  for point in itertools.product(*by_name.values()):
    values = dict(zip(by_name, point, strict=True))
    label = ' '.join(f'{name}={text}' for name, (text, _) in values.items())
    out[label or ALONE] = _with(
      base, {name: value for name, (_, value) in values.items()}, label
    )
  for seed in seeds:
    _with(base, {'seed': seed}, f'seed={seed}')
  digests = [digest(config) for config in out.values()]
  for label, own in zip(out, digests, strict=True):
    if digests.count(own) > 1:
      raise ValueError(
        f'--set {label}: another combination is the same experiment: leave '
        'one out.'
      )
  if len({*seeds}) < len(seeds):
    raise ValueError('--set seed has a value twice: give it once.')
  return out, seeds


def _read(base: Config, text: str) -> tuple[str, list[tuple[str, Any]]]:
  """Returns a field, and each of its values as a text and as what it means."""
  name, equals, rest = text.partition('=')
  if not equals or not rest:
    raise ValueError(
      f'--set {text!r:.80} has no values: give FIELD=A,B,C or '
      'FIELD=FIRST..LAST.'
    )
  suggestions.check('--set: field', name, [*flatten(base)])
  if name in SHARED:
    raise ValueError(
      f'--set {name}: runs of a sweep share their space and images: make '
      'several sweeps.'
    )
  if {name, name.partition('.')[0]} & {*NOT_THE_EXPERIMENT}:
    raise ValueError(
      f'--set {name}: no result depends on it: give --{name} once.'
    )
  found = re.fullmatch(r'(\d{1,10})\.\.(\d{1,10})', rest)
  words = rest.split(',')
  if found:
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MOST:
      raise ValueError(
        f'--set {text}: the last value must be above the first, by less than '
        f'{MOST}.'
      )
    words = [str(value) for value in range(first, last + 1)]
  return name, [(word, _value(base, name, word.strip())) for word in words]


def _value(base: Config, name: str, word: str) -> Any:
  """Returns the value that a word means for a field: its type decides."""
  meant: Any = word
  if word in ('None', 'True', 'False'):
    meant = {'None': None, 'True': True, 'False': False}[word]
  else:
    try:
      meant = json.loads(word)
    except ValueError:
      meant = word
  for value in (meant, word):
    try:
      types.replaced(base, _nested({name: value}))
    except ValueError:
      continue
    return value
  return meant


def _with(base: Config, values: dict[str, Any], label: str) -> Config:
  """Returns the config with other values. Raises ValueError, with the label."""
  try:
    made = types.replaced(
      validation.without_replaced(base, values), _nested(values)
    )
    validation.validate(made)
  except ValueError as error:
    raise ValueError(f'--set {label}: {error}') from error
  return made


def _nested(values: dict[str, Any]) -> dict[str, Any]:
  """Returns values by section, from those by 'section.field'."""
  out: dict[str, Any] = {}
  for name, value in values.items():
    section, dot, field = name.rpartition('.')
    if dot:
      out.setdefault(section, {})[field] = value
    else:
      out[name] = value
  return out
