"""Densities from prototypes: few architectures measured, the others predicted.

For spaces too large to list, and where measuring every architecture takes
longer than training does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnas import config as sections
from jaxnas import density, samplers, spaces, supernets
from jaxnas.config import Config
from jaxnas.density import predictions, prototypes
from jaxnas.density.estimators import inverse_of
from jaxnas.experiment import densities, updates
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime.rng import generator, key
from jaxnas.training.step import TrainState
from jaxnas.truth import correlation

# Number of draws, of a space too large to list, that stand for it.
SAMPLE = 4096


class Measured(NamedTuple):
  """Architectures that were measured, and what they say of the others."""

  archs_MxE: Int[np.ndarray, 'M E']
  gram_MxM: Float[np.ndarray, 'M M']
  """Mean cosines of every two."""
  distance_M: Float[np.ndarray, ' M']
  """Mean distances to the whole space."""
  smoother: predictions.Smoother
  archs_NxE: Int[np.ndarray, 'N E']
  """The space, or draws that stand for it."""
  weight_NxM: Float[np.ndarray, 'N M']
  """Weights of each measured one in the prediction of each of these."""
  spearman: float | None
  """Agreement of distances with what the other architectures predict."""


def used(given: sections.Density, space: spaces.Space) -> bool:
  """Returns True where densities come from prototypes."""
  return given.estimator == 'prototypes' or (
    given.estimator is None and not space.enumerable
  )


def count(given: sections.Density, space: spaces.Space) -> int:
  """Returns how many architectures are measured."""
  return min(given.archs, space.size)


def check_fields(given: sections.Density, space: spaces.Space) -> None:
  """Raises ValueError for fields of prototypes where there are none."""
  default = sections.Density()
  if not used(given, space) and (
    (given.prototypes, given.archs) != (default.prototypes, default.archs)
  ):
    raise ValueError(
      'density.prototypes and density.archs are of density.estimator '
      f'prototypes; {space.name} is listed: set that, or leave them.'
    )


def check(config: Config, space: spaces.Space, net: Any) -> None:
  """Raises ValueError for prototypes that cannot be had, before any work."""
  given = config.density
  archs_AxE = densities.every_op(space)
  params = supernets.shapes(net, archs_AxE[0])['params']
  if not densities.measure(given, net, params, archs_AxE).linear:
    raise ValueError(
      f'density.estimator prototypes clusters unit vectors, which '
      f'density.measure {given.measure} has none of here: use gradient.'
    )


def drawn(experiment: Experiment, state: TrainState) -> Int[np.ndarray, 'N E']:
  """Returns the space, or draws of the proposal that stand for it."""
  space, seed = experiment.space, experiment.config.seed
  if space.enumerable:
    return space.enumerate()
  # Without a temperature any of the candidates is taken.
  undebiased = state.sampler._replace(tau=jnp.float32(jnp.inf))
  paths = samplers.paths(experiment.sampler)
  keys_N = jax.random.split(key(seed, 'prototypes', 0), -(-SAMPLE // paths))
  archs_NxE = jax.jit(
    lambda state: jax.lax.map(
      lambda one: experiment.sampler.sample(state, one), keys_N
    )
  )(undebiased)
  return np.asarray(archs_NxE).reshape(-1, space.positions)[:SAMPLE]


def measure(
  experiment: Experiment,
  state: TrainState,
  spool: Path,
  poll: Callable[[], None] = lambda: None,
) -> Measured:
  """Measures some architectures on the held-out images at this state.

  Args:
    experiment: whose net and images they are.
    state: a state of its training.
    spool: a folder for features beyond the memory.
    poll: called before each block; may raise.
  """
  given, space = experiment.config.density, experiment.space
  rng = generator(experiment.config.seed, 'prototypes')
  archs_NxE = drawn(experiment, state)
  every_UxE = np.unique(archs_NxE, axis=0)
  few = min(count(given, space), len(every_UxE))
  rows = np.sort(rng.choice(len(every_UxE), few, replace=False))
  archs_MxE = every_UxE[rows]
  snapshot = densities.snapshot(experiment, state, archs_MxE)
  features = densities.vectors(given, snapshot, poll, spool=spool)
  assert features is not None  # `check`
  gram_MxM = prototypes.gram(features, poll)
  smoother = predictions.choose(space.codes(archs_MxE), gram_MxM)
  weight_NxM = predictions.weights(smoother, space.codes(archs_NxE))
  # Those that were measured stand for themselves.
  at_N, at_M = np.nonzero(_same(archs_NxE, archs_MxE))
  weight_NxM[at_N] = np.eye(few)[at_M]
  cluster_M = prototypes.cluster(gram_MxM, given.prototypes, rng)
  share_M = shares(weight_NxM, np.full(len(archs_NxE), 1 / len(archs_NxE)))
  distance_M = prototypes.distances(gram_MxM, cluster_M, share_M)
  if space.enumerable:
    # To the others: an architecture's distance to itself is zero.
    distance_M *= space.size / (space.size - 1)
  return Measured(
    archs_MxE,
    gram_MxM,
    distance_M,
    smoother,
    archs_NxE,
    weight_NxM,
    correlation.spearman(
      predictions.left_out(smoother, distance_M), distance_M
    ),
  )


def shares(
  weight_NxM: Float[np.ndarray, 'N M'], p_N: Float[np.ndarray, ' N']
) -> Float[np.ndarray, ' M']:
  """Returns the share of the space that each measured one stands for."""
  share_M = np.maximum(p_N @ weight_NxM, 1e-12)
  return share_M / share_M.sum()


def of_all(measured: Measured) -> Float[np.ndarray, ' N']:
  """Returns the densities of all architectures, or of those that stand for
  them."""
  distance_N = measured.weight_NxM @ measured.distance_M
  # A prediction may fall below all that was measured, even below zero.
  return inverse_of(distance_N, max(measured.distance_M.min() / 2, 1e-12))


def found(experiment: Experiment, measured: Measured) -> density.Density:
  """Returns the densities of a listed space, else those measured."""
  if experiment.space.enumerable:
    return density.Density(measured.archs_NxE, of_all(measured))
  return density.Density(measured.archs_MxE, inverse_of(measured.distance_M))


def describe(experiment: Experiment, measured: Measured) -> str:
  """Returns a line on what was measured, and how far it predicts the rest."""
  given, space = experiment.config.density, experiment.space
  few = len(measured.archs_MxE)
  text = 'unknown' if measured.spearman is None else f'{measured.spearman:.3f}'
  return (
    f'{few} of {space.size:.6g} architectures in '
    f'{min(given.prototypes, few)} prototypes; Spearman of densities with what '
    f'the others predict {text}'
  )


def apply(
  experiment: Experiment, state: Any, measured: Measured
) -> samplers.Debiasing:
  """Returns the sampler's state debiased by what was measured."""
  config, space = experiment.config, experiment.space
  assert experiment.sampler.apply_density is not None  # `config.debiases`
  rule, alpha_N = updates.rule(config), of_all(measured)
  evidence = samplers.Evidence(measured.archs_NxE, alpha_N)
  if space.enumerable and not rule.similarity:
    return experiment.sampler.apply_density(state, evidence, rule.weigh)
  on_some = samplers.Evidence(
    measured.archs_MxE,
    inverse_of(measured.distance_M),
    density.of_matrix(measured.gram_MxM),
  )
  # The rule weighs those that were measured, each for the share of the proposal
  # that it stands for; its factor is what is predicted for the others.
  logp_N = np.full(len(alpha_N), -np.log(len(alpha_N)))
  if (listed := experiment.sampler.log_prob(_undebiased(state))) is not None:
    logp_N = np.asarray(listed, np.float64)
  share_M = shares(measured.weight_NxM, np.exp(logp_N))
  factor = rule.weigh(np.log(share_M), on_some)
  dense_N = measured.weight_NxM @ factor.alpha_A
  fraction = config.debias.effective_fraction

  def weigh(logp_N, evidence):
    tau = factor.tau
    if fraction is not None:
      tau = samplers.solve_temperature(logp_N, evidence.alpha_A, fraction)
    return samplers.Factor(evidence.alpha_A, tau)

  return experiment.sampler.apply_density(
    state,
    evidence._replace(
      alpha_A=dense_N,
      predictor=predictions.predictor(measured.smoother, factor.alpha_A),
    ),
    weigh,
  )


def _undebiased(state: Any) -> Any:
  """Returns a sampler's state with a temperature that changes nothing."""
  within = samplers.archs_state(state)
  plain = within._replace(tau=jnp.float32(jnp.inf))
  return plain if within is state else state._replace(archs=plain)


def _same(
  archs_NxE: Int[np.ndarray, 'N E'], archs_MxE: Int[np.ndarray, 'M E']
) -> np.ndarray:
  return (archs_NxE[:, None] == archs_MxE).all(axis=2)
