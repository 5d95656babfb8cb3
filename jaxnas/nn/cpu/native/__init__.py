"""Layers in C++ for CPUs, in place of slower ones by XLA.

Each module stands beside the C++ that it calls; its `takes` says for which
arrays. The README one folder up says what is gained, how the library is built
and what serves without a compiler.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn import target
from jaxnas.nn.cpu.native import library

_off = contextvars.ContextVar('off', default=False)


@contextlib.contextmanager
def without() -> Iterator[None]:
  """Context in which programs are traced without C++, to run elsewhere."""
  token = _off.set(True)
  try:
    yield
  finally:
    _off.reset(token)


def formulation(source: str) -> str:
  """Returns 'C++' or 'XLA': what computes where programs ask for SOURCE.cc."""
  serves = target.backend() == 'cpu' and library.available(source)
  return 'C++' if serves else 'XLA'


def formulations() -> dict[str, str]:
  """Returns `formulation` of the sources that programs have asked for."""
  return {source: formulation(source) for source in sorted(library.asked())}


# What maps may hold in memory; all arithmetic is in float32.
TYPES = jnp.float32, jnp.bfloat16


def serves(source: str, *arrays: Array) -> bool:
  """Returns True where SOURCE.cc can serve these arrays; may build it first."""
  return (
    target.backend() == 'cpu'
    and len({array.dtype for array in arrays}) == 1
    and arrays[0].dtype in TYPES
    and not _off.get()
    and library.available(source)
  )


def call(
  name: str,
  results: Sequence[jax.ShapeDtypeStruct],
  *operands: Array,
  in_place: Mapping[int, int] | None = None,
  **attributes: Any,
) -> Sequence[Array]:
  """Calls a C++ function of a source that `serves`.

  Args:
    name: of the function.
    results: shapes and types of its results.
    operands: its arrays.
    in_place: number of an operand -> number of the result that is written over
      it.
    attributes: its options.
  """
  function = jax.ffi.ffi_call(
    name,
    results,
    vmap_method='sequential',
    input_output_aliases=dict(in_place or {}),
  )
  return function(*operands, **attributes)
