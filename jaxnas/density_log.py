"""density_log.npz: how densities and distances change along a run.

The sampler does not see them. Table 6 of Roshtkhari et al. (CVPR Findings
2026) is the agreement of `alpha_LxA` with its last row; figure 2 is
`training_distance_LxT` (left) and `validation_distance_LxT` (right), the mean
gradient cosine distance of two architectures in each weight tensor.
`distance_LxMxM` are those of every two of `some_M`, in the tensors that a
density by gradients compares.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxnas import (
  debiasing,
  density,
  density_config,
  progress,
  runs,
  samplers,
  streams,
)
from jaxnas.config import Config
from jaxnas.density import tensors
from jaxnas.density.estimate import naming
from jaxnas.density.features import Gradients, read
from jaxnas.density.streaming import distance_by_tensor
from jaxnas.spread import Block

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

FILE = 'density_log.npz'

# Distances are those of so many architectures, drawn with a fixed seed where
# there are more: each takes two whole backward passes, and one of few tensors.
SOME = 64


def write(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> None:
  """A row of the log where one is due after `epoch` epochs.

  That is every so many epochs, after the warm-up and at the end. Rows of
  later epochs, as a run leaves that is resumed, are dropped.
  """
  config = experiment.config
  every, last = config.density.log_epochs, config.total_epochs
  if every is None or (
    epoch % every and epoch not in (config.warmup_epochs, last)
  ):
    return
  file = workdir / FILE
  row = measured(experiment, state, poll)
  fixed = {
    'archs_AxE': experiment.space.enumerate(),
    'tensors_T': np.array(weights(experiment, state.params)),
    'some_M': some(experiment)[: len(row['distance_LxMxM'])],
  }
  rows = {'epoch_L': np.array(epoch), **row}
  before = earlier(file, rows) if file.exists() else {}
  earlier_L = before.get('epoch_L', np.zeros(0, int)) < epoch
  runs.write_npz(
    file,
    fixed
    | {
      name: np.concatenate(
        [*([before[name][earlier_L]] if before else []), value[None]]
      )
      for name, value in rows.items()
    },
  )


def earlier(
  file: Path, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """What the log holds so far of such rows.

  Raises Damaged where other rows do not fit to them.
  """
  before = runs.read_npz(file, rows)
  count = len(before['epoch_L'].ravel())
  for name, row in rows.items():
    found, kind = before[name], row.dtype.kind
    if found.shape != (count, *row.shape) or found.dtype.kind != kind:
      raise runs.Damaged(
        f'{file}: {name} is {found.dtype} of shape {found.shape}; rows of '
        f'shape {row.shape} do not go on from it: take the file away.'
      )
  return before


def take_over(config: Config, warmup_from: Path, workdir: Path) -> None:
  """The log and the density of the run whose warm-up is taken over.

  Only where that run measured density as this one does. What is of later
  epochs is not used.
  """
  if runs.read_config(warmup_from).density != config.density:
    return
  for name in (FILE, *(['density.npz'] if config.debiases else [])):
    if (file := warmup_from / name).exists():
      with runs.whole(workdir / name) as stream:
        stream.write(file.read_bytes())


def measured(
  experiment: 'Experiment',
  state: 'TrainState',
  poll: Callable[[], None],
) -> dict[str, np.ndarray]:
  """What a row holds besides its epoch."""
  config = experiment.config
  subject = density_config.subject(experiment, state)
  row = {'alpha_LxA': density_config.estimate(config, subject, poll).alpha_A}
  if config.density.estimator == 'prototypes':
    online = debiasing.of_prototypes(
      experiment, samplers.of_archs(state.sampler).density
    )
    row['prototype_alpha_LxA'] = online.alpha_A
  row['distance_LxMxM'] = of_pairs(experiment, subject, poll)
  return row | distances(experiment, state, subject, poll)


def some(experiment: 'Experiment') -> Int[np.ndarray, ' M']:
  """Indices of the architectures that distances are looked at of."""
  count = experiment.space.size
  if count <= SOME:
    return np.arange(count)
  rng = streams.rng(experiment.config.seed, 'density log')
  return rng.choice(count, SOME, replace=False)


def of_pairs(
  experiment: 'Experiment',
  subject: density.Subject,
  poll: Callable[[], None],
) -> Float[np.ndarray, 'M M']:
  """Gradient distance of every two of `some`, or of those that fit memory."""
  given, (net, params, archs_AxE, *_) = experiment.config.density, subject
  compared = density_config.by_gradients(
    experiment.config, net, params, archs_AxE
  )
  size = density.feature_bytes(
    compared, net, params, 1, given.batches, given.batch_size
  )
  fit = int(given.memory_gb * 1e9 // size)
  if not fit:
    return np.zeros((0, 0), np.float32)
  on_some = subject._replace(archs_AxE=archs_AxE[some(experiment)[:fit]])
  features = density.gather(
    on_some, compared, memory_gb=given.memory_gb, poll=poll
  )
  return density.matrix(compared.distance, features, poll=poll)


def distances(
  experiment: 'Experiment',
  state: 'TrainState',
  subject: density.Subject,
  poll: Callable[[], None],
) -> dict[str, np.ndarray]:
  """Mean gradient distance in each of `weights`, on both kinds of images."""
  archs_AxE = subject.archs_AxE[some(experiment)]
  names, row = weights(experiment, state.params), {}
  on_same = subject._replace(archs_AxE=archs_AxE)
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


def weights(experiment: 'Experiment', params: Any) -> tuple[str, ...]:
  """Names of all weight tensors."""
  archs_OxE = density_config.every_op(experiment.space)
  return tensors.select(experiment.net, params, archs_OxE, 'all')


def on_batches_of_their_own(
  experiment: 'Experiment',
  state: 'TrainState',
  subject: density.Subject,
) -> Iterator[Block]:
  """Gradients as training computes them, a batch an architecture.

  The batches are the next ones of training.
  """
  seed, step = experiment.config.seed, int(state.step)
  order, of_indices = experiment.training.order, experiment.training.batch

  @jax.jit
  def batch(inputs, step):
    _, indices_B = order.draw(state.images, inputs, step)
    return of_indices(inputs, step, indices_B)

  inputs = experiment.training.feed(seed, step)
  readout = Gradients(weights(experiment, subject.params))
  for index, arch_E in enumerate(subject.archs_AxE):
    x_BxHxWxC, y_B = batch(next(inputs), step + index)
    one = density.Subject(
      subject.net, subject.params, arch_E[None], [x_BxHxWxC], [y_B]
    )
    for block in read(*one, readout):
      yield block._replace(indices_C=np.full(len(block.real_C), index))
  inputs.close()
