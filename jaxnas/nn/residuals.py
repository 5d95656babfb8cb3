"""A switch whose gradient keeps what the branch taken needs, and no more.

The gradient of `lax.switch` keeps the union of all branches' residuals, each
in an array of its own. Recomputing whole branches instead is one forward pass
more. Here what a branch marks by `keep` is kept, in slots that all branches
share, and all else is computed again; so is what would fill a slot in part.
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

from jaxnas.nn import target, uninitialised
from jaxnas.nn.cpu import bits

Branch = Callable[..., Any]
# Type by name -> sizes of its slots, which are flat arrays, the largest first.
Slots = dict[str, list[int]]
# Type and number of the slot of each array of a branch; None: not kept.
Places = list[tuple[str, int] | None]
# The action of `keep` while a branch is traced; elsewhere it does nothing.
_keeping = contextvars.ContextVar[Callable[[Array, bool], Array] | None](
  'keeping', default=None
)


@struct.dataclass
class Kept:
  """An array or its shape, as marked by `keep`."""

  array: Any
  padded: bool = struct.field(pytree_node=False)

  @property
  def size(self) -> int:
    return math.prod(self.array.shape)


@struct.dataclass
class Shapes:
  """Shapes of the arrays that each branch keeps; no data of the program."""

  of_branches: tuple[tuple[Kept, ...], ...] = struct.field(pytree_node=False)


def keep(x: Array, *, padded: bool = True) -> Array:
  """Marks what a gradient keeps; all else in a branch is computed again.

  Results of convolutions and the sums of normalisation are marked: what
  lies between them is a few operations a value, which fuse with what reads
  it.

  On TPUs nothing is kept: a slot is a flat array, and would have every map laid
  out in rows, where convolutions want the batch innermost. Compiled for a v5e,
  a step of one position of NAS-Bench-Macro moved 4.65 GB instead of 7.79, and
  took 0.72 GB instead of 1.89.

  Args:
    x: any array.
    padded: keep it in a slot of another size, too. What is made by fewer
      operations a value than it takes to pad and to cut had better not.
  """
  keeping = _keeping.get()
  if keeping is None or target.backend() == 'tpu':
    return x
  return keeping(x, padded)


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
    return out, (index, bits.stored((operands, packed)), shapes)

  def backward(saved, gradient):
    index, stored, shapes = saved
    operands, packed = bits.restored(stored)

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
def _keep_by(keeping: Callable[[Array, bool], Array]) -> Iterator[None]:
  token = _keeping.set(keeping)
  try:
    yield
  finally:
    _keeping.reset(token)


def _recorded(branch: Branch) -> Branch:
  """Returns (*operands) -> (result, arrays that the branch keeps)."""

  def run(*operands):
    kept: list[Kept] = []

    def record(x: Array, padded: bool) -> Array:
      kept.append(Kept(x, padded))
      return x

    with _keep_by(record):
      return branch(*operands), kept

  return run


def _kept(branch: Branch, operands: Sequence[Any]) -> tuple[Kept, ...]:
  """Returns shapes of the arrays that a branch marks."""
  return tuple(jax.eval_shape(_recorded(branch), *operands)[1])


def _replayed(branch: Branch, kept: Sequence[Array | None]) -> Branch:
  """Returns a branch of the same values and gradient, from kept arrays."""

  def run(*operands):
    stored = iter(kept)

    def replace(x: Array, padded: bool) -> Array:
      del padded
      by = next(stored)
      return x if by is None else _replaced(x, by)

    with _keep_by(replace):
      return branch(*operands)

  return run


@jax.custom_vjp
def _replaced(x: Array, by: Array) -> Array:
  """Gives an equal value in place of x, which need not be computed then."""
  del x
  return by


_replaced.defvjp(lambda x, by: (by, None), lambda _, g: (g, None))


def _by_type(kept: Sequence[Kept]) -> dict[str, list[int]]:
  """Returns indices of the arrays of each type, the largest first."""
  types = [str(each.array.dtype) for each in kept]
  return {
    dtype: sorted(
      (i for i, each in enumerate(types) if each == dtype),
      key=lambda i: -kept[i].size,
    )
    for dtype in sorted(set(types))
  }


def _slots(of_branches: Sequence[Sequence[Kept]]) -> Slots:
  """Makes the k-th slot as large as the k-th largest array of any branch."""
  slots: Slots = {}
  for kept in of_branches:
    for dtype, indices in _by_type(kept).items():
      sizes = [kept[i].size for i in indices]
      slots[dtype] = [
        max(pair)
        for pair in itertools.zip_longest(
          slots.get(dtype, []), sizes, fillvalue=0
        )
      ]
  return slots


def _places(kept: Sequence[Kept], slots: Slots) -> Places:
  """Gives each array, the largest first, the smallest free slot that fits."""
  places: Places = [None] * len(kept)
  for dtype, indices in _by_type(kept).items():
    free = [*enumerate(slots[dtype])]
    for i in indices:
      slot, size = next(
        each for each in reversed(free) if each[1] >= kept[i].size
      )
      free.remove((slot, size))
      if kept[i].padded or size == kept[i].size:
        places[i] = dtype, slot
  return places


def _packed(kept: Sequence[Kept], slots: Slots) -> dict[str, list[Array]]:
  places = _places(kept, slots)
  at = {place: each.array for each, place in zip(kept, places, strict=True)}
  return {
    dtype: [
      uninitialised.extend(
        at.get((dtype, slot), jnp.zeros(0, dtype)), size, slot
      )
      for slot, size in enumerate(sizes)
    ]
    for dtype, sizes in slots.items()
  }


def _unpacked(
  packed: dict[str, list[Array]], kept: Sequence[Kept]
) -> list[Array | None]:
  slots = {dtype: [x.size for x in arrays] for dtype, arrays in packed.items()}

  def array(each: Kept, place: tuple[str, int] | None) -> Array | None:
    if place is None:
      return None
    dtype, slot = place
    return packed[dtype][slot][: each.size].reshape(each.array.shape)

  return [*map(array, kept, _places(kept, slots))]
