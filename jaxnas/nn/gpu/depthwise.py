"""Depthwise convolution of a map that it normalises and activates, on GPUs.

XLA normalises a map and writes it, so that cuDNN can read it; here a map is
read from memory once and normalised on the way, and so it is where gradients
are made.

Compiled for an H100, not run: there was no GPU. On a CPU the same programs are
interpreted, for tests.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from jaxnas.nn.gpu import programs
from jaxnas.nn.gpu.tiles import WARPS, After, Layer, Line
from jaxnas.nn.maps import Map


class Pulled(NamedTuple):
  """Gradients of a convolution."""

  map: Map
  """The gradient by what is activated, or by x where nothing stands before."""
  kernel: Float[Array, 'K K C']
  total: Float[Array, ' C']
  """Sum of `map`."""
  product: Float[Array, ' C']
  """Sum of `map * x`."""


def convolve(
  x_BxHxWxC: Map, line: Line, kernel_KxKxC: Float[Array, 'K K C'], layer: Layer
) -> tuple[Map, Float[Array, ' C'], Float[Array, ' C']]:
  """Returns the result, its sum and that of its squares; no gradient flows.

  Args:
    x_BxHxWxC: the map.
    line: what normalises it.
    kernel_KxKxC: of the convolution, float32.
    layer: says how.
  """
  grid, together, channels = layer.divided(-(-layer.kernel // layer.stride) + 2)
  sums = jax.ShapeDtypeStruct((grid[0], 2, layer.shape[3]), jnp.float32)
  y, sums_Gx2xC = _run(
    functools.partial(programs.convolve, layer, together, channels),
    'depthwise',
    grid,
    (jax.ShapeDtypeStruct(layer.result, x_BxHxWxC.dtype), sums),
    (x_BxHxWxC, jnp.stack(line), kernel_KxKxC),
  )
  return y, *sums_Gx2xC.sum(0)


def pull(
  x_BxHxWxC: Map,
  line: Line,
  kernel_KxKxC: Float[Array, 'K K C'],
  y: Map,
  after: After,
  g: Map,
  layer: Layer,
) -> Pulled:
  """Returns gradients of `convolve`, of which the first three arguments are.

  Args:
    x_BxHxWxC: the map.
    line: what normalises it.
    kernel_KxKxC: of the convolution, float32.
    y: its result.
    after: tells what g becomes on its way back to y.
    g: the gradient behind it.
    layer: says how.
  """
  k, channels = layer.kernel, layer.shape[3]
  grid, together, some = layer.divided(2 * k * layer.stride + 2)
  pulled, sums_GxRxC = _run(
    functools.partial(programs.pull, layer, together, some),
    'depthwise_gradient',
    grid,
    (
      jax.ShapeDtypeStruct(layer.shape, x_BxHxWxC.dtype),
      jax.ShapeDtypeStruct((grid[0], k * k + 2, channels), jnp.float32),
    ),
    (x_BxHxWxC, jnp.stack(line), kernel_KxKxC, y, jnp.stack(after), g),
  )
  *taps, total_C, product_C = sums_GxRxC.sum(0)
  kernel = jnp.stack(taps).reshape(k, k, channels)
  return Pulled(pulled, kernel, total_C, product_C)


def _run(
  body: Any,
  name: str,
  grid: tuple[int, int],
  results: tuple[Any, ...],
  operands: tuple[Array, ...],
) -> Any:
  """Runs programs on whole arrays, on a GPU by Triton."""
  whole = pl.BlockSpec(memory_space=pl.ANY)

  def by(interpret: bool) -> Any:
    return pl.pallas_call(
      body,
      results,
      grid=grid,
      in_specs=[whole] * len(operands),
      out_specs=(whole,) * len(results),
      interpret=interpret,
      compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
      name=name,
    )

  return lax.platform_dependent(*operands, cpu=by(True), default=by(False))
