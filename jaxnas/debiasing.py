"""What a Config says about density: estimated in a run, fed to its sampler."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, Int

from jaxnas import density, samplers, spaces, streams, supernets
from jaxnas.config import Config
from jaxnas.density import prototypes, tensors

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Draws of an unlisted space for which a temperature is solved.
SAMPLE = 4096


def sampler(config: Config, space: spaces.Space, net: Any) -> samplers.Sampler:
  """The proposal, ready to be debiased: until then it is the proposal.

  Raises ValueError where no density can be had of so large a space.
  """
  paths = config.sampler.paths
  proposal = samplers.PROPOSALS[config.sampler.name](space, paths=paths)
  if config.density.estimator == 'prototypes':
    names, dimension = clustered(config, space, net)
    return samplers.online(
      proposal,
      functools.partial(
        prototypes.init, config.density.prototypes, dimension, space.positions
      ),
      lookup(config, space),
      names,
      candidates=config.debias.candidates,
    )
  if space.enumerable:
    return samplers.debiased(proposal, space.enumerate(), paths=paths)
  if config.debiases:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for the '
      'density of each: set density.estimator prototypes.'
    )
  return proposal


def clustered(
  config: Config, space: spaces.Space, net: Any
) -> tuple[tuple[str, ...], int]:
  """Tensors whose gradients prototypes cluster, and how long they are.

  Raises ValueError where an architecture does without one of them.
  """
  archs_OxE = every_op(space)
  params = supernets.shapes(net, archs_OxE[0])['params']
  names = tensors.select(net, params, archs_OxE, config.density.tensors)
  if lacking := {*names} - tensors.used_by_all(net, params, archs_OxE):
    raise ValueError(
      f'density.estimator prototypes compares what every architecture trains; '
      f'{min(lacking)} is not: choose other density.tensors.'
    )
  by_name: dict[str, Any] = flatten_dict(params, sep='/')
  return names, sum(by_name[name].size for name in names)


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
  return density.gradient(
    net,
    params,
    archs_AxE,
    tensor_set=given.tensors,
    combine=given.combine,
    absent=given.absent,
  )


def check(config: Config, space: spaces.Space, net: Any) -> None:
  """Raises ValueError for a density that cannot be had, before any work."""
  given = config.density
  if given.log_epochs is not None and not space.enumerable:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for '
      'density.log_epochs: leave it None.'
    )
  if given.file is not None:
    density.load(Path(given.file), space.enumerate())
  elif estimates(config) and space.enumerable:
    check_archs(config, net, space.enumerate())


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
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'] | None = None,
) -> density.Subject:
  """The supernet at these weights, on the held-out images of the density."""
  batches = np.split(
    np.arange(len(experiment.density)), experiment.config.density.batches
  )
  images, labels = zip(*map(experiment.density.batch, batches), strict=True)
  if archs_AxE is None:
    archs_AxE = experiment.space.enumerate()
  return density.Subject(experiment.net, params, archs_AxE, images, labels)


def estimate(
  config: Config,
  looked_at: density.Subject,
  poll: Callable[[], None] = lambda: None,
) -> density.Density:
  """The density that a config asks for; prototypes have one of their own."""
  given, (net, params, archs_AxE, *_) = config.density, looked_at
  estimator = given.estimator
  return density.estimate(
    looked_at,
    measure(config, net, params, archs_AxE),
    'inverse_mean_distance' if estimator == 'prototypes' else estimator,
    bandwidth=given.bandwidth,
    memory_gb=given.memory_gb,
    poll=poll,
  )


def debias(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> 'TrainState':
  """Debiases from here on, where a density is due before this epoch."""
  config = experiment.config
  since = epoch - config.warmup_epochs
  every = config.density.refresh_epochs
  due = since == 0 or (every is not None and since > 0 and since % every == 0)
  if not (config.debiases and due and config.epochs):
    return state
  estimated = current(experiment, state, poll)
  density.save(estimated, workdir / 'density.npz')
  if isinstance(state.sampler, samplers.OnlineState):
    fed, text = feed_online(experiment, state.sampler, estimated.alpha_A)
  else:
    fed, text = feed_listed(experiment, state.sampler, estimated.alpha_A)
  print(text)
  return dataclasses.replace(state, sampler=fed)


def current(
  experiment: 'Experiment',
  state: 'TrainState',
  poll: Callable[[], None] = lambda: None,
) -> density.Density:
  """The density at this state, of a file, of prototypes, or estimated.

  Prototypes give that of every architecture, or in an unlisted space that of
  some, drawn with a fixed seed.
  """
  config, space = experiment.config, experiment.space
  if config.density.file is not None:
    return density.load(Path(config.density.file), space.enumerate())
  if isinstance(state.sampler, samplers.OnlineState):
    return of_prototypes(experiment, state.sampler)
  return estimate(config, subject(experiment, state.params), poll)


def of_prototypes(
  experiment: 'Experiment', state: samplers.OnlineState
) -> density.Density:
  """What the prototypes say of every architecture, or of some drawn ones."""
  space = experiment.space
  archs_AxE = (
    space.enumerate()
    if space.enumerable
    else space.random(
      streams.rng(experiment.config.seed, 'temperature'), SAMPLE
    )
  )
  alpha_of = jax.jit(lookup(experiment.config, space))
  parts = np.array_split(archs_AxE, -(-len(archs_AxE) // 256))
  alpha_A = np.concatenate(
    [alpha_of(state.prototypes, jnp.asarray(part)) for part in parts]
  )
  return density.Density(archs_AxE, alpha_A.astype(np.float64))


def feed_listed(
  experiment: 'Experiment',
  state: samplers.DebiasedState,
  alpha_A: Float[np.ndarray, ' A'],
) -> tuple[samplers.DebiasedState, str]:
  """The sampler's state with this density, and what that does."""
  alpha_A, _ = scaled(experiment.config, alpha_A)
  log_prob = experiment.sampler.log_prob
  undebiased = samplers.with_density(state, 0 * alpha_A, 1.0)
  tau = temperature(
    experiment.config, np.asarray(log_prob(undebiased)), alpha_A
  )
  state = samplers.with_density(state, alpha_A, tau)
  return state, samplers.describe(alpha_A, tau, np.asarray(log_prob(state)))


