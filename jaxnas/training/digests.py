"""Describes the content of a checkpoint in JSON, to notice damage."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.runtime import errors, seals


def named(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a pytree by path, such as params/stem/kernel."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def shape(leaf: Any) -> str:
  """Returns type and shape of a leaf, such as float32[3,16]."""
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def digest(leaf: Any) -> str:
  """Returns the sha256 of a leaf's bytes, in hexadecimal.

  A leaf on several devices is whole on each of them.
  """
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()


def describe(tree: Any) -> dict[str, list[str]]:
  """Returns {path: [shape, digest]} of a pytree, ready for JSON."""
  return {
    path: [shape(leaf), digest(leaf)] for path, leaf in named(tree).items()
  }


def of(tree: Any) -> str:
  """Returns one digest of a pytree; a checkpoint's notes give it, too."""
  return seals.seal(describe(tree))


def check_like(described: Mapping[str, list[str]], like: Any) -> None:
  """Raises Different where `like` has other leaves than was described."""
  ours = {path: shape(leaf) for path, leaf in named(like).items()}
  theirs = {path: leaf for path, (leaf, _) in described.items()}
  for path in [*ours, *theirs]:
    one, other = theirs.get(path, 'nothing'), ours.get(path, 'nothing')
    if one != other:
      raise errors.Different(f'holds {path} as {one}, not {other}')


def check(described: Mapping[str, list[str]], tree: Any) -> None:
  """Raises Damaged where a leaf differs from its description."""
  for path, leaf in named(tree).items():
    if [shape(leaf), digest(leaf)] != described[path]:
      raise errors.Damaged(f'{path} differs from its digest')


def check_metadata(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
  """Raises Different where a name has different values in both."""
  for name in ours.keys() & theirs.keys():
    if ours[name] != theirs[name]:
      raise errors.Different(f'is of {name} {theirs[name]}, not {ours[name]}')
