"""Uniform draws of the architectures that meet limits."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from jaxnas.searchers.limits import Limits, by_position, check, feasible
from jaxnas.spaces import Space

# (rng, count) -> archs_NxE
Draw = Callable[[np.random.Generator, int], np.ndarray]

# Of the tables that count architectures within a budget.
CELLS = 2**16

# Candidates for each architecture asked for, as SPOS has it (stated).
TRIES = 10


def draws(space: Space, limits: Limits) -> Draw:
  """(rng, count) -> independent uniform draws of all that meet the limits.

  A list of them is drawn from where the space can be listed. Elsewhere their
  number is counted: W_e(b), how many ends from position e on cost at most b,
  is the sum over ops o of W_e+1(b - cost(e, o)), and position e takes op o
  with probability W_e+1(b - cost(e, o)) / W_e(b). Costs above the least are
  counted in steps of which a table has `CELLS`, rounded down, which lets some
  through that are above a limit: those are drawn again, so that the rest is
  uniform whatever the rounding. This takes costs that are sums over
  positions, as those of a chain are. Inferred; SPOS rejects draws of the whole
  space, of which on 'mobilenet' 0.9% have at most 330M multiply-adds.

  Raises ValueError, with what is attainable, where none meets them.
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
    found, missing = [], count
    while missing:
      # As many at least as a few, where most are rejected.
      archs_NxE = propose(rng, max(missing, 64))
      archs_NxE = archs_NxE[feasible(space, limits, archs_NxE)][:missing]
      found.append(archs_NxE)
      missing -= len(archs_NxE)
    return np.concatenate([*found, np.zeros((0, space.positions), np.int32)])

  return draw


def distinct_draws(
  space: Space, limits: Limits
) -> Callable[[np.random.Generator, int, np.ndarray], np.ndarray]:
  """(rng, count, known_VxE) -> different ones that are not among the known.

  Uniform. Fewer than `count` where there are no more; where the space is too
  large to list, where `TRIES` draws for each find no more.

  Raises ValueError as `draws`.
  """
  if not space.enumerable:
    draw = draws(space, limits)
    return lambda rng, count, known_VxE: distinct(
      lambda n: draw(rng, n), count, known_VxE
    )
  archs_AxE = listed(space, limits)
  index_A = space.index(archs_AxE)

  def left(rng, count, known_VxE):
    left_A = np.flatnonzero(~np.isin(index_A, space.index(known_VxE)))
    return archs_AxE[rng.choice(left_A, min(count, len(left_A)), replace=False)]

  return left


def listed(space: Space, limits: Limits) -> Int[np.ndarray, 'A E']:
  """All that meet the limits, in the order of the enumeration.

  Raises ValueError where the space is too large to list or none meets them.
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
  """Up to `count` different archs that are not known, in the order made.

  Args:
    make: asked for `count` candidates, of which it may keep fewer, up to
      `TRIES` times.
    count: N at most.
    known_VxE: those not to be made again.
  """
  seen, found = set(keys(known_VxE)), []
  for _ in range(TRIES):
    if len(found) >= count:
      break
    for arch_E in make(count):
      if (key := arch_E.tobytes()) not in seen:
        seen.add(key)
        found.append(arch_E)
  return np.array(found[:count], np.int32).reshape(-1, known_VxE.shape[1])


def keys(archs_AxE: Int[np.ndarray, 'A E']) -> list[bytes]:
  """By which archs are looked up: equal where they are, of int32."""
  return [arch_E.tobytes() for arch_E in archs_AxE.astype(np.int32)]


def _within_rounded(space: Space, limits: Limits) -> Draw:
  """Draws of all whose costs, rounded down, are within the limits."""
  tables = by_position(space)
  least_2 = np.sum([t_Ox2.min(axis=0) for t_Ox2 in tables], axis=0)
  most_2 = np.sum([t_Ox2.max(axis=0) for t_Ox2 in tables], axis=0)
  slack_2 = np.minimum(limits.of_costs, most_2) - least_2
  limited_2 = np.isfinite(limits.of_costs)
  cells = int(CELLS ** (1 / limited_2.sum()))
  step_2 = np.maximum(np.ceil(slack_2 / (cells - 1)), 1)
  steps = [
    np.where(limited_2, (t_Ox2 - t_Ox2.min(axis=0)) // step_2, 0).astype(int)
    for t_Ox2 in tables
  ]
  budget_2 = np.where(limited_2, slack_2 // step_2, 0).astype(int)
  ways = [np.ones(budget_2 + 1)]
  for steps_Ox2 in reversed(steps):
    ways.append(
      np.sum([_shifted(ways[-1], *o) for o in steps_Ox2.tolist()], axis=0)
    )
  ways.reverse()

  def propose(rng, count):
    left_Nx2 = np.tile(budget_2, (count, 1))
    archs_NxE = np.empty((count, len(steps)), np.int32)
    for e, steps_Ox2 in enumerate(steps):
      left_NxOx2 = left_Nx2[:, None] - steps_Ox2
      ways_NxO = np.where(
        (left_NxOx2 >= 0).all(axis=-1),
        ways[e + 1][tuple(np.maximum(left_NxOx2, 0).transpose(2, 0, 1))],
        0,
      )
      upto_NxO = ways_NxO.cumsum(axis=1)
      u_Nx1 = rng.random((count, 1)) * upto_NxO[:, -1:]
      op_N = archs_NxE[:, e] = (upto_NxO <= u_Nx1).sum(axis=1)
      left_Nx2 = left_NxOx2[np.arange(count), op_N]
    return archs_NxE

  return propose


def _shifted(
  ways_BxC: Float[np.ndarray, 'B C'], rows: int, columns: int
) -> Float[np.ndarray, 'B C']:
  """The table of budgets that are so much smaller; none below zero."""
  out_BxC = np.zeros_like(ways_BxC)
  if rows < len(ways_BxC) and columns < ways_BxC.shape[1]:
    out_BxC[rows:, columns:] = ways_BxC[
      : len(ways_BxC) - rows, : ways_BxC.shape[1] - columns
    ]
  return out_BxC
