"""The predictions of a run: accuracies of architectures, in predictions.npz."""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxnas.config import run_files
from jaxnas.experiment import made_of, ranking
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files
from jaxnas.spaces import Space
from jaxnas.supernets import evaluation
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import TrainState

# Time between two copies of what is evaluated so far.
SECONDS_BETWEEN_COPIES = 30.0

# Images of a ranking whose classification by each architecture is kept.
KEPT_IMAGES = 1000


def predict(
  experiment: Experiment,
  state: TrainState,
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
  scored: Sequence[TrainState] = (),
) -> None:
  """Writes predictions.npz, the accuracies of these architectures.

  What an interrupted call has evaluated is not evaluated again.

  Args:
    experiment: its net evaluates.
    state: the end of its training.
    archs_AxE: any architectures.
    workdir: the folder of the file.
    poll: called before each evaluation; may raise.
    scored: states whose mean score counts, see `averages.states`; none: the
      end of training alone.
  """
  part = workdir / 'predictions.part.npz'
  facts = made_of.evaluation(experiment, state)
  right_AxSI = _resumable(
    experiment, scored or [state], archs_AxE, part, facts, poll
  )
  share_AxI = right_AxSI
  # Of one state these are the same numbers, in an eighth of the memory.
  if len(scored) > 1:
    right_AxSxI = right_AxSI.reshape(len(archs_AxE), len(scored), -1)
    share_AxI = right_AxSxI.mean(axis=1)
  files.write_npz(
    workdir / 'predictions.npz',
    {
      'archs_AxE': archs_AxE,
      'accuracy_A': right_AxSI.mean(axis=1),
      'half_HxA': halves(share_AxI),
      'right_AxW': np.packbits(share_AxI[:, :KEPT_IMAGES] > 0.5, axis=1),
      'skipped_images': np.array(len(experiment.skipped)),
    },
    facts,
  )
  part.unlink(missing_ok=True)


def halves(
  right_AxI: evaluation.Right | Float[np.ndarray, 'A I'],
) -> Float[np.ndarray, 'H A']:
  """Returns accuracies on every second image, and on those in between."""
  return np.stack([right_AxI[:, h::2].mean(axis=1) for h in range(2)])


class Predictions(NamedTuple):
  """The content of predictions.npz."""

  archs_AxE: Int[np.ndarray, 'A E']
  accuracy_A: Float[np.ndarray, ' A']
  """Fractions."""
  half_HxA: Float[np.ndarray, 'H A']
  """Fractions on each of two disjoint halves of the images."""
  right_AxW: UInt8[np.ndarray, 'A W']
  """The first `KEPT_IMAGES` images of the ranking, a bit each, eight a byte: 1
  where the architecture classifies the image correctly; of several states, in
  more than half of them."""
  skipped_images: int
  facts: dict[str, Any]
  """The facts that they were made of, see `made_of.evaluation`."""


def read(file: Path, space: Space, facts: Mapping[str, Any]) -> Predictions:
  """Reads what `predict` wrote.

  Args:
    file: predictions.npz.
    space: of the architectures.
    facts: what they must have been made of.

  Raises FileNotFoundError, or Damaged where it is another's.
  """
  arrays, found = files.read_arrays(
    file, run_files.PREDICTIONS, facts, {'E': space.positions}
  )
  archs_AxE, accuracy_A = arrays['archs_AxE'], arrays['accuracy_A']
  try:
    space.validate(archs_AxE)
    # NaN compares false.
    if not len(accuracy_A) or not ((accuracy_A >= 0) & (accuracy_A <= 1)).all():
      raise ValueError('accuracy_A is not one number in [0, 1] an arch')
  except ValueError as error:
    raise files.not_so(file, error) from error
  return Predictions(
    archs_AxE,
    accuracy_A,
    arrays['half_HxA'],
    arrays['right_AxW'],
    int(arrays['skipped_images']),
    found,
  )


def done(experiment: Experiment, workdir: Path) -> bool:
  """Returns True where a run has its ranking already.

  Raises Damaged where that is another's: of another config, of other
  architectures, or of another state than the last that was saved.
  """
  file, facts = workdir / 'predictions.npz', {'config': experiment.run_digest}
  if not file.exists():
    return False
  folder = workdir / 'checkpoints'
  if folder.is_dir():
    with Checkpoints(folder, read_only=True) as checkpoints:
      if (state := checkpoints.digest(experiment.steps)) is not None:
        facts['state'] = state
  predicted = read(file, experiment.space, facts | made_of.settings(experiment))
  if not np.array_equal(predicted.archs_AxE, experiment.ranking_archs_AxE):
    raise files.not_so(
      file,
      f'it ranks other architectures, {len(predicted.archs_AxE)} in number, '
      f'than the {len(experiment.ranking_archs_AxE)} of this run',
    )
  return True


def take_over(
  experiment: Experiment, state: TrainState, run: Path, workdir: Path
) -> bool:
  """Copies a run's predictions, where the same evaluation has made them.

  Returns False where it would predict something else. Raises Damaged for a
  file that cannot be read.
  """
  file = run / 'predictions.npz'
  if not file.exists():
    return False
  arrays, facts = files.read_arrays(file, run_files.PREDICTIONS)
  wanted = json.loads(json.dumps(made_of.evaluation(experiment, state)))
  archs_AxE = arrays['archs_AxE']
  if facts != wanted or not np.array_equal(
    archs_AxE, experiment.ranking_archs_AxE
  ):
    return False
  files.write_npz(workdir / 'predictions.npz', arrays, facts)
  return True


def _resumable(
  experiment: Experiment,
  states: Sequence[TrainState],
  archs_AxE: Int[np.ndarray, 'A E'],
  file: Path,
  facts: Mapping[str, Any],
  poll: Callable[[], None],
) -> evaluation.Right:
  """Evaluates as `right` does, and goes on from what `file` keeps.

  What was made of something else is evaluated anew. The images of one state
  stand beside those of the next.
  """
  images = len(experiment.held_out.ranking)
  right_AxSI = np.full(
    (len(archs_AxE), len(states) * images), evaluation.MISSING, np.int8
  )
  last, begun = time.monotonic(), False
  if file.exists():
    kept, found = files.read_arrays(file, run_files.PART)
    same = np.array_equal(kept['archs_AxE'], archs_AxE)
    if same and found == json.loads(json.dumps(facts)):
      right_AxSI[:] = kept['right_AxI']

  def copy():
    files.write_npz(
      file, {'archs_AxE': archs_AxE, 'right_AxI': right_AxSI}, facts
    )

  def keep(number, right_AxI):
    nonlocal last, begun
    begun = True
    right_AxSI[:, number * images : (number + 1) * images] = right_AxI
    if time.monotonic() - last > SECONDS_BETWEEN_COPIES:
      copy()
      last = time.monotonic()

  try:
    for number, state in enumerate(states):
      known_AxI = right_AxSI[:, number * images : (number + 1) * images]
      keep_it = functools.partial(keep, number)
      ranking.right(
        experiment, state, archs_AxE, known=known_AxI, keep=keep_it, poll=poll
      )
  except BaseException:
    if begun:
      copy()
    raise
  return right_AxSI
