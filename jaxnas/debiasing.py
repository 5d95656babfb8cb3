"""Density within a run: estimated when it is due, and fed to the sampler."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxnas import (
  density,
  density_config,
  processes,
  runs,
  samplers,
  streams,
)
from jaxnas.config import Config
from jaxnas.density import prototypes

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState

# Draws of an unlisted space for which a temperature is solved.
SAMPLE = 4096


def debias(
  experiment: 'Experiment',
  state: 'TrainState',
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> 'TrainState':
  """Debiases from here on, where a density is due before this epoch.

  Raises FloatingPointError where one is not finite.
  """
  config = experiment.config
  if epoch not in due(config):
    return state
  file = workdir / 'density.npz'
  facts = density_config.facts(config, int(state.step))
  if processes.agreed(is_of(file, facts, config)):
    estimated = density.load(file, experiment.space.enumerate())
  else:
    estimated = current(experiment, state, poll)
    if len(bad_B := np.flatnonzero(~np.isfinite(estimated.alpha_A))):
      arch = experiment.space.format(estimated.archs_AxE[bad_B[0]])
      raise FloatingPointError(f'the density of {arch} is not finite.')
    density.save(estimated, file, facts)
  fed, text = feed(experiment, state.sampler, estimated.alpha_A)
  print(text)
  return dataclasses.replace(state, sampler=fed)


def is_of(file: Path, facts: Mapping[str, Any], config: Config) -> bool:
  """Whether it holds what would be estimated, after the same step.

  What a run has estimated before it was cut, or another whose warm-up this
  one took over.
  """
  given = config.density
  if given.file or given.estimator == 'prototypes' or not file.exists():
    return False
  try:
    return density.read_file(file)[1] == facts
  except runs.Damaged:
    return False


def due(config: Config) -> range:
  """Epochs before which the density is estimated."""
  first, epochs = config.warmup_epochs, config.epochs if config.debiases else 0
  return range(
    first, first + epochs, config.density.refresh_epochs or epochs or 1
  )


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
  if config.density.estimator == 'prototypes':
    online = samplers.of_archs(state.sampler).density
    return of_prototypes(experiment, online)
  return density_config.estimate(
    config, density_config.subject(experiment, state), poll
  )


def of_prototypes(
  experiment: 'Experiment', state: prototypes.Prototypes
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
  alpha_of = jax.jit(density_config.lookup(experiment.config, space))
  parts = np.array_split(archs_AxE, -(-len(archs_AxE) // 256))
  alpha_A = np.concatenate(
    [alpha_of(state, jnp.asarray(part)) for part in parts]
  )
  return density.Density(archs_AxE, alpha_A.astype(np.float64))


def feed(
  experiment: 'Experiment', state: Any, alpha_A: Float[np.ndarray, ' A']
) -> tuple[Any, str]:
  """The sampler's state with this density, and what that does."""
  within = samplers.of_archs(state)

  def whole(fed):
    return state._replace(archs=fed) if within is not state else fed

  if isinstance(within, samplers.DebiasedState):
    fed, text = feed_exact(
      experiment.config,
      lambda fed: experiment.sampler.log_prob(whole(fed)),
      within,
      alpha_A,
    )
  else:
    fed, text = feed_candidates(experiment.config, within, alpha_A)
  return whole(fed), text


def feed_exact(
  config: Config,
  log_prob: Callable[[samplers.DebiasedState], Any],
  state: samplers.DebiasedState,
  alpha_A: Float[np.ndarray, ' A'],
) -> tuple[samplers.DebiasedState, str]:
  """As `feed`, where every architecture has its exact probability."""
  alpha_A, _ = scaled(config, alpha_A)
  undebiased = samplers.with_density(state, 0 * alpha_A, 1.0)
  tau = temperature(config, np.asarray(log_prob(undebiased)), alpha_A)
  state = samplers.with_density(state, alpha_A, tau)
  return state, samplers.describe(alpha_A, tau, np.asarray(log_prob(state)))


def feed_candidates(
  config: Config,
  state: samplers.CandidatesState,
  alpha_A: Float[np.ndarray, ' A'],
) -> tuple[samplers.CandidatesState, str]:
  """As `feed`, with what choice among candidates would do exactly.

  Prototypes stay as they are, and the temperature suits densities such as
  these. That the proposal is uniform is assumed, and that paths are chosen
  alone: whole steps that belong together are debiased less.
  """
  alpha_A, unit = scaled(config, alpha_A)
  uniform_A = np.full(len(alpha_A), -np.log(len(alpha_A)))
  tau = temperature(config, uniform_A, alpha_A)
  logits_A = -alpha_A / tau
  logp_A = logits_A - np.logaddexp.reduce(logits_A)
  text = samplers.describe(alpha_A, tau, logp_A)
  state = state._replace(tau=jnp.float32(tau * unit))
  if config.density.estimator != 'prototypes':
    state = state._replace(density=jnp.float32(alpha_A * unit))
  return state, text


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
