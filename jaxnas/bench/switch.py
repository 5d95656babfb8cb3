"""Time and memory of a training step's switch, beside a static architecture."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxnas import spaces
from jaxnas.bench import step
from jaxnas.bench.cases import Case, Options, Side

SPACE = 'nas_bench_macro'


def cases(options: Options) -> list[Case]:
  """Time and memory."""
  rows = []
  given = {
    'space': SPACE,
    'batch_size': options.batch_size or step.BATCH_SIZES[SPACE],
    'seed': options.seed,
  }
  for name, unit, more in (
    ('time', 'ms', {'steps': 10}),
    ('memory', 'MB', {}),
  ):
    switch, static = (
      Side(f'{__name__}:{name}_of', {**given, **more, 'static': static})
      for static in (False, True)
    )
    case = f'{SPACE}, switch over static path, {name}'
    rows.append(
      Case('step', case, unit, switch, static, rounds=5 if more else 1)
    )
  return rows


def time_of(
  *, space: str, batch_size: int, seed: int, steps: int, static: bool
) -> Callable[[], float]:
  """Measures ms a step along an arch of middling cost.

  Args:
    space: by name, of a chain.
    batch_size: of images.
    seed: of weights and images.
    steps: timed at once.
    static: in the space of that arch alone, where there is nothing to switch
      between and a gradient keeps what it keeps in a switch.
  """
  of: Any = spaces.get(space)
  archs_AxE = _by_cost(of, 0.5)[None]
  if static:
    of, archs_AxE = only(of, archs_AxE[0]), np.zeros_like(archs_AxE)
  state, step_fn, batch = step.training_step(
    of, archs_AxE, batch_size=batch_size, seed=seed
  )

  def several(state):
    for _ in range(steps):
      state, _ = step_fn(state, batch)
    return jax.block_until_ready(state)

  state = several(state)

  def measure() -> float:
    nonlocal state
    start = time.perf_counter()
    state = several(state)
    return 1e3 * (time.perf_counter() - start) / steps

  return measure


def memory_of(
  *, space: str, batch_size: int, seed: int, static: bool
) -> Callable[[], float]:
  """Measures MB that a step takes beside its state, images and result.

  Args:
    space: by name.
    batch_size: of images.
    seed: of weights and images.
    static: of the costliest arch's network alone, not of the program of all.
  """
  of = spaces.get(space)
  state, step_fn, batch = step.training_step(
    of, _by_cost(of, 1.0)[None], batch_size=batch_size, seed=seed, static=static
  )
  used = step_fn.lower(state, batch).compile().memory_analysis()
  return lambda: used.temp_size_in_bytes / 1e6


def only(
  space: spaces.ChainSpace, arch_E: Int[np.ndarray, ' E']
) -> spaces.ChainSpace:
  """Returns the space that has only this arch, as op 0 of each position."""

  def chosen(ops_E: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any], ...]:
    return tuple((ops[op],) for ops, op in zip(ops_E, arch_E, strict=True))

  return dataclasses.replace(
    space, ops=chosen(space.ops), candidates=chosen(space.candidates)
  )


def _by_cost(space: spaces.Space, quantile: float) -> Int[np.ndarray, ' E']:
  """Returns the arch that has this quantile of the space's costs."""
  archs_AxE = space.enumerate()
  order = np.argsort(space.costs(archs_AxE).macs_A, kind='stable')
  return archs_AxE[order[round(quantile * (len(order) - 1))]]
