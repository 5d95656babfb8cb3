"""What a checkpoint holds, said in JSON, so that damage to it is seen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

SEAL = 'seal'


class Damaged(OSError, ValueError):
  """A checkpoint is not what was saved."""


class Different(ValueError):
  """A checkpoint is whole, and of another experiment."""


def named(tree: Any) -> dict[str, Any]:
  """Leaves by path, such as params/stem/kernel."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def shape(leaf: Any) -> str:
  """Such as float32[3,16]."""
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def digest(leaf: Any) -> str:
  """Of its bytes, on this machine; what is on several devices is whole there.

  A flipped bit gives another.
  """
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()


def describe(tree: Any) -> dict[str, list[str]]:
  """{path: [shape, digest]}, ready for JSON."""
  return {
    path: [shape(leaf), digest(leaf)] for path, leaf in named(tree).items()
  }


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
  """The same with a digest of its own, which `opened` takes off."""
  return {**values, SEAL: _seal(values)}


def opened(values: Any) -> dict[str, Any]:
  """What was sealed. Raises Damaged where it is not that any more."""
  if not isinstance(values, dict) or SEAL not in values:
    raise Damaged('its notes have no digest')
  values = dict(values)
  if values.pop(SEAL) != _seal(values):
    raise Damaged('its notes differ from their digest')
  return values


def _seal(values: Mapping[str, Any]) -> str:
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def check_like(described: Mapping[str, list[str]], like: Any) -> None:
  """Raises Different where the leaves to restore into are others."""
  ours = {path: shape(leaf) for path, leaf in named(like).items()}
  theirs = {path: leaf for path, (leaf, _) in described.items()}
  for path in [*ours, *theirs]:
    one, other = theirs.get(path, 'nothing'), ours.get(path, 'nothing')
    if one != other:
      raise Different(f'holds {path} as {one}, not {other}')


def check(described: Mapping[str, list[str]], tree: Any) -> None:
  """Raises Damaged where a leaf is not what was described."""
  for path, leaf in named(tree).items():
    if [shape(leaf), digest(leaf)] != described[path]:
      raise Damaged(f'{path} differs from its digest')


def check_facts(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
  """Raises Different where both say of what experiment they are, unlike."""
  for name in ours.keys() & theirs.keys():
    if ours[name] != theirs[name]:
      raise Different(f'is of {name} {theirs[name]}, not {ours[name]}')
