"""Density-aware sampling by choice among candidates.

It serves spaces too large to list, and proposals whose architectures belong
together. This way of drawing is inferred; eq. 8 is Roshtkhari et al. (CVPR
Findings 2026).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.density import predictions
from jaxnas.samplers.base import Debiasing, Feedback, Sampler, index_of
from jaxnas.samplers.debiased import rebuilt_inside
from jaxnas.samplers.rules import Evidence
from jaxnas.spaces import Space


class Densities(NamedTuple):
  """Source of candidates' densities: pure functions over a state."""

  init: Callable[[], Any]
  lookup: Callable[[Any, Array], Array]
  """(state, archs_MxE) -> alpha_M"""
  apply: Callable[[Evidence, Array], Any]
  """(evidence, alpha_A) -> state, after a rule has weighed it"""


class CandidatesState(NamedTuple):
  """The temperature is data, so that a new one recompiles nothing."""

  proposal: Any
  density: Any
  """Densities alpha_A of a listed space, or a `predictions.Predictor`."""
  tau: Float[Array, '']


def listed_densities(space: Space) -> Densities:
  """Looks densities up in alpha_A of a listed space, which starts at zero."""
  index = index_of(space)
  return Densities(
    init=lambda: jnp.zeros(space.size, jnp.float32),
    lookup=lambda alpha_A, archs_MxE: alpha_A[index(archs_MxE)],
    apply=lambda _, alpha_A: alpha_A,
  )


def predicted_densities(space: Space, measured: int) -> Densities:
  """Predicts densities from those of the architectures that were measured.

  Args:
    space: one that may be too large to list.
    measured: how many architectures are.
  """
  one_1xE = np.zeros((1, space.positions), np.int32)
  codes = space.codes(one_1xE).shape[1]
  return Densities(
    init=lambda: predictions.blank(measured, codes),
    lookup=lambda given, archs_MxE: predictions.predict(
      given, space.codes(archs_MxE)
    ),
    apply=lambda evidence, _: evidence.predictor,
  )


def among_candidates(
  proposal: Sampler, densities: Densities, *, candidates: int
) -> Sampler:
  """Draws roughly in proportion to proposal(a) * exp(-alpha_a / tau).

  Each path takes one of `candidates` draws of the proposal; the more there
  are, the closer the probabilities come to that product. Where a step's
  architectures belong together, whole steps are the candidates, weighted by the
  product of their factors. The temperature starts infinite, which leaves the
  proposal itself for the warm-up.

  Args:
    proposal: sampler that candidates are drawn from.
    densities: source of the candidates' densities.
    candidates: M, draws for each path.
  """

  def init():
    return CandidatesState(
      proposal=proposal.init(),
      density=densities.init(),
      tau=jnp.full((), jnp.inf, jnp.float32),
    )

  def sample(state, key):
    draw_key, choice_key = jax.random.split(key)
    archs_MxPxE = jax.vmap(lambda one: proposal.sample(state.proposal, one))(
      jax.random.split(draw_key, candidates)
    )
    shape_MxP = archs_MxPxE.shape[:2]
    alpha_MxP = densities.lookup(
      state.density, archs_MxPxE.reshape(-1, archs_MxPxE.shape[-1])
    ).reshape(shape_MxP)
    logits_MxP = -alpha_MxP / state.tau
    if proposal.together:
      return archs_MxPxE[jax.random.categorical(choice_key, logits_MxP.sum(1))]
    chosen_P = jax.random.categorical(choice_key, logits_MxP, axis=0)
    return archs_MxPxE[chosen_P, jnp.arange(shape_MxP[1])]

  def update(state, feedback: Feedback):
    return state._replace(proposal=proposal.update(state.proposal, feedback))

  def apply_density(state, evidence, weigh):
    # The proposal is taken for uniform, and paths for chosen alone: whole steps
    # that belong together are debiased less.
    count = len(evidence.alpha_A)
    before_A = np.full(count, -np.log(count))
    factor = weigh(before_A, evidence)
    logits_A = -factor.alpha_A / factor.tau
    state = state._replace(
      density=densities.apply(evidence, jnp.float32(factor.alpha_A)),
      tau=jnp.float32(factor.tau),
    )
    logp_A = logits_A - np.logaddexp.reduce(logits_A)
    return Debiasing(state, factor, before_A, logp_A)

  return proposal._replace(
    init=init,
    sample=sample,
    log_prob=lambda state: None,
    update=update,
    rebuild=rebuilt_inside(proposal),
    apply_density=apply_density,
  )
