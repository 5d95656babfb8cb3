"""A choice between candidates: the one place with a switch."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxnas.nn.convolutions import Map

Op = int | np.integer | Array
Arch = Int[Array, ' E'] | Int[np.ndarray, ' E']


class Choice(nn.Module):
  """Runs the candidate that `op` names; called as module(x, train).

  A Python int picks at trace time: only that candidate exists. A traced op
  picks at run time, in one program for all: only that candidate runs.

  Args:
    candidates: make the modules, named op_0, op_1, ...
  """

  candidates: tuple[Callable[[], nn.Module], ...]

  def setup(self):
    self.op = [make() for make in self.candidates]

  def __call__(self, x: Map, op: Op, train: bool) -> Map:
    if isinstance(op, int | np.integer):
      return self.op[op](x, train)
    if self.is_initializing():
      return jnp.stack([candidate(x, train) for candidate in self.op])[op]

    return switch(
      self,
      op,
      [
        lambda choice, x, index=index: choice.op[index](x, train)
        for index in range(len(self.op))
      ],
      x,
    )


def switch(
  module: nn.Module,
  index: Array,
  branches: Sequence[Callable[..., Any]],
  *operands: Any,
) -> Any:
  """Runs `branches[index](module, *operands)` and no other.

  A branch reaches its module through its first argument: closed over, updates
  of running statistics would be dropped in silence. The index is clamped into
  range, so architectures are validated on the host.
  """
  # The gradient of a switch keeps the union of all branches' residuals, 533
  # MB against a static path's 222. Recomputing in the branch cures that.
  return nn.switch(index, [nn.remat(b) for b in branches], module, *operands)


def position_and_op(names: Sequence[str]) -> tuple[int, int] | None:
  """Of the choice that a parameter belongs to, from its path; None: of none."""
  for above, below in itertools.pairwise(names):
    if above.startswith('position_') and below.startswith('op_'):
      return int(above.rpartition('_')[2]), int(below.rpartition('_')[2])
  return None


def used_by_choices(params: Any, arch_E: Arch) -> Any:
  """Booleans by leaf: which parameters an architecture trains.

  Leaves under position_<e>/op_<o> are used where arch_E[e] == o, all others
  always.
  """

  def used(path, leaf):
    del leaf
    found = position_and_op([key.key for key in path])
    if found is None:
      return jnp.bool_(True)
    position, op = found
    return jnp.asarray(arch_E)[position] == op

  return jax.tree_util.tree_map_with_path(used, params)
