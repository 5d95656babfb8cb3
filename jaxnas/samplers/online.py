"""Density-aware sampling where the space is too large to list.

Roshtkhari et al. (CVPR Findings 2026) estimate densities online from
prototypes; how architectures are then drawn is inferred: one of M candidates
of the proposal, by eq. 8 over their densities.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from jaxnas.density import prototypes
from jaxnas.samplers.base import Feedback, Sampler


class OnlineState(NamedTuple):
  """The temperature is data: nothing recompiles after the warm-up."""

  proposal: Any
  prototypes: prototypes.Prototypes
  tau: Float[Array, '']


def online(
  proposal: Sampler,
  init_prototypes: Callable[[], prototypes.Prototypes],
  lookup: Callable[[prototypes.Prototypes, Array], Array],
  tensors: tuple[str, ...],
  *,
  candidates: int,
) -> Sampler:
  """P(a) roughly proportional to proposal(a) * exp(-alpha_a / tau).

  Each path takes one of `candidates` draws of the proposal; the more there
  are, the closer to that product. The temperature starts infinite, where this
  is the proposal: prototypes learn from the first step, and the state of the
  warm-up differs in the temperature alone.

  Args:
    proposal: what candidates are drawn from.
    init_prototypes: their state, for gradients of `tensors`.
    lookup: (prototypes, archs_MxE) -> alpha_M.
    tensors: names of tensors that every architecture trains.
    candidates: M, of each path.
  """

  def init():
    return OnlineState(
      proposal=proposal.init(),
      prototypes=init_prototypes(),
      tau=jnp.full((), jnp.inf, jnp.float32),
    )

  def sample(state, key):
    draw_key, choice_key = jax.random.split(key)
    archs_MxPxE = jax.vmap(lambda one: proposal.sample(state.proposal, one))(
      jax.random.split(draw_key, candidates)
    )
    shape_MxP = archs_MxPxE.shape[:2]
    alpha_MxP = lookup(
      state.prototypes, archs_MxPxE.reshape(-1, archs_MxPxE.shape[-1])
    ).reshape(shape_MxP)
    chosen_P = jax.random.categorical(
      choice_key, -alpha_MxP / state.tau, axis=0
    )
    return archs_MxPxE[chosen_P, jnp.arange(shape_MxP[1])]

  def update(state, feedback: Feedback):
    flat: dict[str, Any] = flatten_dict(feedback.gradient, sep='/')
    point_D = prototypes.point({name: flat[name] for name in tensors})
    return state._replace(
      proposal=proposal.update(state.proposal, feedback),
      prototypes=prototypes.update(state.prototypes, feedback.arch_E, point_D),
    )

  return Sampler(init, sample, lambda state: None, update)
