"""Converts Flax's trees to PyTorch's names and shapes."""

import re
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import Tensor, nn

NAMES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
# Outputs stand first, then inputs: of IO, KxKxC and KxKxIxO.
AXES = {2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1)}


def load(net: nn.Module, params: Any, batch_stats: Any = None) -> None:
  """Copies a supernet's parameters into the PyTorch one.

  Args:
    net: from `torch_nets.build`, which keeps its precision.
    params: all of them, as Flax names and shapes them.
    batch_stats: running statistics, where the net keeps them.

  Raises RuntimeError where one is missing or of another shape.
  """
  net.load_state_dict(
    converted(net, params) | converted(net, batch_stats or {})
  )


def converted(net: nn.Module, tree: Any) -> dict[str, Tensor]:
  """A tree like Flax's parameters, by the names that PyTorch gives them.

  Args:
    net: from `torch_nets.build`, of the same space.
    tree: parameters, their gradients or running statistics; of all ops or of
      some.

  Raises KeyError where the net has no such tensor.
  """
  shapes = {name: value.shape for name, value in net.state_dict().items()}
  out = {}
  for (*modules, last), leaf in flatten_dict(tree).items():
    # position_0 is entry 0 of position.
    where = [re.sub(r'_(\d+)$', r'.\1', module) for module in modules]
    values = {'.'.join(where): np.asarray(leaf)}
    if where[0].startswith('cells.'):
      values = {
        '.'.join((where[0], str(cell), *where[1:])): value
        for cell, value in enumerate(np.asarray(leaf))
      }
    for module, value in values.items():
      name = f'{module}.{NAMES[last]}'
      if last == 'kernel':
        value = value.transpose(AXES[value.ndim])
      out[name] = torch.from_numpy(value.copy()).reshape(shapes[name])
  return out
