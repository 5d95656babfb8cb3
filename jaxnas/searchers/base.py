"""The contract of a searcher, the loop that drives it, and its saved state."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas.config import run_files
from jaxnas.runtime import errors, files
from jaxnas.runtime.rng import generator
from jaxnas.searchers.draws import keys
from jaxnas.searchers.limits import Limits, feasible
from jaxnas.spaces import Space

# archs_NxE -> accuracy_N, fractions.
Score = Callable[[np.ndarray], np.ndarray]


class State(NamedTuple):
  """State of a search: all that it has scored, from which all else follows."""

  archs_VxE: Int[np.ndarray, 'V E']
  """Archs in the order in which they were scored."""
  accuracy_V: Float[np.ndarray, ' V']
  generation_V: Int[np.ndarray, ' V']
  """Generation in which each was scored, from 0."""
  generation: Int[np.ndarray, '']
  """Number of the next generation."""
  own: tuple[np.ndarray, ...] = ()
  """Further arrays of the searcher itself."""


def empty(space: Space) -> State:
  """State of a search that has scored nothing yet."""
  return State(
    np.zeros((0, space.positions), np.int32),
    np.zeros(0),
    np.zeros(0, np.int64),
    np.array(0),
  )


def record(
  state: State,
  archs_NxE: Int[np.ndarray, 'N E'],
  accuracy_N: Float[np.ndarray, ' N'],
) -> State:
  """Returns the state after a generation that scored these archs."""
  return state._replace(
    archs_VxE=np.concatenate([state.archs_VxE, archs_NxE]),
    accuracy_V=np.concatenate([state.accuracy_V, accuracy_N]),
    generation_V=np.concatenate(
      [state.generation_V, np.full(len(archs_NxE), state.generation)]
    ),
    generation=state.generation + np.array(1),
  )


def most_accurate(state: State) -> Int[np.ndarray, ' E']:
  """Returns the arch with the best last score; ties go to the first seen."""
  last_U = last_scores(state)
  return state.archs_VxE[last_U[state.accuracy_V[last_U].argmax()]]


def stale(state: State) -> int:
  """Returns the number of generations since the best score of all."""
  if not len(state.accuracy_V):
    return 0
  last = state.generation_V[state.accuracy_V.argmax()]
  return int(state.generation) - 1 - int(last)


class Searcher(NamedTuple):
  """Pure functions over a state of arrays, which is saved every generation.

  init: () -> state
  propose: (state, rng) -> archs_NxE of one generation, all within the limits;
    N is 0 where nothing is left to try
  done: (state) -> True where the search is over
  update: (state, archs_NxE, accuracy_N) -> state, given what was proposed
  pick: (state) -> arch_E, the result of the search
  revisit: True to score an architecture again when it is proposed again; else
    `update` gets its first accuracy
  """

  init: Callable[[], State]
  propose: Callable[[State, np.random.Generator], np.ndarray]
  done: Callable[[State], bool]
  update: Callable[[State, np.ndarray, np.ndarray], State] = record
  pick: Callable[[State], np.ndarray] = most_accurate
  revisit: bool = False


def patient(searcher: Searcher, patience: int) -> Searcher:
  """Returns the searcher that ends after so many generations without a gain.

  A gain is a score above all earlier ones. It follows from what is scored: a
  search that goes on ends where it would have ended.
  """
  return searcher._replace(
    done=lambda state: searcher.done(state) or stale(state) >= patience
  )


def run(
  searcher: Searcher,
  score: Score,
  *,
  seed: int,
  state: State | None = None,
  save: Callable[[State], None] = lambda state: None,
  poll: Callable[[], None] = lambda: None,
) -> State:
  """Searches until it is done, or nothing is left to try.

  Generation g draws from `generator(seed, 'search', g)`: from the state of any
  generation, a search with the same score goes on to the same end.

  Args:
    searcher: the method.
    score: archs_NxE -> accuracy_N, fractions; N is at least 1. Each
      architecture is scored once, unless the searcher revisits.
    seed: of the draws.
    state: a saved one to go on from; None starts anew.
    save: called with the state after every generation.
    poll: called before every generation; may raise to stop.

  Raises ValueError where the score is not a number for each architecture.
  """
  state = searcher.init() if state is None else state
  known: dict[bytes, float] = {}
  if not searcher.revisit:
    known = dict(zip(keys(state.archs_VxE), state.accuracy_V, strict=True))
  while not searcher.done(state):
    poll()
    rng = generator(seed, 'search', int(state.generation))
    archs_NxE = searcher.propose(state, rng)
    if len(archs_NxE) == 0:
      break
    if searcher.revisit:
      known = {}
    accuracy_N = _with_known(archs_NxE, score, known)
    state = searcher.update(state, archs_NxE, accuracy_N)
    save(state)
  return state


def _with_known(
  archs_NxE: np.ndarray, score: Score, known: dict[bytes, float]
) -> Float[np.ndarray, ' N']:
  """Scores of all archs; unknown ones are scored once and added to `known`."""
  keys_N = keys(archs_NxE)
  new = {key: n for n, key in enumerate(keys_N) if key not in known}
  if new:
    archs_MxE = archs_NxE[list(new.values())]
    accuracy_M = np.asarray(score(archs_MxE), np.float64)
    if accuracy_M.shape != (len(new),) or np.isnan(accuracy_M).any():
      raise ValueError(
        f'the score of {len(new)} architectures is {accuracy_M.tolist()}; it '
        'must be a number for each.'
      )
    known.update(zip(new, accuracy_M.tolist(), strict=True))
  return np.array([known[key] for key in keys_N])


def last_scores(state: State) -> Int[np.ndarray, ' U']:
  """Index of each architecture's last score, in the order first seen."""
  last = {key: v for v, key in enumerate(keys(state.archs_VxE))}
  return np.array(list(last.values()), np.int64)


