"""What a Config says of density, as objects."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxnas import density, spaces, supernets
from jaxnas.config import Config
from jaxnas.density import prototypes, tensors

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState


def lookup(config: Config, space: spaces.Space) -> Callable[..., Any]:
  """(prototypes, archs_MxE) -> alpha_M."""
  if config.density.lookup == 'nearest':
    return prototypes.nearest
  return functools.partial(prototypes.linear, ops=max(space.counts))


def every_op(space: spaces.Space) -> Int[np.ndarray, 'O E']:
  """Architectures that use every op of every position between them."""
  if space.enumerable:
    return tensors.extremes(space.enumerate())
  ops_Ox1 = np.arange(max(space.counts), dtype=np.int32)[:, None]
  return np.minimum(ops_Ox1, np.array(space.counts, np.int32) - 1)


def measure(
  config: Config, net: Any, params: Any, archs_AxE: Int[np.ndarray, 'A E']
) -> density.Measure:
  """Raises ValueError where the net has nothing that is asked for."""
  given = config.density
  if given.measure == 'representational':
    return density.representational(
      net, layers=given.layers, unbiased=given.unbiased
    )
  if given.measure == 'functional':
    return density.functional(given.outputs)
  if given.measure == 'encoding':
    return density.encoding()
  return by_gradients(config, net, params, archs_AxE)


def by_gradients(
  config: Config, net: Any, params: Any, archs_AxE: Int[np.ndarray, 'A E']
) -> density.Measure:
  """Whatever else densities compare. Raises ValueError as `measure`."""
  given = config.density
  return density.gradient(
    net,
    params,
    archs_AxE,
    tensor_set=given.tensors,
    combine=given.combine,
    absent=given.absent,
  )


def check(
  config: Config,
  space: spaces.Space,
  net: Any,
  archs_AxE: Int[np.ndarray, 'A E'] | None,
) -> None:
  """Raises ValueError for a density that cannot be had, before any work.

  Args:
    config: of the experiment.
    space: of the architectures.
    net: the supernet.
    archs_AxE: all architectures as the net takes them; None: too many to list.
  """
  given = config.density
  if given.log_epochs is not None and not space.enumerable:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for '
      'density.log_epochs: leave it None.'
    )
  if given.file is not None:
    density.load(Path(given.file), space.enumerate())
  elif estimates(config) and archs_AxE is not None:
    check_archs(config, net, archs_AxE)
  if config.debiases and given.measure == 'encoding' and given.file is None:
    # It depends on no weights: what it would be is known now.
    nothing = density.Subject(net, {}, space.enumerate(), [], [])
    if not np.ptp(estimate(config, nothing).alpha_A):
      raise ValueError(
        f'density.measure encoding is the same for all architectures of '
        f'{space.name}: debias by another.'
      )


def check_archs(
  config: Config, net: Any, archs_AxE: Int[np.ndarray, 'A E']
) -> None:
  """As `check`, for the density of just these architectures."""
  given = config.density
  params = supernets.shapes(net, archs_AxE[0])['params']
  compared = measure(config, net, params, archs_AxE)
  if given.estimator == 'kde' or not compared.linear:
    density.check_memory(
      density.feature_bytes(
        compared,
        net,
        params,
        len(archs_AxE),
        given.batches,
        given.batch_size,
      ),
      given.memory_gb,
    )


def estimates(config: Config) -> bool:
  """Whether held-out images are looked at for a density."""
  given = config.density
  feeds = config.debiases and given.estimator != 'prototypes'
  return given.file is None and (feeds or given.log_epochs is not None)


def subject(
  experiment: 'Experiment',
  state: 'TrainState',
  archs_AxE: Int[np.ndarray, 'A E'] | None = None,
) -> density.Subject:
  """The supernet at this state, on the held-out images of the density."""
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
  return density.Subject(
    experiment.net, state.params, routed_AxF, images, labels
  )


def estimate(
  config: Config,
  looked_at: density.Subject,
  poll: Callable[[], None] = lambda: None,
  *,
  features: dict[str, np.ndarray] | None = None,
) -> density.Density:
  """The density that a config asks for; prototypes have one of their own.

  `features` are those of `density.gather`, where they are at hand.
  """
  given, (net, params, archs_AxE, *_) = config.density, looked_at
  estimator = given.estimator
  estimated = density.estimate(
    looked_at,
    measure(config, net, params, archs_AxE),
    'inverse_mean_distance' if estimator == 'prototypes' else estimator,
    bandwidth=given.bandwidth,
    memory_gb=given.memory_gb,
    poll=poll,
    features=features,
  )
  # A density is an architecture's, whichever member of a mixture it has.
  return estimated._replace(archs_AxE=archs_AxE[:, : net.space.positions])


def facts(config: Config, step: int) -> dict[str, Any]:
  """Where a density comes from, for its file."""
  return {'step': step, 'density': dataclasses.asdict(config.density)}
