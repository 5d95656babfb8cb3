"""Searchers: they propose architectures to score, and pick the best one.

They know neither nets nor data: `run` takes the score as a function. A new one
is a short file and a line in `jaxnas.config.registry`: a function (space,
limits, *, ...) -> Searcher, whose remaining arguments are its options.
"""

from jaxnas.searchers.base import Searcher as Searcher
from jaxnas.searchers.base import State as State
from jaxnas.searchers.base import best as best
from jaxnas.searchers.base import last_scores as last_scores
from jaxnas.searchers.base import load_state as load_state
from jaxnas.searchers.base import patient as patient
from jaxnas.searchers.base import run as run
from jaxnas.searchers.base import save_state as save_state
from jaxnas.searchers.base import stale as stale
from jaxnas.searchers.cost_table import CostTable as CostTable
from jaxnas.searchers.cost_table import load as load_costs  # noqa: F401
from jaxnas.searchers.evolution import evolution as evolution
from jaxnas.searchers.evolution import shifting as shifting
from jaxnas.searchers.exhaustive import exhaustive as exhaustive
from jaxnas.searchers.limits import Limits as Limits
from jaxnas.searchers.limits import idle as idle
from jaxnas.searchers.random import random as random
from jaxnas.searchers.tree import tree as tree
