"""Uniform draws of architectures within limits."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxnas.searchers.limits import (
  Limits,
  by_position,
  check,
  extremes,
  feasible,
  none_at_once,
)
from jaxnas.spaces import Space

# (rng, count) -> archs_NxE
Draw = Callable[[np.random.Generator, int], np.ndarray]

# Size of the tables that count architectures within a budget.
CELLS = 2**16

# Batches of draws without one within the limits, before a search gives up.
VAIN = 1000

# Number of candidates for each architecture wanted, as in SPOS (stated).
TRIES = 10


def draws(space: Space, limits: Limits) -> Draw:
  """Returns (rng, count) -> independent uniform draws within the limits.

  A space that can be listed is drawn from its list. Elsewhere architectures are
  counted: W_e(b), the number of ways to fill positions e and after at a cost
  of at most b, is the sum over ops o of W_e+1(b - cost(e, o)), and position e
  takes op o with probability W_e+1(b - cost(e, o)) / W_e(b). Tables of `CELLS`
  entries count costs above the minimum in steps, rounded down. That lets some
  above a limit through; they are drawn again, so that draws are uniform
  whatever the rounding. Costs must be sums over positions, as those of a chain
  are. All this is inferred; SPOS rejects draws from the whole space, of which
  on 'mobilenet' 0.9% have at most 330M multiply-adds.

  Raises ValueError, with the attainable costs, where no arch meets the limits.
  """
  if space.enumerable:
    archs_AxE = listed(space, limits)
    return lambda rng, count: archs_AxE[
      rng.integers(len(archs_AxE), size=count)
    ]
  if not limits.any:
    return space.random
  check(space, limits)
  propose = _within_rounded(space, limits)

  def draw(rng, count):
    accepted, missing, vain = [], count, 0
    while missing:
      # At least 64, because limits may reject most.
      archs_NxE = propose(rng, max(missing, 64))
      archs_NxE = archs_NxE[feasible(space, limits, archs_NxE)][:missing]
      accepted.append(archs_NxE)
      missing -= len(archs_NxE)
      vain = 0 if len(archs_NxE) else vain + 1
      if vain == VAIN:
        raise none_at_once(space, limits)
    return np.concatenate([*accepted, np.zeros((0, space.positions), np.int32)])

  return draw


def distinct_draws(
  space: Space, limits: Limits
) -> Callable[[np.random.Generator, int, np.ndarray], np.ndarray]:
  """Returns (rng, count, known_VxE) -> different archs that are not known.

  Draws are uniform within the limits. There are fewer than `count` where no
  more exist, or, in a space too large to list, where `TRIES` draws for each
  find no more. Raises ValueError like `draws`.
  """
  if not space.enumerable:
    draw = draws(space, limits)
    return lambda rng, count, known_VxE: distinct(
      lambda n: draw(rng, n), count, known_VxE
    )
  archs_AxE = listed(space, limits)
  index_A = space.index(archs_AxE)

  def draw_new(rng, count, known_VxE):
    left_A = np.flatnonzero(~np.isin(index_A, space.index(known_VxE)))
    return archs_AxE[rng.choice(left_A, min(count, len(left_A)), replace=False)]

  return draw_new


def listed(space: Space, limits: Limits) -> Int[np.ndarray, 'A E']:
  """Lists all archs within the limits, in the order of the enumeration.

  Raises ValueError where the space is too large to list, or where no arch meets
  the limits.
  """
  if not space.enumerable:
    raise ValueError(
      'searchers exhaustive and tree need a space that can be listed; '
      f'{space.name} has {space.size:.2g} architectures: use evolution.'
    )
  check(space, limits)
  archs_AxE = space.enumerate()
  return archs_AxE[feasible(space, limits, archs_AxE)]


def distinct(
  make: Callable[[int], np.ndarray],
  count: int,
  known_VxE: Int[np.ndarray, 'V E'],
) -> Int[np.ndarray, 'N E']:
  """Collects up to `count` different archs that are not known.

  Args:
    make: count -> candidates, maybe fewer; called up to `TRIES` times.
    count: N at most.
    known_VxE: archs to leave out.
  """
  seen, archs = set(keys(known_VxE)), []
  for _ in range(TRIES):
    if len(archs) >= count:
      break
    for arch_E in make(count):
      if (key := arch_E.tobytes()) not in seen:
        seen.add(key)
        archs.append(arch_E)
  return np.array(archs[:count], np.int32).reshape(-1, known_VxE.shape[1])


def keys(archs_AxE: Int[np.ndarray, 'A E']) -> list[bytes]:
  """Keys for looking archs up, equal for equal archs."""
  return [arch_E.tobytes() for arch_E in archs_AxE.astype(np.int32)]


def _within_rounded(space: Space, limits: Limits) -> Draw:
  """Draws from all archs whose costs, rounded down, are within the limits."""
  tables = by_position(space, limits.table)
  least_K, most_K = extremes(space, limits.table)
  slack_K = np.minimum(limits.max_costs, most_K) - least_K
  limited_K = np.isfinite(limits.max_costs)
  cells = int(CELLS ** (1 / limited_K.sum()))
  step_K = slack_K / (cells - 1)
  # Counts are whole numbers, and a table's costs are not.
  step_K[:2] = np.maximum(np.ceil(step_K[:2]), 1)
  step_K = np.where(step_K > 0, step_K, 1)
  steps = [
    np.where(limited_K, (t_OxK - t_OxK.min(axis=0)) // step_K, 0).astype(int)
    for t_OxK in tables
  ]
  budget_K = np.where(limited_K, slack_K // step_K, 0).astype(int)
  ways = [np.ones(budget_K + 1)]
  for steps_OxK in reversed(steps):
    ways.append(
      np.sum([_shifted(ways[-1], o) for o in steps_OxK.tolist()], axis=0)
    )
  ways.reverse()

  def propose(rng, count):
    left_NxK = np.tile(budget_K, (count, 1))
    archs_NxE = np.empty((count, len(steps)), np.int32)
    for e, steps_OxK in enumerate(steps):
      left_NxOxK = left_NxK[:, None] - steps_OxK
      ways_NxO = np.where(
        (left_NxOxK >= 0).all(axis=-1),
        ways[e + 1][tuple(np.maximum(left_NxOxK, 0).transpose(2, 0, 1))],
        0,
      )
      upto_NxO = ways_NxO.cumsum(axis=1)
      u_Nx1 = rng.random((count, 1)) * upto_NxO[:, -1:]
      op_N = archs_NxE[:, e] = (upto_NxO <= u_Nx1).sum(axis=1)
      left_NxK = left_NxOxK[np.arange(count), op_N]
    return archs_NxE

  return propose


def _shifted(
  ways: Float[np.ndarray, '...'], by: Sequence[int]
) -> Float[np.ndarray, '...']:
  """Shifts a table to budgets so much smaller; none are below zero."""
  out = np.zeros_like(ways)
  if all(steps < size for steps, size in zip(by, ways.shape, strict=True)):
    out[tuple(slice(steps, None) for steps in by)] = ways[
      tuple(
        slice(size - steps) for steps, size in zip(by, ways.shape, strict=True)
      )
    ]
  return out
