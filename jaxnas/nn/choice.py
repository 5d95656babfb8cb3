"""A choice between candidates: the one place with a switch."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxnas.nn import residuals
from jaxnas.nn.maps import Map

# The collection of running statistics.
STATISTICS = 'batch_stats'

Op = int | np.integer | Array
Arch = Int[Array, ' E'] | Int[np.ndarray, ' E']
# (call, *operands) -> result; it runs modules as call(module, *args).
Branch = Callable[..., Any]


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

    def branch(candidate: nn.Module) -> Branch:
      return lambda call, x: call(candidate, x, train)

    return switch(self, op, [*map(branch, self.op)], self.op, x)


def switch(
  module: nn.Module,
  index: Array,
  branches: Sequence[Branch],
  parts: Sequence[nn.Module],
  *operands: Any,
) -> Any:
  """Runs `branches[index](call, *operands)` and no other.

  A branch runs parts of the module as `call(part, *args)` only. It is traced
  as a pure function of their variables: the gradient of what it ran by itself
  would be lost, and so would updates of running statistics. The index is
  clamped into range, so architectures are validated on the host.
  """
  pure = {part.name: part.clone(parent=None) for part in parts}

  def of_variables(branch: Branch) -> Callable[..., Any]:
    def run(variables, *operands):
      statistics = {
        name: of_part.get(STATISTICS, {}) for name, of_part in variables.items()
      }

      def call(part, *args):
        out, changed = pure[part.name].apply(
          variables[part.name], *args, mutable=[STATISTICS]
        )
        statistics[part.name] = changed.get(STATISTICS, {})
        return out

      return branch(call, *operands), statistics

    return run

  variables = {part.name: dict(part.variables) for part in parts}
  out, statistics = residuals.switch(
    index, [*map(of_variables, branches)], variables, *operands
  )
  if module.is_mutable_collection(STATISTICS):
    for name, of_part in statistics.items():
      if of_part:
        module.put_variable(STATISTICS, name, of_part)
  return out


def loop(choices: Sequence[Choice], x: Map, ops_E: Arch, train: bool) -> Map:
  """Runs choices that are alike, one after the other, as one program.

  Of all 13^21 architectures of MobileNet that leaves 11 programs of a position
  instead of 21 to compile.

  Args:
    choices: with the same candidates on maps of one shape.
    x: what the first receives.
    ops_E: one of each, traced.
    train: batch normalisation moves its running statistics.
  """
  if choices[0].is_initializing():
    for choice, op in zip(choices, ops_E, strict=True):
      x = choice(x, op, train)
    return x
  pure = choices[0].clone(parent=None)

  def body(x, each):
    variables, op = each
    return pure.apply(variables, x, op, train, mutable=[STATISTICS])

  variables = jax.tree.map(
    lambda *leaves: jnp.stack(leaves), *(dict(one.variables) for one in choices)
  )
  x, changed = jax.lax.scan(body, x, (variables, ops_E))
  statistics: Any = changed.get(STATISTICS, {})
  for e, choice in enumerate(choices):
    if choice.is_mutable_collection(STATISTICS):
      for name, of_part in statistics.items():
        choice.put_variable(
          STATISTICS, name, jax.tree.map(lambda leaf, e=e: leaf[e], of_part)
        )
  return x


def position_and_op(names: Sequence[str]) -> tuple[int, int] | None:
  """Reads (position, op) from a parameter's path; None outside of choices."""
  for above, below in itertools.pairwise(names):
    if above.startswith('position_') and below.startswith('op_'):
      return int(above.rpartition('_')[2]), int(below.rpartition('_')[2])
  return None


def used_by_choices(params: Any, arch_E: Arch) -> Any:
  """Booleans by leaf: True for parameters that an architecture trains.

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
