"""Exact densities: ours in O(A D), beside the matrix of all pairs.

Ours starts from unit vectors in memory, as runs do; PyTorch normalises them,
which is nothing beside its pairs.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxnas import spaces
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.density import estimators, streaming
from jaxnas.runtime.rng import generator

SPACE = 'nas_bench_macro'
COLUMNS = 100_000


def cases(options: Options) -> list[Case]:
  """Seconds from features to densities, 2.6 GB of them unless told less."""
  rows = options.archs or spaces.get(SPACE).size
  given = {'rows': rows, 'columns': COLUMNS, 'seed': options.seed}
  what = f'exact, {rows:,} x {COLUMNS:,}'
  ours = Side(f'{__name__}:ours', given)
  return [
    Case(
      'density',
      f'{what}, against PyTorch by pairs',
      's',
      ours,
      Side('jaxnas.bench.torch_density:theirs', given),
      rounds=2,
    ),
    Case(
      'density',
      f'{what}, against reading memory twice, as it must',
      's',
      ours,
      Side(f'{__name__}:reading', given),
    ),
  ]


def ours(*, rows: int, columns: int, seed: int) -> Callable[[], float]:
  """The linear path of `density.estimate`, for features at hand."""
  features_AxD = features(rows, columns, seed)
  features_AxD /= np.linalg.norm(features_AxD, axis=1, keepdims=True)

  def densities() -> Float[np.ndarray, ' A']:
    return estimators.inverse_of(
      streaming.mean_cosine_distance(
        lambda: streaming.in_memory({'gradient': features_AxD}),
        rows,
        memory_bytes=0.0,
      )
    )

  densities()
  return timed(densities)


def reading(*, rows: int, columns: int, seed: int) -> Callable[[], float]:
  """Sums an array as large twice, as often as a density must read it."""
  features_AxD = jnp.asarray(features(rows, columns, seed))
  total = jax.jit(jnp.sum)
  total(features_AxD).block_until_ready()

  def twice() -> None:
    for _ in range(2):
      total(features_AxD).block_until_ready()

  return timed(twice)


def features(rows: int, columns: int, seed: int) -> Float[np.ndarray, 'A D']:
  """Makes normal noise: how long a density takes depends on no value."""
  rng = generator(seed, 'features')
  return rng.standard_normal((rows, columns), np.float32)


def timed(compute: Callable[[], Any]) -> Callable[[], float]:
  """Returns a function that measures seconds."""

  def measure() -> float:
    start = time.perf_counter()
    compute()
    return time.perf_counter() - start

  return measure