def feed_online(
  experiment: 'Experiment',
  state: samplers.OnlineState,
  alpha_A: Float[np.ndarray, ' A'],
) -> tuple[samplers.OnlineState, str]:
  """The sampler's state with a temperature for densities such as these."""
  alpha_A, unit = scaled(experiment.config, alpha_A)
  uniform_A = np.full(len(alpha_A), -np.log(len(alpha_A)))
  tau = temperature(experiment.config, uniform_A, alpha_A)
  logits_A = -alpha_A / tau
  logp_A = logits_A - np.logaddexp.reduce(logits_A)
  text = samplers.describe(alpha_A, tau, logp_A)
  return state._replace(tau=np.float32(tau * unit)), text


def scaled(
  config: Config, alpha_A: Float[np.ndarray, ' A']
) -> tuple[Float[np.ndarray, ' A'], float]:
  """The density in the unit of `density.scale`, and that unit."""
  raw = config.density.scale == 'raw'
  unit = 1.0 if raw else float(alpha_A.std()) or 1.0
  return alpha_A / unit, unit


def temperature(
  config: Config,
  logp_A: Float[np.ndarray, ' A'],
  alpha_A: Float[np.ndarray, ' A'],
) -> float:
  """The one given, or the one that leaves the effective fraction asked for."""
  tau, fraction = config.debias.temperature, config.debias.effective_fraction
  if fraction is not None:
    tau = samplers.solve_temperature(logp_A, alpha_A, fraction)
  assert tau is not None  # `config.debiases`
  return tau
