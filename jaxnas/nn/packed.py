"""A switch whose gradient keeps what the branch taken needs, and no more.

The gradient of `lax.switch` keeps the union of all branches' residuals, each
in an array of its own. Recomputing whole branches instead is one forward pass
more. Here what a branch marks by `keep` is kept, in slots that all branches
share, and all else is computed again.
"""

import contextlib
import contextvars
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Int

Branch = Callable[..., Any]
# Of each type, the sizes of flat arrays, the largest first.
Slots = dict[Any, list[int]]
# What `keep` does while a branch is traced; outside of one it does nothing.
_keeping = contextvars.ContextVar[Callable[[Array], Array] | None](
  'keeping', default=None
)


@struct.dataclass
class Shapes:
  """Of what each branch keeps; no data of the program."""

  of_branches: tuple[tuple[jax.ShapeDtypeStruct, ...], ...] = struct.field(
    pytree_node=False
  )


def keep(x: Array) -> Array:
  """Marks what a gradient keeps; all else in a branch is computed again.

  Results of convolutions and the sums of normalisation are marked: what
  lies between them is a few operations a value, which fuse with what reads
  it.
  """
  keeping = _keeping.get()
  return x if keeping is None else keeping(x)


def switch(
  index: Int[Array, ''], branches: Sequence[Branch], *operands: Any
) -> Any:
  """Runs `branches[index](*operands)` and no other, forward and backward.

  Args:
    index: clamped into range.
    branches: pure functions, whose results have one structure. They close
      over no traced value, whose gradient would be lost, and call `keep`
      outside of loops and other transformations.
    operands: pytrees of floating-point arrays.
  """

  @jax.custom_vjp
  def chosen(index, operands):
    return lax.switch(index, branches, *operands)

  def forward(index, operands):
    shapes = Shapes(tuple(_kept(branch, operands) for branch in branches))
    slots = _slots(shapes.of_branches)

    def run(branch):
      def taken(operands):
        out, kept = _recorded(branch)(*operands)
        return out, _packed(kept, slots)

      return taken

    out, packed = lax.switch(index, [*map(run, branches)], operands)
    return out, (index, operands, packed, shapes)

  def backward(saved, gradient):
    index, operands, packed, shapes = saved

    def pull(branch, kept):
      def taken(operands, packed, gradient):
        again = _replayed(branch, _unpacked(packed, kept))
        return jax.vjp(again, *operands)[1](gradient)

      return taken

    gradients = lax.switch(
      index,
      [*map(pull, branches, shapes.of_branches)],
      operands,
      packed,
      gradient,
    )
    return None, gradients

  chosen.defvjp(forward, backward)
  return chosen(index, operands)


@contextlib.contextmanager
def _keep_by(keeping: Callable[[Array], Array]) -> Iterator[None]:
  token = _keeping.set(keeping)
  try:
    yield
  finally:
    _keeping.reset(token)


def _recorded(branch: Branch) -> Branch:
  """(*operands) -> (result, what it keeps)."""

  def run(*operands):
    kept: list[Array] = []

    def record(x: Array) -> Array:
      kept.append(x)
      return x

    with _keep_by(record):
      return branch(*operands), kept

  return run


def _kept(
  branch: Branch, operands: Sequence[Any]
) -> tuple[jax.ShapeDtypeStruct, ...]:
  return tuple(
    jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for leaf in jax.eval_shape(_recorded(branch), *operands)[1]
  )


def _replayed(branch: Branch, kept: Sequence[Array]) -> Branch:
  """The same values and gradient, from what was kept."""

  def run(*operands):
    stored = iter(kept)
    with _keep_by(lambda x: _replaced(x, next(stored))):
      return branch(*operands)

  return run


@jax.custom_vjp
def _replaced(x: Array, by: Array) -> Array:
  """An equal value in place of x, which nothing then needs to compute."""
  del x
  return by


_replaced.defvjp(lambda x, by: (by, None), lambda _, g: (g, None))


def _by_type(arrays: Sequence[Any]) -> dict[Any, list[int]]:
  """Indices of arrays of each type, the largest first."""
  types = sorted({array.dtype for array in arrays}, key=str)
  return {
    dtype: sorted(
      (i for i, array in enumerate(arrays) if array.dtype == dtype),
      key=lambda i: -math.prod(arrays[i].shape),
    )
    for dtype in types
  }


def _slots(kept: Sequence[Sequence[Any]]) -> Slots:
  """The k-th is as large as the k-th largest array of any branch."""
  slots: Slots = {}
  for of_branch in kept:
    for dtype, indices in _by_type(of_branch).items():
      sizes = [math.prod(of_branch[i].shape) for i in indices]
      slots[dtype] = [
        max(pair)
        for pair in itertools.zip_longest(
          slots.get(dtype, []), sizes, fillvalue=0
        )
      ]
  return slots


def _packed(kept: Sequence[Array], slots: Slots) -> list[list[Array]]:
  by_type = _by_type(kept)
  return [
    [
      jnp.pad(kept[index].ravel(), (0, size - kept[index].size))
      if index is not None
      else jnp.zeros(size, dtype)
      for index, size in itertools.zip_longest(by_type.get(dtype, []), sizes)
    ]
    for dtype, sizes in slots.items()
  ]


def _unpacked(packed: list[list[Array]], kept: Sequence[Any]) -> list[Array]:
  arrays = {slots[0].dtype: slots for slots in packed}
  out: list[Any] = [None] * len(kept)
  for dtype, indices in _by_type(kept).items():
    for i, slot in zip(indices, arrays[dtype], strict=False):
      shape = kept[i].shape
      out[i] = slot[: math.prod(shape)].reshape(shape)
  return out
