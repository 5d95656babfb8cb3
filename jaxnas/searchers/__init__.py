"""Searchers: which architectures to score next, and which one is best.

They know neither a net nor data: `run` is given the score. A new one is a
short file and a line in `SEARCHERS`: a function (space, limits, *, ...) ->
Searcher, whose options are the rest of its signature.
"""

from collections.abc import Callable

from jaxnas import names
from jaxnas.searchers.base import Searcher as Searcher
from jaxnas.searchers.base import State as State
from jaxnas.searchers.base import best as best
from jaxnas.searchers.base import last_scores as last_scores
from jaxnas.searchers.base import load_state as load_state
from jaxnas.searchers.base import run as run
from jaxnas.searchers.base import save_state as save_state
from jaxnas.searchers.evolution import evolution, shifting
from jaxnas.searchers.exhaustive import exhaustive
from jaxnas.searchers.limits import Limits as Limits
from jaxnas.searchers.random import random
from jaxnas.searchers.tree import tree

SEARCHERS: dict[str, Callable[..., Searcher]] = {
  'random': random,
  'exhaustive': exhaustive,
  'evolution': evolution,
  'shifting': shifting,
  'tree': tree,
}
NAMES = tuple(SEARCHERS)


def get(name: str) -> Callable[..., Searcher]:
  """Raises ValueError, with the nearest name, where there is no such one."""
  names.check('searcher', name, NAMES)
  return SEARCHERS[name]