def best(
  state: State, space: Space, limits: Limits, count: int
) -> Int[np.ndarray, ' N']:
  """Indices of the most accurate architectures within the limits, best first.

  The last score of each counts, and ties go to the first seen. There are fewer
  than `count` where no more were scored.
  """
  last_U = last_scores(state)
  last_U = last_U[feasible(space, limits, state.archs_VxE[last_U])]
  order_U = np.argsort(-state.accuracy_V[last_U], kind='stable')
  return last_U[order_U[:count]]


def save_state(
  file: Path, state: State, facts: Mapping[str, Any] | None = None
) -> None:
  """Writes the state, whole or not at all; `load_state` reads it.

  Args:
    file: an npz file.
    state: of a search.
    facts: JSON, what scores are made of.
  """
  *shared, own = state
  arrays = dict(zip(State._fields, shared, strict=False))
  arrays |= {f'own_{i}': array for i, array in enumerate(own)}
  files.write_npz(file, arrays, facts or {})


def load_state(
  file: Path,
  space: Space | None = None,
  facts: Mapping[str, Any] | None = None,
) -> State:
  """Reads a state that `save_state` wrote, and checks it against the space.

  Raises FileNotFoundError, or Damaged naming the file: it is no state, or its
  scores were made of something else than `facts` say.
  """
  try:
    sizes = {} if space is None else {'E': space.positions}
    shared, _ = files.read_arrays(file, run_files.SEARCHED, facts, sizes)
    arrays = files.read_npz(file)
    count = sum(name.startswith('own_') for name in arrays)
    own = [f'own_{i}' for i in range(count)]
    if missing := [name for name in own if name not in arrays]:
      raise errors.Damaged(f'{file} lacks {missing[0]}')
    if space is not None:
      _validate(file, space, shared['archs_VxE'])
  except ValueError as error:
    raise errors.Damaged(
      f'{str(error).rstrip(".")}; or start another search in a new --workdir.'
    ) from error
  return State(
    *(shared[name] for name in State._fields[:-1]),
    own=tuple(arrays[name] for name in own),
  )


def _validate(
  file: Path, space: Space, archs_VxE: Int[np.ndarray, 'V E']
) -> None:
  """Raises Damaged, naming the file, where archs are not of the space."""
  try:
    space.validate(archs_VxE)
  except ValueError as error:
    raise files.not_so(file, error) from error
