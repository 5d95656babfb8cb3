"""Functions of one's own that a config names, tried before any work."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.config import trusted
from jaxnas.runtime import errors


def function(
  field: str,
  at: str | None,
  arguments: Mapping[str, Any],
  shape: tuple[int, ...],
) -> Callable[..., Any] | None:
  """Returns the function at an address, or None for none.

  It is traced once, on shapes alone.

  Args:
    field: of the config, which says the address.
    at: `module:function`.
    arguments: shapes and types of what it is called with, in order.
    shape: of what it must return, floats.

  Raises ValueError where it can't be imported, is of other arguments, fails,
  or returns something else.
  """
  found = trusted.function(field, at, *arguments)
  if found is None:
    return None
  given = ', '.join(
    f'{name} of shape {value.shape}' for name, value in arguments.items()
  )
  try:
    out = jax.eval_shape(found, *arguments.values())
  except Exception as error:
    # It is somebody's own, and may raise anything.
    raise ValueError(
      f'{field} {at} fails on {given} ({errors.reason(error)}): it must be '
      'pure, and run in jit.'
    ) from error
  if not isinstance(out, jax.ShapeDtypeStruct) or not (
    out.shape == shape and jnp.issubdtype(out.dtype, jnp.floating)
  ):
    raise ValueError(
      f'{field} {at} returns {_shown(out)} for {given}; it must return floats '
      f'of shape {shape}.'
    )
  return found


def _shown(out: Any) -> str:
  if isinstance(out, jax.ShapeDtypeStruct):
    return f'{out.dtype} of shape {out.shape}'
  return f'a {type(out).__name__}'
