"""The contract of a searcher, and what drives it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas import runs, streams
from jaxnas.searchers.draws import keys
from jaxnas.searchers.limits import Limits, feasible
from jaxnas.spaces import Space

# archs_NxE -> accuracy_N, fractions.
Score = Callable[[np.ndarray], np.ndarray]


class State(NamedTuple):
  """Of a search: all that it has scored, from which all else follows."""

  archs_VxE: Int[np.ndarray, 'V E']
  """In the order scored."""
  accuracy_V: Float[np.ndarray, ' V']
  generation_V: Int[np.ndarray, ' V']
  """In which each was scored, from 0."""
  generation: Int[np.ndarray, '']
  """The next one."""
  own: tuple[np.ndarray, ...] = ()
  """What a searcher keeps beside that."""


def empty(space: Space) -> State:
  """Nothing scored."""
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
  """The state after a generation that scored these."""
  return state._replace(
    archs_VxE=np.concatenate([state.archs_VxE, archs_NxE]),
    accuracy_V=np.concatenate([state.accuracy_V, accuracy_N]),
    generation_V=np.concatenate(
      [state.generation_V, np.full(len(archs_NxE), state.generation)]
    ),
    generation=state.generation + np.array(1),
  )


def most_accurate(state: State) -> Int[np.ndarray, ' E']:
  """By its last score; ties to the first."""
  last_U = last_scores(state)
  return state.archs_VxE[last_U[state.accuracy_V[last_U].argmax()]]


class Searcher(NamedTuple):
  """Pure functions; the state is arrays and is saved every generation.

  init: () -> state
  propose: (state, rng) -> archs_NxE of one generation, all within the limits;
    none where nothing is left to try
  done: (state) -> whether the search is over
  update: (state, archs_NxE, accuracy_N) -> state, of what was proposed
  pick: (state) -> arch_E, what the search has found
  revisit: whether an architecture is scored again when it is proposed again;
    else `update` is given its accuracy of the first time
  """

  init: Callable[[], State]
  propose: Callable[[State, np.random.Generator], np.ndarray]
  done: Callable[[State], bool]
  update: Callable[[State, np.ndarray, np.ndarray], State] = record
  pick: Callable[[State], np.ndarray] = most_accurate
  revisit: bool = False


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

  Generation g draws from `streams.rng(seed, 'search', g)`: with the state of
  any generation and the same score a search goes on to the same end.

  Args:
    searcher: which one.
    score: archs_NxE -> accuracy_N. Each architecture once ever, unless the
      searcher revisits; never with none.
    seed: of the draws.
    state: to go on from; None starts anew.
    save: called with the state after every generation.
    poll: called before every generation; may raise.

  Raises ValueError where the score is not a number for each.
  """
  state = searcher.init() if state is None else state
  known: dict[bytes, float] = {}
  if not searcher.revisit:
    known = dict(zip(keys(state.archs_VxE), state.accuracy_V, strict=True))
  while not searcher.done(state):
    poll()
    rng = streams.rng(seed, 'search', int(state.generation))
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
  """Scores those that are not known, each once, and adds them to the known."""
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
  """Index of the last score of each architecture, in the order first seen."""
  last = {key: v for v, key in enumerate(keys(state.archs_VxE))}
  return np.array(list(last.values()), np.int64)


def best(
  state: State, space: Space, limits: Limits, count: int
) -> Int[np.ndarray, ' N']:
  """Indices of the most accurate within the limits, best first.

  By the last score of each; ties to the first seen. Fewer than `count` where
  no more were scored.
  """
  last_U = last_scores(state)
  last_U = last_U[feasible(space, limits, state.archs_VxE[last_U])]
  order_U = np.argsort(-state.accuracy_V[last_U], kind='stable')
  return last_U[order_U[:count]]


def save_state(file: Path, state: State) -> None:
  """All of it or nothing; read it with `load_state`."""
  *shared, own = state
  arrays = dict(zip(State._fields, shared, strict=False))
  runs.write_npz(
    file, arrays | {f'own_{i}': array for i, array in enumerate(own)}
  )


def load_state(file: Path, space: Space | None = None) -> State:
  """What `save_state` wrote, of architectures of the space where one is given.

  Raises FileNotFoundError, or Damaged naming the file.
  """
  arrays = runs.read_npz(file)
  names = State._fields[:-1]
  count = sum(name.startswith('own_') for name in arrays)
  own = [f'own_{i}' for i in range(count)]
  if missing := [name for name in (*names, *own) if name not in arrays]:
    raise runs.Damaged(
      f'{file} is no state of a search: no {missing[0]}; start another in a '
      'new --workdir.'
    )
  state = State(
    *(arrays[name] for name in names), own=tuple(arrays[name] for name in own)
  )
  try:
    _check(state, space)
  except ValueError as error:
    raise runs.Damaged(
      f'{file} is no state of a search that can go on ({error}): start another '
      'in a new --workdir.'
    ) from error
  return state


def _check(state: State, space: Space | None) -> None:
  """Raises ValueError where arrays disagree with each other or the space."""
  scored, counts = len(state.accuracy_V.ravel()), 'iu'
  for name, shape, kinds in (
    ('accuracy_V', (scored,), 'f'),
    ('generation_V', (scored,), counts),
    ('generation', (), counts),
  ):
    array = getattr(state, name)
    if array.shape != shape or array.dtype.kind not in kinds:
      raise ValueError(f'{name} is {array.dtype} of shape {array.shape}')
  if state.archs_VxE.shape[:1] != (scored,):
    raise ValueError(f'archs_VxE are of shape {state.archs_VxE.shape}')
  if space is not None:
    space.validate(state.archs_VxE)
