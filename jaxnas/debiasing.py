"""Density within a run: estimated when it is due, and fed to the sampler."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxnas import density, density_config, samplers, streams
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
  """Debiases from here on, where a density is due before this epoch."""
  config = experiment.config
  since = epoch - config.warmup_epochs
  every = config.density.refresh_epochs
  due = since == 0 or (every is not None and since > 0 and since % every == 0)
  if not (config.debiases and due and config.epochs):
    return state
  estimated = current(experiment, state, poll)
  density.save(
    estimated,
    workdir / 'density.npz',
    density_config.facts(config, int(state.step)),
  )
  if isinstance(state.sampler, samplers.DebiasedState):
    fed, text = feed_exact(experiment, state.sampler, estimated.alpha_A)
  else:
    fed, text = feed_candidates(experiment, state.sampler, estimated.alpha_A)
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
  if config.density.estimator == 'prototypes':
    return of_prototypes(experiment, state.sampler.density)
  return density_config.estimate(
    config, density_config.subject(experiment, state.params), poll
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


def feed_exact(
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


def feed_candidates(
  experiment: 'Experiment',
  state: samplers.CandidatesState,
  alpha_A: Float[np.ndarray, ' A'],
) -> tuple[samplers.CandidatesState, str]:
  """The sampler's state with this density, and what that would do exactly.

  Prototypes stay as they are, and the temperature suits densities such as
  these. That the proposal is uniform is assumed.
  """
  alpha_A, unit = scaled(experiment.config, alpha_A)
  uniform_A = np.full(len(alpha_A), -np.log(len(alpha_A)))
  tau = temperature(experiment.config, uniform_A, alpha_A)
  logits_A = -alpha_A / tau
  logp_A = logits_A - np.logaddexp.reduce(logits_A)
  text = samplers.describe(alpha_A, tau, logp_A)
  state = state._replace(tau=np.float32(tau * unit))
  if experiment.config.density.estimator != 'prototypes':
    state = state._replace(density=np.float32(alpha_A * unit))
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
