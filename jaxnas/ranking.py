"""Architectures evaluated and held to the truth, as a config says."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import correlation, data, evaluation, runs, streams, tables
from jaxnas.spaces import Space

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Between two copies of what is evaluated so far.
SECONDS_BETWEEN_COPIES = 30.0

# Of the intervals along a run; the last ranking has five times as many.
RESAMPLES = 200


def accuracies(
  experiment: 'Experiment',
  state: 'TrainState',
  archs_AxE: Int[np.ndarray, 'A E'],
  *,
  split: data.Split | None = None,
  batch_size: int | None = None,
  **options: Any,
) -> Float[np.ndarray, ' A']:
  """Under the shared weights of a state, normalised as `ranking.bn` says.

  Args:
    experiment: whose net, and whose sampler where it routes.
    state: of its training.
    archs_AxE: any architectures.
    split: images; None: those of the ranking.
    batch_size: at most so many in a batch; None: `ranking.batch_size`.
    options: of `evaluation.accuracies`.
  """
  given, split = experiment.config.ranking, split or experiment.held_out.ranking
  net: Any = experiment.net
  variables = {'params': state.variables['params']}
  calibration = None
  if given.bn == 'running':
    net, variables = experiment.trained_net, state.variables
  if given.bn == 'recalibrate':
    images = experiment.held_out.calibration
    starts = range(0, len(images), experiment.config.data.batch_size)
    batches = np.split(np.arange(len(images)), starts[1:])
    calibration = jnp.stack([images.batch(b_B)[0] for b_B in batches])
  return evaluation.accuracies(
    net,
    variables,
    experiment.sampler.route(state.sampler, archs_AxE),
    split.batch,
    len(split),
    batch_size=batch_size or given.batch_size,
    calibration=calibration,
    **options,
  )


def how(experiment: 'Experiment') -> dict[str, Any]:
  """By what architectures are evaluated, ready for JSON."""
  config, held_out = experiment.config, experiment.held_out
  out: dict[str, Any] = {
    'space': config.space,
    'split': config.ranking.split,
    'images': len(held_out.ranking),
    'bn': config.ranking.bn,
  }
  if config.ranking.bn == 'recalibrate':
    out['calibration_images'] = len(held_out.calibration)
  return out


def predict(
  experiment: 'Experiment',
  state: 'TrainState',
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> None:
  """Writes predictions.npz, the accuracies of these architectures.

  What an interrupted call has evaluated is not evaluated again.
  """
  part = workdir / 'predictions.part.npz'
  accuracy_A = _resumable(experiment, state, archs_AxE, part, poll)
  runs.write_npz(
    workdir / 'predictions.npz',
    {
      'archs_AxE': archs_AxE,
      'accuracy_A': accuracy_A,
      'skipped_images': np.array(len(experiment.skipped)),
    },
  )
  part.unlink(missing_ok=True)


class Predictions(NamedTuple):
  """What predictions.npz holds."""

  archs_AxE: Int[np.ndarray, 'A E']
  accuracy_A: Float[np.ndarray, ' A']
  """Fractions."""
  skipped_images: int


def read(file: Path, space: Space) -> Predictions:
  """What `predict` wrote.

  Raises FileNotFoundError, or Damaged where it is not of this space.
  """
  arrays = runs.read_npz(file, Predictions._fields)
  archs_AxE, accuracy_A, skipped = (arrays[n] for n in Predictions._fields)
  try:
    space.validate(archs_AxE)
    if accuracy_A.shape != (len(archs_AxE),) or accuracy_A.dtype.kind != 'f':
      raise ValueError(
        f'accuracy_A is {accuracy_A.dtype} of shape {accuracy_A.shape}'
      )
    # NaN compares false.
    if not len(accuracy_A) or not ((accuracy_A >= 0) & (accuracy_A <= 1)).all():
      raise ValueError('accuracy_A is not one number in [0, 1] an arch')
    if skipped.shape != () or skipped.dtype.kind not in 'iu':
      raise ValueError(f'skipped_images is {skipped.dtype}, no count')
  except ValueError as error:
    raise runs.Damaged(
      f'{file} is no ranking of {space.name} ({str(error).rstrip(".")}): take '
      'it away, and the same command ranks again.'
    ) from error
  return Predictions(archs_AxE, accuracy_A, int(skipped))


def _resumable(
  experiment: 'Experiment',
  state: 'TrainState',
  archs_AxE: Int[np.ndarray, 'A E'],
  file: Path,
  poll: Callable[[], None],
) -> Float[np.ndarray, ' A']:
  """As `accuracies`; what an earlier call of it left in `file` is kept."""
  facts = json.dumps(
    {
      'state': _digest(state),
      'ranking': dataclasses.asdict(experiment.config.ranking),
    }
  )
  known, last, newest = None, time.monotonic(), None
  if file.exists():
    kept = runs.read_npz(file, ('archs_AxE', 'hits_AxN', 'facts'))
    same = np.array_equal(kept['archs_AxE'], archs_AxE)
    if same and str(kept['facts']) == facts:
      known = kept['hits_AxN']

  def copy(hits_AxN):
    runs.write_npz(
      file,
      {
        'archs_AxE': archs_AxE,
        'hits_AxN': hits_AxN,
        'facts': np.array(facts),
      },
    )

  def keep(hits_AxN):
    nonlocal last, newest
    newest = hits_AxN
    if time.monotonic() - last > SECONDS_BETWEEN_COPIES:
      copy(hits_AxN)
      last = time.monotonic()

  try:
    return accuracies(
      experiment, state, archs_AxE, known=known, keep=keep, poll=poll
    )
  except BaseException:
    if newest is not None:
      copy(newest)
    raise


def _digest(state: 'TrainState') -> str:
  """Tells states of training apart, of one run and of several."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def report(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  table: tables.Table | None,
  poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
  """Correlation of some architectures, where it is due after `epoch` epochs.

  Empty where it is not. The architectures are the same along a run.
  """
  config = experiment.config
  every, last = config.ranking.every_epochs, config.total_epochs
  due = every is not None and epoch and (epoch % every == 0 or epoch == last)
  if table is None or not due:
    return {}
  archs_AxE = reported(experiment)
  accuracy_A = accuracies(
    experiment, state, archs_AxE, label='reporting', poll=poll
  )
  truth_A = table.accuracy(archs_AxE)
  low, high = correlation.bootstrap(
    correlation.kendall,
    accuracy_A,
    truth_A,
    streams.rng(config.seed, 'report intervals', epoch),
    RESAMPLES,
  ) or (None, None)
  row = {
    'epoch': float(epoch),
    'kendall': correlation.kendall(accuracy_A, truth_A),
    'kendall_low': low,
    'kendall_high': high,
    'spearman': correlation.spearman(accuracy_A, truth_A),
  }
  # Undefined where all accuracies are alike.
  return {name: value for name, value in row.items() if value is not None}


def reported(experiment: 'Experiment') -> Int[np.ndarray, 'A E']:
  """The architectures of the reports along a run."""
  config, space = experiment.config, experiment.space
  count = min(config.ranking.sample, space.size)
  return space.some(streams.rng(config.seed, 'reports'), count)
