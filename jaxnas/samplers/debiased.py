"""Density-aware sampling: dense architectures are drawn less often.

What counts as dense is for a rule to say: see `jaxnas.samplers.rules`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Debiasing, Measurements, Sampler, draw
from jaxnas.samplers.rules import effective_number

# Fractions of the space, by effective number, beyond which a run warns.
NEARLY_UNIFORM = 0.99
NEARLY_COLLAPSED = 0.05


class DebiasedState(NamedTuple):
  """Density and temperature are data, so that new ones recompile nothing."""

  proposal: Any
  alpha_A: Float[Array, ' A']
  tau: Float[Array, '']


def debiased(
  proposal: Sampler, archs_AxE: Int[np.ndarray, 'A E'], *, paths: int = 1
) -> Sampler:
  """Draws with P(a) proportional to proposal(a) * exp(-alpha_a / tau).

  The density starts at zero, which leaves the proposal itself for the warm-up;
  `apply_density` sets it. Costs O(A) a step.

  >>> from jaxnas import samplers, spaces
  >>> space = spaces.get('pooling')
  >>> sampler = debiased(samplers.uniform(space), space.enumerate())
  >>> dense_A = np.where(np.arange(36) < 18, 1.0, 9.0)
  >>> state = with_density(sampler.init(), dense_A, tau=2.0)
  >>> print(jnp.exp(sampler.log_prob(state))[17:19].round(3))
  [0.055 0.001]
  """
  all_AxE = jnp.asarray(archs_AxE)

  def init():
    return DebiasedState(
      proposal=proposal.init(),
      alpha_A=jnp.zeros(len(archs_AxE), jnp.float32),
      tau=jnp.ones((), jnp.float32),
    )

  def log_prob(state):
    logits_A = proposal.log_prob(state.proposal) - state.alpha_A / state.tau
    return jax.nn.log_softmax(logits_A)

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  def update(state, feedback):
    proposal_state = proposal.update(state.proposal, feedback)
    return state._replace(proposal=proposal_state)

  def apply_density(state, evidence, weigh):
    undebiased = with_density(state, 0 * evidence.alpha_A, 1.0)
    before_A = np.asarray(log_prob(undebiased))
    factor = weigh(before_A, evidence)
    # Only alpha / tau counts here, whatever their unit.
    state = with_density(state, factor.alpha_A, factor.tau)
    return Debiasing(state, factor, before_A, np.asarray(log_prob(state)))

  return proposal._replace(
    init=init,
    sample=sample,
    log_prob=log_prob,
    update=update,
    rebuild=rebuilt_inside(proposal),
    apply_density=apply_density,
  )


def rebuilt_inside(
  proposal: Sampler,
) -> Callable[[Any, Measurements], Any] | None:
  """`Sampler.rebuild` for states that hold a proposal's state as `proposal`."""
  rebuild = proposal.rebuild
  return rebuild and (
    lambda state, measurements: state._replace(
      proposal=rebuild(state.proposal, measurements)
    )
  )


def with_density(
  state: DebiasedState, alpha_A: Float[np.ndarray, ' A'], tau: float
) -> DebiasedState:
  """Returns the state that debiases by these densities at this temperature."""
  return state._replace(
    alpha_A=jnp.asarray(alpha_A, jnp.float32), tau=jnp.float32(tau)
  )


def describe(
  alpha_A: Float[np.ndarray, ' A'],
  tau: float,
  logp_A: Float[Array, ' A'] | Float[np.ndarray, ' A'],
) -> str:
  """One line on the debiased probabilities, with a warning at extremes."""
  p_A = np.exp(np.asarray(logp_A, np.float64))
  number = effective_number(np.asarray(logp_A))
  share = number / len(p_A)
  text = (
    f'density {alpha_A.min():.3g} to {alpha_A.max():.3g}, '
    f'temperature {tau:.3g}: probabilities {p_A.min():.2g} to '
    f'{p_A.max():.2g}, effectively {number:.1f} of {len(p_A)} architectures'
  )
  if share > NEARLY_UNIFORM:
    text += (
      '\nwarning: this is nearly uniform sampling; lower debias.temperature '
      'or choose other density.tensors'
    )
  if share < NEARLY_COLLAPSED:
    text += (
      '\nwarning: a few architectures get nearly all training; raise '
      'debias.temperature'
    )
  return text
