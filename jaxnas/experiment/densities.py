"""Densities as a config asks for them: measured at a state of training."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import config as sections
from jaxnas import density, spaces, supernets
from jaxnas.config import registry
from jaxnas.density import tensors
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files
from jaxnas.training import digests
from jaxnas.training.step import TrainState

# The distances of every two architectures are kept in spaces of at most so
# many: half a million numbers.
PAIRS_KEPT = 1000


def every_op(space: spaces.Space) -> Int[np.ndarray, 'O E']:
  """Returns architectures that together use every op of every position."""
  if space.enumerable:
    return tensors.extremes(space.enumerate())
  ops_Ox1 = np.arange(max(space.counts), dtype=np.int32)[:, None]
  return np.minimum(ops_Ox1, np.array(space.counts, np.int32) - 1)


def measure(
  given: sections.Density,
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
) -> density.Measure:
  """Returns what is compared between architectures, by `density.measure`.

  Raises ValueError where the net has nothing that is asked for.
  """
  offered = {'net': net, 'params': params, 'archs_AxE': archs_AxE}
  return registry.MEASURES.make(
    given.measure, {**vars(given), **offered}, given.options
  )


def by_gradients(
  given: sections.Density,
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
) -> density.Measure:
  """Returns the measure that compares gradients, whatever `density.measure`.

  Raises ValueError where no tensor is left to compare.
  """
  return density.gradient(
    net,
    params,
    archs_AxE,
    tensors=given.tensors,
    combine=given.combine,
    absent=given.absent,
  )


def check(
  given: sections.Density,
  space: spaces.Space,
  net: Any,
  archs_AxF: Int[np.ndarray, 'A F'] | None,
  *,
  estimates: bool,
) -> None:
  """Raises ValueError for a density that cannot be had, before any work.

  Args:
    given: the config's section.
    space: the architectures.
    net: the supernet.
    archs_AxF: all architectures as the net takes them; None: too many to list.
    estimates: held-out images are looked at for a density.
  """
  if given.log_epochs is not None and not space.enumerable:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for '
      'density.log_epochs: leave it None.'
    )
  if given.file is None and estimates and archs_AxF is not None:
    check_archs(given, net, archs_AxF)


def of_file(given: sections.Density, space: spaces.Space) -> density.Density:
  """Returns the density in the file that a config names.

  Raises FileNotFoundError, Damaged, or ValueError where it holds that of other
  architectures, or something else than when the run began.
  """
  assert given.file is not None
  file = Path(given.file)
  found = density.load(file, space.enumerate())
  if given.file_digest not in (None, files.digest(file)):
    raise ValueError(
      f'{file} holds another density than when the run began: give '
      '--density.file PATH of that one, or begin anew in another --workdir.'
    )
  return found


def known(
  given: sections.Density, space: spaces.Space, net: Any
) -> density.Density | None:
  """Returns the density that training does not change; None where it does.

  Raises ValueError where a file holds that of other architectures, or where it
  is the same for all of them.
  """
  if given.file is not None:
    return of_file(given, space)
  if given.measure != 'encoding':
    return None
  # Encodings depend on no weights.
  untrained = density.Snapshot(net, {}, space.enumerate(), [], [])
  found = estimate(given, untrained)
  if not np.ptp(found.alpha_A):
    raise ValueError(
      f'density.measure encoding is the same for all architectures of '
      f'{space.name}: debias by another.'
    )
  return found


def check_archs(
  given: sections.Density, net: Any, archs_AxE: Int[np.ndarray, 'A E']
) -> None:
  """Raises ValueError where the density of these needs too much memory."""
  params = supernets.shapes(net, archs_AxE[0])['params']
  compared = measure(given, net, params, archs_AxE)
  if given.estimator == 'kde' or not compared.linear:
    density.check_memory(
      density.feature_bytes(
        compared, net, params, len(archs_AxE), given.batches, given.batch_size
      ),
      given.memory_gb,
    )


def snapshot(
  experiment: Experiment,
  state: TrainState,
  archs_AxE: Int[np.ndarray, 'A E'] | None = None,
) -> density.Snapshot:
  """Returns the supernet at this state, on the held-out images of densities.

  Args:
    experiment: whose net and images they are.
    state: a state of its training.
    archs_AxE: the architectures to compare; None: the whole space.
  """
  batches = np.split(
    np.arange(len(experiment.held_out.density)),
    experiment.config.density.batches,
  )
  images, labels = zip(
    *map(experiment.held_out.density.batch, batches), strict=True
  )
  if archs_AxE is None:
    archs_AxE = experiment.space.enumerate()
  routed_AxF = experiment.sampler.route(state.sampler, archs_AxE)
  return density.Snapshot(
    experiment.net, state.params, routed_AxF, images, labels
  )


@errors.memory_of('density.memory_gb', 'density.batch_size')
def estimate(
  given: sections.Density,
  snapshot: density.Snapshot,
  poll: Callable[[], None] = lambda: None,
  *,
  features: dict[str, np.ndarray] | None = None,
) -> density.Density:
  """Estimates the density of every architecture of the snapshot.

  Where the section asks for prototypes, this is the inverse mean distance that
  they approximate.

  Args:
    given: the config's section.
    snapshot: what is compared, from `snapshot`.
    poll: called before each block; may raise.
    features: those of `density.gather`, where they are at hand.
  """
  net, params, archs_AxE, *_ = snapshot
  estimator, compared = given.estimator, measure(given, net, params, archs_AxE)
  pairs = keeps_pairs(given, snapshot, compared)
  if features is None and pairs:
    features = density.gather(
      snapshot, compared, memory_gb=given.memory_gb, poll=poll
    )
  estimated = density.estimate(
    snapshot,
    compared,
    estimator if estimator == 'kde' else 'inverse_mean_distance',
    bandwidth=given.bandwidth,
    memory_gb=given.memory_gb,
    poll=poll,
    features=features,
  )
  return density.Density(
    # A density is an architecture's, whichever member of a mixture it has.
    archs_AxE[:, : net.space.positions],
    estimated.alpha_A,
    density.condensed(compared.distance, features, poll=poll)
    if pairs and features is not None
    else None,
  )


def keeps_pairs(
  given: sections.Density, snapshot: density.Snapshot, compared: density.Measure
) -> bool:
  """Returns True where all distances are kept with the densities.

  They are few there, and the features that they compare fit in the memory.
  """
  net, params, archs_AxE, images, labels = snapshot
  size = len(archs_AxE)
  return (
    size <= PAIRS_KEPT
    and density.feature_bytes(
      compared, net, params, size, len(images), len(labels[0]) if labels else 0
    )
    <= given.memory_gb * 1e9
  )


def vectors(
  given: sections.Density,
  snapshot: density.Snapshot,
  poll: Callable[[], None] = lambda: None,
  *,
  spool: Path | None = None,
) -> dict[str, np.ndarray] | None:
  """Returns features whose mean similarities take linear time.

  None where distances are no cosines, or where features fit neither the memory
  nor, without a `spool` as of `density.gather`, anything else.
  """
  net, params, archs_AxE, images, labels = snapshot
  compared = measure(given, net, params, archs_AxE)
  if not compared.linear:
    return None
  size = density.feature_bytes(
    compared, net, params, len(archs_AxE), len(images), len(labels[0])
  )
  if spool is None and size > given.memory_gb * 1e9:
    return None
  return density.gather(
    snapshot, compared, memory_gb=given.memory_gb, poll=poll, spool=spool
  )


def check_similarity(
  given: sections.Density, space: spaces.Space, net: Any
) -> None:
  """Raises ValueError where no rule can know similarities under a sampling.

  Reads the file of a density, where the section names one.
  """
  if given.estimator == 'kde':
    raise ValueError(
      'debias.rule self_consistent samples by mean similarities: use '
      'density.estimator inverse_mean_distance.'
    )
  if given.file is not None:
    if density.read_file(Path(given.file))[0].distance_P is None:
      raise ValueError(
        f'{given.file} holds no distances of every two architectures, which '
        'debias.rule self_consistent needs: use rule eq8, or no file.'
      )
    return
  archs_AxE = every_op(space)
  params = supernets.shapes(net, archs_AxE[0])['params']
  linear = measure(given, net, params, archs_AxE).linear
  if not linear and space.size > PAIRS_KEPT:
    raise ValueError(
      f'debias.rule self_consistent keeps the distances of at most '
      f'{PAIRS_KEPT} architectures where they are no cosines; {space.name} '
      f'has {space.size:.6g}: use density.measure gradient with '
      'density.absent zero.'
    )


def facts(
  experiment: Experiment, state: TrainState, given: sections.Density
) -> dict[str, Any]:
  """Returns what a density is made of, for its file.

  The state counts as far as densities depend on it.
  """
  return {
    'config': experiment.run_digest,
    'step': int(state.step),
    'state': digests.of({'params': state.params, **state.statistics}),
    'density': dataclasses.asdict(given),
  }
