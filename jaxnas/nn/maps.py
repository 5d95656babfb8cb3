"""Feature maps: how their axes lie, and how wide sums over them are.

Layouts name the axes: NHWC everywhere in public, and CHWN (channels major,
batch minor) inside trunks of depthwise blocks on CPU, where it makes shifted
multiply-accumulates and pointwise products contiguous.
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.nn import target
from jaxnas.nn.cpu.native import relayout as native

Layout = Literal['NHWC', 'CHWN']
Map = Float[Array, '_ _ _ _']


def trunk_layout(backend: str | None = None) -> Layout:
  """Layout that suits trunks of depthwise blocks on a backend.

  None is the backend that programs are formulated for.
  """
  return 'CHWN' if (backend or target.backend()) == 'cpu' else 'NHWC'


def relayout(x: Map, before: Layout, after: Layout) -> Map:
  """Moves a map from one layout to the other."""
  if before == after:
    return x
  # NHWC -> CHWN and back are both this exchange of the first and last axis.
  if native.takes(x):
    return native.relayout(x)
  return jnp.transpose(x, (3, 1, 2, 0))


def at_least_float32(dtype: Any) -> Any:
  """Type of statistics and sums: float32, or float64 where that is used."""
  return jnp.promote_types(dtype, jnp.float32)
