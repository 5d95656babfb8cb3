"""Density-aware sampling by choice among candidates.

For spaces too large to list, and for proposals whose architectures belong
together. That architectures are drawn so is inferred; eq. 8 is Roshtkhari et
al. (CVPR Findings 2026).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from jaxnas.density import prototypes
from jaxnas.samplers.base import Feedback, Sampler, deaf, index_of
from jaxnas.samplers.debiased import rebuilt_inside
from jaxnas.spaces import Space


class Densities(NamedTuple):
  """Where a candidate's density comes from: pure functions over a state."""

  init: Callable[[], Any]
  lookup: Callable[[Any, Array], Array]
  """(state, archs_MxE) -> alpha_M"""
  update: Callable[[Any, Feedback], Any] = deaf
  gradients: bool = False
  """As `Sampler.gradients`."""


class CandidatesState(NamedTuple):
  """The temperature is data: nothing recompiles after the warm-up."""

  proposal: Any
  density: Any
  """alpha_A of a space that can be listed, or `Prototypes`."""
  tau: Float[Array, '']


def listed(space: Space) -> Densities:
  """Of every architecture of a space; their state is alpha_A, zero at first."""
  index = index_of(space)
  return Densities(
    init=lambda: jnp.zeros(space.size, jnp.float32),
    lookup=lambda alpha_A, archs_MxE: alpha_A[index(archs_MxE)],
  )


def clustered(
  init: Callable[[], prototypes.Prototypes],
  lookup: Callable[[prototypes.Prototypes, Array], Array],
  tensors: tuple[str, ...],
) -> Densities:
  """Of prototypes of the gradients of `tensors`, which all of them train."""

  def update(state, feedback: Feedback):
    flat: dict[str, Any] = flatten_dict(feedback.gradient, sep='/')
    point_D = prototypes.point({name: flat[name] for name in tensors})
    return prototypes.update(state, feedback.arch_E, point_D)

  return Densities(init, lookup, update, gradients=True)


def among_candidates(
  proposal: Sampler, densities: Densities, *, candidates: int
) -> Sampler:
  """P(a) roughly proportional to proposal(a) * exp(-alpha_a / tau).

  Each path takes one of `candidates` draws of the proposal; the more there
  are, the closer to that product. Where a step's architectures belong
  together, whole steps are the candidates, weighted by the product of their
  factors. The temperature starts infinite, where this is the proposal: the
  state of the warm-up, in which prototypes learn from the first step.

  Args:
    proposal: what candidates are drawn from.
    densities: theirs.
    candidates: M.
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
    return state._replace(
      proposal=proposal.update(state.proposal, feedback),
      density=densities.update(state.density, feedback),
    )

  return proposal._replace(
    init=init,
    sample=sample,
    log_prob=lambda state: None,
    update=update,
    gradients=proposal.gradients or densities.gradients,
    rebuild=rebuilt_inside(proposal),
  )
