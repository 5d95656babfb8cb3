"""A search of a trained supernet, as data."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval

from jaxnas.config.fields import Count, CountOrNone, Options, Share
from jaxnas.config.registry import SEARCHERS

# All that a search has scored is in memory.
_Size = Annotated[int, Interval(ge=1, le=10**6)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
  """A searcher and its options; one that it does not use is refused."""

  searcher: Annotated[str, SEARCHERS] = 'evolution'
  """Searcher: random; evolution (SPOS); shifting, which is evolution that
  trains the shared weights along every candidate; tree, which walks by UCT; or
  exhaustive, which scores all."""
  options: Options = None
  """Options of a searcher that was registered from outside."""
  population: _Size = 50
  """Architectures of a generation."""
  generations: _Size = 20
  """Number of generations; exhaustive has as many as it needs."""
  patience: CountOrNone = None
  """Generations without a better score after which the search ends early, but
  exhaustive. None: it goes on to its end."""
  parents: _Size = 10
  """The best of evolution and shifting, which have children."""
  mutation: Share = 0.1
  """Probability that evolution and shifting draw a position anew."""
  select: Literal['accuracy', 'diverse', 'similar', 'pareto'] = 'accuracy'
  """Parents of evolution and shifting: the most accurate; the most distant of
  accurate ones; those nearest the best; or the front of accuracy and all
  costs."""
  distance: Literal[
    'encoding', 'gradient', 'representational', 'functional'
  ] = 'encoding'
  """Distance of select diverse and similar, measured as density.measure is,
  with the run's other density fields."""
  seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
  """Seed: every random number of the search is a function of it."""
  top: Count = 10
  """Number of architectures to show."""


# Fields that some searchers use.
OPTIONS = ('population', 'generations', 'parents', 'mutation', 'select')
