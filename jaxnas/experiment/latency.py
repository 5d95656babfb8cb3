"""Time that each op takes on this machine, as a table of costs for a search."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import spaces, supernets
from jaxnas.config import Config
from jaxnas.experiment import build, datasets, origin
from jaxnas.nn.layers import MOMENTUM
from jaxnas.runtime import files, progress
from jaxnas.runtime.rng import generator
from jaxnas.truth import correlation

# The file of a folder that keeps the table.
FILE = 'latency.json'

# The fastest of so many runs counts: others were disturbed. Networks take
# turns, so that a disturbance does not meet all runs of one.
ROUNDS = 20

# A table that is further off than this share is no help.
FAR_OFF = 0.2

# Architectures that are timed for each number of the table.
PER_NUMBER = 3

# Networks that are also compiled each alone, to check the table.
CHECKED = 6


class Latency(NamedTuple):
  """Times of ops in milliseconds, and of the networks that check them."""

  base_ms: float
  by_op: tuple[Float[np.ndarray, ' O'], ...]
  archs_CxE: Int[np.ndarray, 'C E']
  """Networks that were compiled each alone."""
  measured_C: Float[np.ndarray, ' C']
  predicted_C: Float[np.ndarray, ' C']

  @property
  def error(self) -> float:
    """Mean difference between both, as a share of what was measured."""
    return float(np.mean(abs(self.predicted_C / self.measured_C - 1)))


def measure(
  config: Config,
  batch_size: int,
  poll: Callable[[], None] = lambda: None,
) -> tuple[spaces.Space, Latency]:
  """Times networks with frozen statistics, as they are used once trained.

  One program that takes the architecture as an argument runs random ones, and
  the times of ops are fitted to theirs by least squares; the cheapest op of a
  position has none, and the base has what all have in common. Ops whose cost
  depends on their neighbours are so averaged over them.

  Args:
    config: of a run; its space, images and precision count.
    batch_size: images in a forward pass.
    poll: called before each network; may raise.
  """
  loaded = datasets.load(config.data)
  space = datasets.space(config.space, loaded)
  net = build.network(config, space, affine=True, momentum=MOMENTUM)
  rng = generator(config.seed, 'latency')
  x_BxHxWxC = jnp.asarray(
    rng.normal(size=(batch_size, *space.image_shape)), net.dtype
  )
  numbers = 1 + sum(count - 1 for count in space.counts)
  archs_AxE = np.unique(space.random(rng, PER_NUMBER * numbers), axis=0)
  checked_CxE = np.unique(space.random(rng, CHECKED), axis=0)
  any_of_them = supernets.StandAlone(net, None)
  variables = supernets.init(any_of_them, archs_AxE[0], 0)
  program = jax.jit(
    lambda variables, x, arch_E: any_of_them.apply(
      variables, x, arch_E, train=False
    )
  )
  times_A = best_ms(
    [
      functools.partial(program, variables, x_BxHxWxC, jnp.asarray(arch_E))
      for arch_E in archs_AxE
    ],
    'timing',
    poll,
  )
  base_ms, by_op = fit(space, archs_AxE, times_A)
  alone = [
    supernets.StandAlone(net, tuple(arch_E.tolist())) for arch_E in checked_CxE
  ]
  measured_C = best_ms(
    [
      functools.partial(
        jax.jit(functools.partial(one.apply, arch=None, train=False)),
        supernets.init(one, one.arch or (), 0),
        x_BxHxWxC,
      )
      for one in alone
    ],
    'checking',
    poll,
  )
  predicted_C = base_ms + np.sum(
    [cost_O[checked_CxE[:, e]] for e, cost_O in enumerate(by_op)], axis=0
  )
  return space, Latency(base_ms, by_op, checked_CxE, measured_C, predicted_C)


def best_ms(
  runs: Sequence[Callable[[], Any]], label: str, poll: Callable[[], None]
) -> Float[np.ndarray, ' N']:
  """Returns the milliseconds of the fastest call of each, which take turns."""
  best_N = np.full(len(runs), np.inf)
  turns = [n for _ in range(1 + ROUNDS) for n in range(len(runs))]
  for turn, n in enumerate(progress.track(turns, label, len(turns), poll)):
    start_s = time.perf_counter()
    jax.block_until_ready(runs[n]())
    # The first call of each compiles.
    if turn >= len(runs):
      best_N[n] = min(best_N[n], 1e3 * (time.perf_counter() - start_s))
  return best_N


def fit(
  space: spaces.Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  times_A: Float[np.ndarray, ' A'],
) -> tuple[float, tuple[Float[np.ndarray, ' O'], ...]]:
  """Fits a base and a time of each op at each position; no time is negative.

  An op that no architecture has takes the mean of its position.
  """
  columns = [np.ones((len(archs_AxE), 1))]
  columns += [
    archs_AxE[:, [e]] == np.arange(count)
    for e, count in enumerate(space.counts)
  ]
  solved = np.linalg.lstsq(np.concatenate(columns, axis=1), times_A, rcond=None)
  base, *rest = np.split(solved[0], np.cumsum([1, *space.counts])[:-1])
  total, by_op = float(base[0]), []
  for e, cost_O in enumerate(rest):
    seen_O = np.isin(np.arange(len(cost_O)), archs_AxE[:, e])
    cost_O = np.where(seen_O, cost_O, cost_O[seen_O].mean())
    total += float(cost_O.min())
    by_op.append(cost_O - cost_O.min())
  return total, tuple(by_op)


def write(
  folder: Path,
  space: spaces.Space,
  measured: Latency,
  *,
  batch_size: int,
  dtype: str,
) -> dict[str, Any]:
  """Writes the table, which `--cost_table` of jaxnas.search reads, with facts.

  Returns what the file holds.
  """
  table = {
    'unit': 'ms',
    'base': round(measured.base_ms, 6),
    'positions': [
      {
        str(o) if len({*names}) < len(names) else name: round(cost, 6)
        for o, (name, cost) in enumerate(
          zip(names, cost_O.tolist(), strict=True)
        )
      }
      for names, cost_O in zip(space.ops, measured.by_op, strict=True)
    ],
    'space': space.name,
    'batch_size': batch_size,
    'dtype': dtype,
    'device': jax.devices()[0].device_kind,
    'checked': {
      'archs': [space.format(arch_E) for arch_E in measured.archs_CxE],
      'measured_ms': measured.measured_C.round(6).tolist(),
      'predicted_ms': measured.predicted_C.round(6).tolist(),
      'mean_error': measured.error,
      'kendall': correlation.kendall(measured.predicted_C, measured.measured_C),
    },
    **origin.describe(),
  }
  files.write_json(folder / FILE, table)
  return table
