"""Selection of the weight tensors whose gradients are compared."""

import re
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Int

from jaxnas.nn.layers import WEIGHT


def select(
  net: Any, params: Any, archs_AxE: Any, tensors: str | None
) -> tuple[str, ...]:
  """Returns names ('/'-joined paths) of the weight tensors to compare.

  Args:
    net: a supernet; its `tensor_sets` name sets of its own.
    params: its shared weights, or their shapes.
    archs_AxE: architectures between which 'shared' is decided.
    tensors: a set of the supernet, 'shared' (used by every architecture),
      'all', or comma-separated regular expressions matched against the whole
      name. None: the supernet's default.

  Raises:
    ValueError: the name is no set here and matches no tensor.
  """
  chosen_set: str = tensors or net.default_tensors
  by_name: dict[str, Any] = flatten_dict(params, sep='/')
  weights = [name for name in by_name if name.rpartition('/')[2] == WEIGHT]
  if chosen_set == 'all':
    return tuple(weights)
  if chosen_set == 'shared':
    shared = used_by_all(net, params, archs_AxE)
    return tuple(name for name in weights if name in shared)
  patterns = net.tensor_sets.get(chosen_set, chosen_set.split(','))
  try:
    chosen = [
      name
      for name in weights
      if any(re.fullmatch(pattern, name) for pattern in patterns)
    ]
  except re.error as error:
    raise ValueError(
      f'density.tensors {chosen_set!r} is no regular expression: {error}.'
    ) from error
  if not chosen:
    sets = ', '.join((*net.tensor_sets, 'shared', 'all'))
    raise ValueError(
      f'density.tensors {chosen_set!r} matches no weight tensor; the sets are '
      f'{sets}, the tensors {weights[0]}, ..., {weights[-1]}.'
    )
  return tuple(chosen)


def used_by_all(net: Any, params: Any, archs_AxE: Any) -> set[str]:
  """Returns names of the parameters that every architecture trains."""
  everywhere = jax.tree.map(
    # A leaf of a mixture counts as used where any member uses its own.
    lambda *leaves: np.all([np.any(leaf) for leaf in leaves]),
    *(net.used(params, arch_E) for arch_E in extremes(archs_AxE)),
  )
  by_name: dict[str, Any] = flatten_dict(everywhere, sep='/')
  return {name for name, used in by_name.items() if used}


def extremes(archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, 'M E']:
  """Picks a few architectures that together use every op of every position."""
  keep = {
    int(np.argmax(archs_AxE[:, e] == op))
    for e in range(archs_AxE.shape[1])
    for op in np.unique(archs_AxE[:, e])
  }
  return archs_AxE[sorted(keep)]
