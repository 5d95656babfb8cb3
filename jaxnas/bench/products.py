"""Convolutions in bfloat16 on a CPU beside plain products of the same size.

A roofline: what a convolution could reach at best is a product, by the same
library, of as many rows as there are pixels of all images, as many terms as
taps and inputs, and as many columns as outputs.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.bench import rivals
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.nn import convolutions

BATCH_SIZE = 64
# (kernel, inputs, outputs, side) of the spaces' convolutions.
SHAPES = (
  (3, 64, 64, 32),
  (3, 16, 16, 32),
  (3, 32, 32, 16),
  (3, 64, 64, 8),
  (1, 64, 64, 8),
)
PASSES = ('forward', 'of the input', 'of the kernel')


def cases(options: Options) -> list[Case]:
  """Each pass of each convolution; none but on a CPU."""
  if rivals.device()[0] != 'cpu':
    return []
  batch_size = options.batch_size or BATCH_SIZE
  return [
    Case(
      'products',
      f'{k}x{k} from {inputs} to {outputs} channels of {side}x{side}, {name}, '
      f'batch {batch_size}, against a plain product',
      'GFLOP/s',
      Side(f'{__name__}:convolution', given),
      Side(f'{__name__}:product', given),
    )
    for k, inputs, outputs, side in SHAPES
    for number, name in enumerate(PASSES)
    for given in [
      {
        'shape': [k, inputs, outputs, side],
        'number': number,
        'batch_size': batch_size,
        'seed': options.seed,
      }
    ]
  ]


def convolution(
  *, shape: list[int], number: int, batch_size: int, seed: int
) -> Callable[[], float]:
  """Measures 1e9 operations/s of one pass of a convolution of stride 1.

  Args:
    shape: kernel, inputs, outputs and side.
    number: of the pass in PASSES.
    batch_size: images.
    seed: of values.
  """
  k, inputs, outputs, side = shape
  maps = batch_size, side, side
  shapes = (*maps, inputs), (k, k, inputs, outputs), (*maps, outputs)
  normal = np.random.default_rng(seed).normal
  x, kernel, g = (jnp.asarray(normal(size=s), jnp.bfloat16) for s in shapes)

  def run(x, kernel, g):
    out, pull = jax.vjp(convolutions.dense, x, kernel)
    return out if number == 0 else pull(g)[number - 1]

  compiled = jax.jit(run).lower(x, kernel, g).compile()
  operations = 2 * (kernel.size // kernel.shape[-1]) * g.size

  def measure() -> float:
    start = time.perf_counter()
    jax.block_until_ready(compiled(x, kernel, g))
    return 1e-9 * operations / (time.perf_counter() - start)

  measure()
  return measure


def product(*, shape: list[int], **given: int) -> Callable[[], float]:
  """Measures a product of as many rows, terms and columns.

  It is a pointwise convolution of as many inputs as the kernel has taps for.
  """
  k, inputs, outputs, side = shape
  return convolution(shape=[1, k * k * inputs, outputs, side], **given)
