"""Names the backend for which programs are formulated: this one or another."""

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
  """Returns 'cpu', 'gpu' or 'tpu'."""
  return _named.get() or jax.default_backend()


@contextlib.contextmanager
def formulated_for(name: str) -> Iterator[None]:
  """Context in which programs are traced for another backend.

  What was traced before, and is cached, stays as it is.
  """
  token = _named.set(name)
  try:
    yield
  finally:
    _named.reset(token)


def dtype(precision: str) -> Any:
  """Type of the computation; 'auto' is bfloat16 on an accelerator."""
  if precision == 'auto':
    precision = 'float32' if backend() == 'cpu' else 'bfloat16'
  return jnp.dtype(precision)
