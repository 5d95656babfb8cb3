"""The backend that programs are formulated for: this one, or one named."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

_named: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'backend', default=None
)


def backend() -> str:
  """'cpu', 'gpu' or 'tpu'."""
  return _named.get() or jax.default_backend()


@contextlib.contextmanager
def formulated_for(name: str) -> Iterator[None]:
  """Within it programs are traced for another backend, to be compiled for it.

  What was traced before, and is cached, stays as it is.
  """
  token = _named.set(name)
  try:
    yield
  finally:
    _named.reset(token)


def dtype(precision: str) -> Any:
  """Of the computation; 'auto' is bfloat16 where there is an accelerator."""
  if precision == 'auto':
    precision = 'float32' if backend() == 'cpu' else 'bfloat16'
  return jnp.dtype(precision)
