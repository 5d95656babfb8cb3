"""Exhaustive search: the best of a small space for certain."""

import functools

from jaxnas.searchers.base import Searcher, empty
from jaxnas.searchers.draws import listed
from jaxnas.searchers.limits import Limits
from jaxnas.spaces import Space


def exhaustive(
  space: Space, limits: Limits, *, population: int = 50
) -> Searcher:
  """Scores every arch within the limits, in the order of the enumeration.

  Args:
    space: one that can be listed.
    limits: on every architecture.
    population: architectures in a generation, after which the state is saved.

  Raises ValueError where the space is too large, `population` is below 1 or
  no architecture meets the limits.
  """
  if population < 1:
    raise ValueError(f'population is {population}; it must be at least 1.')
  archs_AxE = listed(space, limits)

  def propose(state, rng):
    del rng
    start = len(state.accuracy_V)
    return archs_AxE[start : start + population]

  return Searcher(
    init=functools.partial(empty, space),
    propose=propose,
    done=lambda state: len(state.accuracy_V) >= len(archs_AxE),
  )
