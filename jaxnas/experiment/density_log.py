"""density_log.npz: densities and distances along a run.

The sampler does not see them. Table 6 of Roshtkhari et al. (CVPR Findings
2026) is the agreement of `alpha_LxA` with its last row; figure 2 is
`training_distance_LxT` (left) and `validation_distance_LxT` (right), the mean
gradient cosine distance of two architectures in each weight tensor.
`distance_LxMxM` are those of every two of `some_M`, in the tensors that a
density by gradients compares.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxnas import density
from jaxnas.config import digest, run_folder
from jaxnas.density import tensors
from jaxnas.density.estimate import naming
from jaxnas.density.features import Gradients, read
from jaxnas.density.streaming import distance_by_tensor
from jaxnas.experiment import densities, npz_log, online, schedule
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files, progress, seals
from jaxnas.runtime.devices import Chunk
from jaxnas.runtime.rng import generator
from jaxnas.training.step import TrainState

FILE = 'density_log.npz'

# Number of architectures whose distances are logged, drawn with a fixed seed:
# each takes two whole backward passes, and one of few tensors.
SOME = 64


@errors.memory_of('density.memory_gb', 'density.batch_size')
def write(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> None:
  """Writes a row of the log where one is due after this many epochs."""
  if not schedule.logs_density(experiment.config, epoch):
    return
  row = measured(experiment, state, workdir, poll)
  fixed = {
    'archs_AxE': experiment.space.enumerate(),
    'tensors_T': np.array(weights(experiment, state.params)),
    'some_M': subset(experiment)[: len(row['distance_LxMxM'])],
  }
  npz_log.append(
    workdir / FILE, epoch, row, fixed, {'config': experiment.run_digest}
  )


def take_over(experiment: Experiment, warmup_from: Path, workdir: Path) -> None:
  """Copies the log and the density of the run whose warm-up is taken over.

  They are this run's from then on. Nothing is copied where that run measured
  density another way. Rows of later epochs are not used.

  Raises Damaged where a file there is of another run.
  """
  config, other = experiment.config, run_folder.read_config(warmup_from)
  if other.density != config.density:
    return
  for name in (FILE, *(['density.npz'] if config.debiases else [])):
    if (file := warmup_from / name).exists():
      _, facts = files.read_arrays(file, {}, {'config': digest(other)})
      arrays = files.read_npz(file)
      del arrays[seals.FACTS]
      facts |= {'config': experiment.run_digest}
      files.write_npz(workdir / name, arrays, facts)


def measured(
  experiment: Experiment,
  state: TrainState,
  spool: Path,
  poll: Callable[[], None],
) -> dict[str, np.ndarray]:
  """Measures a row, all but its epoch.

  Features beyond the memory lie in the folder `spool` meanwhile.
  """
  config = experiment.config
  snapshot = densities.snapshot(experiment, state)
  row = {
    'alpha_LxA': densities.estimate(config.density, snapshot, poll).alpha_A
  }
  if config.density.estimator == 'prototypes':
    few = online.measure(experiment, state, spool, poll)
    row['prototype_alpha_LxA'] = online.of_all(few)
  row['distance_LxMxM'] = of_pairs(experiment, snapshot, poll)
  return row | distances(experiment, state, snapshot, poll)


def subset(experiment: Experiment) -> Int[np.ndarray, ' M']:
  """Returns indices of the architectures whose distances are logged."""
  count = experiment.space.size
  if count <= SOME:
    return np.arange(count)
  rng = generator(experiment.config.seed, 'density log')
  return rng.choice(count, SOME, replace=False)


def of_pairs(
  experiment: Experiment,
  snapshot: density.Snapshot,
  poll: Callable[[], None],
) -> Float[np.ndarray, 'M M']:
  """Returns the gradient distance of every two of `subset` that fit memory."""
  given, (net, params, archs_AxE, *_) = experiment.config.density, snapshot
  compared = densities.by_gradients(given, net, params, archs_AxE)
  size = density.feature_bytes(
    compared, net, params, 1, given.batches, given.batch_size
  )
  fit = int(given.memory_gb * 1e9 // size)
  if not fit:
    return np.zeros((0, 0), np.float32)
  on_some = snapshot._replace(archs_AxE=archs_AxE[subset(experiment)[:fit]])
  features = density.gather(
    on_some, compared, memory_gb=given.memory_gb, poll=poll
  )
  return density.matrix(compared.distance, features, poll=poll)


def distances(
  experiment: Experiment,
  state: TrainState,
  snapshot: density.Snapshot,
  poll: Callable[[], None],
) -> dict[str, np.ndarray]:
  """Returns the mean gradient distance in each of `weights`, on both images."""
  archs_AxE = snapshot.archs_AxE[subset(experiment)]
  names, row = weights(experiment, state.params), {}
  on_same = snapshot._replace(archs_AxE=archs_AxE)
  for name, blocks in (
    ('validation', lambda: read(*on_same, Gradients(names))),
    ('training', lambda: on_batches_of_their_own(experiment, state, on_same)),
  ):
    with naming(on_same):
      by_tensor = distance_by_tensor(
        lambda blocks=blocks, name=name: progress.track(
          blocks(),
          f'distances, {name} images',
          len(archs_AxE),
          poll,
          size=lambda block: int(block.real_C.sum()),
        )
      )
    row[f'{name}_distance_LxT'] = np.array([by_tensor[t] for t in names])
  return row


def weights(experiment: Experiment, params: Any) -> tuple[str, ...]:
  """Returns the names of all weight tensors."""
  archs_OxE = densities.every_op(experiment.space)
  return tensors.select(experiment.net, params, archs_OxE, 'all')


def on_batches_of_their_own(
  experiment: Experiment,
  state: TrainState,
  snapshot: density.Snapshot,
) -> Iterator[Chunk]:
  """Yields gradients as training computes them, on a batch an architecture.

  The batches are the next ones of training.
  """
  seed, step = experiment.config.seed, int(state.step)
  order, of_indices = experiment.training.order, experiment.training.batch

  @jax.jit
  def batch(inputs, step):
    _, indices_B = order.draw(state.images, inputs, step)
    return of_indices(inputs, step, indices_B)

  inputs = experiment.training.feed(seed, step)
  readout = Gradients(weights(experiment, snapshot.params))
  for index, arch_E in enumerate(snapshot.archs_AxE):
    x_BxHxWxC, y_B = batch(next(inputs), step + index)
    one = density.Snapshot(
      snapshot.net, snapshot.params, arch_E[None], [x_BxHxWxC], [y_B]
    )
    for block in read(*one, readout):
      yield block._replace(indices_C=np.full(len(block.real_C), index))
  inputs.close()
