"""Layers in C++, for CPUs: an option of what XLA does by itself.

XLA's convolutions take twice as long as PyTorch's on CPU. Where the system has
a C++ compiler these are built when a program first needs them, within seconds,
and kept in the user's cache; where it has none XLA's serve. CXX names another
compiler, and an empty one says to build nothing.

Each file of Python stands beside the C++ that it calls, and says what it takes.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn import target
from jaxnas.nn.native import library

_off = contextvars.ContextVar('off', default=False)


@contextlib.contextmanager
def without() -> Iterator[None]:
  """Within it programs are traced that run where the library is not."""
  token = _off.set(True)
  try:
    yield
  finally:
    _off.reset(token)


def serves(source: str, *arrays: Array) -> bool:
  """Whether SOURCE.cc is there for these arrays; it is built if need be."""
  return (
    target.backend() == 'cpu'
    and all(array.dtype == jnp.float32 for array in arrays)
    and not _off.get()
    and library.available(source)
  )


def call(
  name: str,
  shapes: Sequence[tuple[int, ...]],
  *operands: Array,
  in_place: Mapping[int, int] | None = None,
  **attributes: Any,
) -> Sequence[Array]:
  """Results of these shapes, in float32, of a function that `serves`.

  `in_place`: of an operand, the result that takes its memory.
  """
  function = jax.ffi.ffi_call(
    name,
    [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
    vmap_method='sequential',
    input_output_aliases=dict(in_place or {}),
  )
  return function(*operands, **attributes)
