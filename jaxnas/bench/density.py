"""Exact densities: ours in O(A D), beside the matrix of all pairs.

Both from features on the device, where gradients are.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxnas import spaces, streams
from jaxnas.bench.cases import Case, Options, Side

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
      Side(f'{__name__}:torch_by_pairs', given),
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
  """`density.inverse_mean_distance`, compiled before."""
  import jax.numpy as jnp

  from jaxnas import density

  features_AxD = jnp.asarray(features(rows, columns, seed))
  density.inverse_mean_distance(features_AxD)
  return _timed(lambda: density.inverse_mean_distance(features_AxD))


def torch_by_pairs(
  *, rows: int, columns: int, seed: int
) -> Callable[[], float]:
  """The same densities from all pairs."""
  from jaxnas.bench import torch_density, torch_step

  torch_step.use_pinned_cores()
  features_AxD = features(rows, columns, seed)
  torch_density.inverse_mean_distance(features_AxD[:64])
  return _timed(lambda: torch_density.inverse_mean_distance(features_AxD))


def reading(*, rows: int, columns: int, seed: int) -> Callable[[], float]:
  """The sum of an array as large, once for lengths and once for products."""
  import jax
  import jax.numpy as jnp

  features_AxD = jnp.asarray(features(rows, columns, seed))
  total = jax.jit(jnp.sum)
  total(features_AxD).block_until_ready()

  def twice() -> None:
    for _ in range(2):
      total(features_AxD).block_until_ready()

  return _timed(twice)


def features(rows: int, columns: int, seed: int) -> Float[np.ndarray, 'A D']:
  """Normal noise: as all of these are computed without a look at values."""
  rng = streams.rng(seed, 'features')
  return rng.standard_normal((rows, columns), np.float32)


def _timed(compute: Callable[[], Any]) -> Callable[[], float]:
  def measure() -> float:
    start = time.perf_counter()
    compute()
    return time.perf_counter() - start

  return measure
