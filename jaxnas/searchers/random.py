"""Random search: the baseline that any searcher has to beat."""

import functools

from jaxnas.searchers.base import Searcher, empty
from jaxnas.searchers.draws import distinct_draws
from jaxnas.searchers.limits import Limits
from jaxnas.spaces import Space


def random(
  space: Space, limits: Limits, *, count: int = 1000, population: int = 50
) -> Searcher:
  """Scores `count` different architectures, uniform under the limits.

  It scores all of them where there are fewer. SPOS scores 1,000.

  Args:
    space: the search space.
    limits: on every architecture.
    count: architectures in the whole search.
    population: architectures in a generation, after which the state is saved.

  Raises ValueError where an option is below 1, or where no architecture meets
  the limits.
  """
  for name, value in (('count', count), ('population', population)):
    if value < 1:
      raise ValueError(f'{name} is {value}; it must be at least 1.')
  at_random = distinct_draws(space, limits)

  def propose(state, rng):
    missing = min(population, count - len(state.accuracy_V))
    return at_random(rng, missing, state.archs_VxE)

  return Searcher(
    init=functools.partial(empty, space),
    propose=propose,
    done=lambda state: len(state.accuracy_V) >= count,
  )
