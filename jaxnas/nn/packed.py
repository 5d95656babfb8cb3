"""A switch whose gradient keeps what the branch taken needs, and no more.

The gradient of `lax.switch` keeps the union of all branches' residuals, each
in an array of its own. Recomputing whole branches instead is one forward pass
more. Here the results of convolutions are kept, in slots that all branches
share, and what lies between them is computed again.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Int

KEPT = 'kept'

Branch = Callable[..., Any]
# Of each type, the sizes of flat arrays, the largest first.
Slots = dict[Any, list[int]]


@struct.dataclass
class Residuals:
  """What the gradient of one branch needs, but for where its values lie."""

  structure: Any = struct.field(pytree_node=False)
  """Of the function that pulls a gradient back."""
  operands: tuple[int | None, ...] = struct.field(pytree_node=False)
  """For each of its leaves the operand's leaf that it is; None: its own."""
  own: tuple[Any, ...] = struct.field(pytree_node=False)
  """Shape and type of each leaf of its own."""


def keep(x: Array) -> Array:
  """Marks what a gradient keeps; all else in a branch is computed again."""
  return checkpoint_name(x, KEPT)


def switch(
  index: Int[Array, ''], branches: Sequence[Branch], *operands: Any
) -> Any:
  """Runs `branches[index](*operands)` and no other, forward and backward.

  Args:
    index: clamped into range.
    branches: pure functions, whose results have one structure. They close
      over no traced value, whose gradient would be lost.
    operands: pytrees of floating-point arrays.
  """
  policy = jax.checkpoint_policies.save_only_these_names(KEPT)
  keeping = [
    jax.checkpoint(branch, policy=policy, prevent_cse=False)
    for branch in branches
  ]

  @jax.custom_vjp
  def chosen(index, operands):
    return lax.switch(index, branches, *operands)

  def forward(index, operands):
    residuals = [_residuals(branch, operands) for branch in keeping]
    slots = _slots(residuals)

    def run(branch, of_branch):
      def taken(operands):
        out, pull = jax.vjp(branch, *operands)
        leaves = zip(jax.tree.leaves(pull), of_branch.operands, strict=True)
        own = [leaf for leaf, operand in leaves if operand is None]
        return out, _packed(own, slots)

      return taken

    out, packed = lax.switch(index, [*map(run, keeping, residuals)], operands)
    return out, (index, operands, packed, residuals)

  def backward(saved, gradient):
    index, operands, packed, residuals = saved

    def pull(of_branch):
      def taken(operands, packed, gradient):
        own = iter(_unpacked(packed, of_branch.own))
        of_operands = jax.tree.leaves(operands)
        leaves = [
          next(own) if operand is None else of_operands[operand]
          for operand in of_branch.operands
        ]
        return jax.tree.unflatten(of_branch.structure, leaves)(gradient)

      return taken

    gradients = lax.switch(
      index, [*map(pull, residuals)], operands, packed, gradient
    )
    return None, gradients

  chosen.defvjp(forward, backward)
  return chosen(index, operands)


def _residuals(branch: Branch, operands: Any) -> Residuals:
  which: list[int | None] = []

  def pulls(operands):
    pull = jax.vjp(branch, *operands)[1]
    places = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(operands))}
    which.extend(places.get(id(leaf)) for leaf in jax.tree.leaves(pull))
    return pull

  leaves, structure = jax.tree.flatten(jax.eval_shape(pulls, operands))
  own = [
    jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for leaf, operand in zip(leaves, which, strict=True)
    if operand is None
  ]
  return Residuals(structure, tuple(which), tuple(own))


def _by_type(own: Sequence[Any]) -> dict[Any, list[int]]:
  """Indices of arrays of each type, the largest first."""
  types = sorted({leaf.dtype for leaf in own}, key=str)
  return {
    dtype: sorted(
      (i for i, leaf in enumerate(own) if leaf.dtype == dtype),
      key=lambda i: -math.prod(own[i].shape),
    )
    for dtype in types
  }


def _slots(residuals: Sequence[Residuals]) -> Slots:
  """The k-th is as large as the k-th largest array of any branch."""
  slots: Slots = {}
  for of_branch in residuals:
    for dtype, indices in _by_type(of_branch.own).items():
      sizes = [math.prod(of_branch.own[i].shape) for i in indices]
      slots[dtype] = [
        max(pair)
        for pair in itertools.zip_longest(
          slots.get(dtype, []), sizes, fillvalue=0
        )
      ]
  return slots


def _packed(own: Sequence[Any], slots: Slots) -> list[list[Any]]:
  # Among a branch's own are constants, which are numpy arrays.
  by_type = _by_type(own)
  return [
    [
      jnp.pad(own[index].ravel(), (0, size - own[index].size))
      if index is not None
      else jnp.zeros(size, dtype)
      for index, size in itertools.zip_longest(by_type.get(dtype, []), sizes)
    ]
    for dtype, sizes in slots.items()
  ]


def _unpacked(packed: list[list[Any]], own: Sequence[Any]) -> list[Any]:
  arrays = {slots[0].dtype: slots for slots in packed}
  out: list[Any] = [None] * len(own)
  for dtype, indices in _by_type(own).items():
    for i, slot in zip(indices, arrays[dtype], strict=False):
      shape = own[i].shape
      out[i] = slot[: math.prod(shape)].reshape(shape)
  return out
