"""Evolution as SPOS searches (Guo et al. 2020), and its variants."""

import functools

import numpy as np
from jaxtyping import Int

from jaxnas.runtime import suggestions
from jaxnas.searchers import selection
from jaxnas.searchers.base import Searcher, State, empty, last_scores
from jaxnas.searchers.draws import distinct, distinct_draws
from jaxnas.searchers.limits import Limits, feasible
from jaxnas.spaces import Space


def evolution(
  space: Space,
  limits: Limits,
  *,
  population: int = 50,
  generations: int = 20,
  parents: int = 10,
  mutations: int | None = None,
  crossovers: int | None = None,
  mutation: float = 0.1,
  select: str = 'accuracy',
  distance: selection.Distance = selection.hamming,
  revisit: bool = False,
) -> Searcher:
  """Scores children of the best, and random archs to fill the population.

  The first generation is random. The parents of later ones are the best of all
  that was scored. A mutation draws each position of a parent anew with a
  probability; a crossover takes each position from one of two parents at
  random. Candidates above a limit, or scored before, are left out. At most ten
  times as many children are tried as wanted, and random architectures take the
  place of missing ones. All this is stated. Inferred: draws are uniform under
  the limits, and a search of a listed space ends when nothing is left.

  Args:
    space: the search space.
    limits: on every candidate.
    population: architectures in a generation.
    generations: at most; fewer where no new architecture is left.
    parents: number of the best that have children.
    mutations: children of one parent in a generation; None: half of the
      population.
    crossovers: children of two parents in a generation; None: half of the
      population.
    mutation: probability that a mutation draws a position anew.
    select: how parents are chosen; see `selection.parents`, whose pool is as
      large as the population.
    distance: between archs, for 'diverse' and 'similar'.
    revisit: True to score archs of earlier generations again; see `shifting`.

  Raises:
    ValueError: an option is out of range, or no architecture meets the limits.
  """
  suggestions.check('select', select, selection.SELECTIONS)
  if mutations is None:
    mutations = population // 2
  if crossovers is None:
    crossovers = population // 2
  for name, value, least in (
    ('population', population, 1),
    ('generations', generations, 1),
    ('parents', parents, 1),
    ('mutations', mutations, 0),
    ('crossovers', crossovers, 0),
  ):
    if value < least:
      raise ValueError(f'{name} is {value}; it must be at least {least}.')
  if not 0 <= mutation <= 1:
    raise ValueError(f'mutation is {mutation}; it must be in [0, 1].')
  if mutations + crossovers > population:
    raise ValueError(
      f'mutations {mutations} and crossovers {crossovers} are more than '
      f'population {population}: lower them.'
    )
  at_random = distinct_draws(space, limits)

  def valid(archs_NxE):
    archs_NxE = archs_NxE[space.allowed(archs_NxE)]
    return archs_NxE[feasible(space, limits, archs_NxE)]

  def children(state, rng, known_VxE):
    last_U = last_scores(state)
    archs_UxE = state.archs_VxE[last_U]
    best_PxE = archs_UxE[
      selection.parents(
        space,
        archs_UxE,
        state.accuracy_V[last_U],
        select=select,
        count=parents,
        pool=population,
        distance=distance,
        table=limits.table,
      )
    ]
    for make, count in (
      (functools.partial(mutated, space, mutation), mutations),
      (crossed, crossovers),
    ):
      new_NxE = distinct(
        lambda n, make=make: valid(make(best_PxE, rng, n)), count, known_VxE
      )
      known_VxE = np.concatenate([known_VxE, new_NxE])
    return known_VxE

  def propose(state: State, rng: np.random.Generator):
    known_VxE = state.archs_VxE[:0] if revisit else state.archs_VxE
    before = len(known_VxE)
    if state.generation > 0:
      known_VxE = children(state, rng, known_VxE)
    made_NxE = known_VxE[before:]
    missing = population - len(made_NxE)
    return np.concatenate([made_NxE, at_random(rng, missing, known_VxE)])

  return Searcher(
    init=functools.partial(empty, space),
    propose=propose,
    done=lambda state: bool(state.generation >= generations),
    revisit=revisit,
  )


def mutated(
  space: Space,
  probability: float,
  parents_PxE: Int[np.ndarray, 'P E'],
  rng: np.random.Generator,
  count: int,
) -> Int[np.ndarray, 'N E']:
  """Draws each position of a parent anew, maybe as it was, by `probability`."""
  child_NxE = parents_PxE[rng.integers(len(parents_PxE), size=count)]
  anew_NxE = rng.integers(space.counts, size=child_NxE.shape)
  redrawn_NxE = rng.random(child_NxE.shape) < probability
  return np.where(redrawn_NxE, anew_NxE, child_NxE).astype(np.int32)


def crossed(
  parents_PxE: Int[np.ndarray, 'P E'], rng: np.random.Generator, count: int
) -> Int[np.ndarray, 'N E']:
  """Takes each position from one of two parents, which may be the same."""
  first_NxE, second_NxE = parents_PxE[
    rng.integers(len(parents_PxE), size=(2, count))
  ]
  return np.where(
    rng.integers(2, size=first_NxE.shape) == 0, first_NxE, second_NxE
  )


# Zhang et al. (2024) forget the visits of earlier generations, so that good
# architectures are met and scored again (stated). The score itself first trains
# the shared weights along their paths. The last score of an architecture counts
# (their code).
shifting = functools.partial(evolution, revisit=True)
