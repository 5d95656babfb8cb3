"""Density-aware sampling: dense architectures are drawn less often.

Roshtkhari et al., "Debiased One-Shot NAS via Density-Aware Sampling", CVPR
Findings 2026, eq. 8: P(a) = softmax_a(-alpha_a / tau). That the sign is
negative, alpha raw and the factor multiplies a proposal's probability is
inferred.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Measurements, Sampler, draw

# Shares of the space, as effective number, beyond which a run warns.
NEARLY_UNIFORM = 0.99
NEARLY_COLLAPSED = 0.05


class DebiasedState(NamedTuple):
  """Density and temperature are data: nothing recompiles after the warm-up."""

  proposal: Any
  alpha_A: Float[Array, ' A']
  tau: Float[Array, '']


def debiased(
  proposal: Sampler, archs_AxE: Int[np.ndarray, 'A E'], *, paths: int = 1
) -> Sampler:
  """P(a) proportional to proposal(a) * exp(-alpha_a / tau), renormalised.

  The density starts at zero, where this is the proposal itself: the state of
  the warm-up. `with_density` sets it. Costs O(A) a step.

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

  return proposal._replace(
    init=init,
    sample=sample,
    log_prob=log_prob,
    update=update,
    rebuild=rebuilt_inside(proposal),
  )


def rebuilt_inside(
  proposal: Sampler,
) -> Callable[[Any, Measurements], Any] | None:
  """`Sampler.rebuild` of what keeps a proposal's state as `proposal`."""
  rebuild = proposal.rebuild
  return rebuild and (
    lambda state, measurements: state._replace(
      proposal=rebuild(state.proposal, measurements)
    )
  )


def with_density(
  state: DebiasedState, alpha_A: Float[np.ndarray, ' A'], tau: float
) -> DebiasedState:
  """The state that debiases with these densities at this temperature."""
  return state._replace(
    alpha_A=jnp.asarray(alpha_A, jnp.float32), tau=jnp.float32(tau)
  )


def effective_number(logp_A: Float[np.ndarray, ' A']) -> float:
  """1 / sum P^2: A when uniform, 1 when collapsed on one architecture."""
  p_A = np.exp(np.asarray(logp_A, np.float64))
  return float(p_A.sum() ** 2 / np.square(p_A).sum())


def solve_temperature(
  logp_A: Float[np.ndarray, ' A'],
  alpha_A: Float[np.ndarray, ' A'],
  fraction: float,
) -> float:
  """The tau that leaves this share of the proposal's effective number.

  Not in the paper: a temperature means nothing across spaces, tensor sets and
  training stages, while this share does. Bisection on log tau.

  Args:
    logp_A: the proposal's log-probabilities.
    alpha_A: densities.
    fraction: in (0, 1]; 1 is the proposal itself. Of a uniform proposal it is
      a share of the space.

  Raises:
    ArithmeticError: the share lies outside what any temperature reaches.
  """
  logp_A = np.asarray(logp_A, np.float64)
  alpha_A = np.asarray(alpha_A, np.float64)
  whole = effective_number(logp_A)

  def share(log_tau: float) -> float:
    logits_A = logp_A - (alpha_A - alpha_A.min()) / np.exp(log_tau)
    return effective_number(logits_A - logits_A.max()) / whole

  spread = np.ptp(alpha_A)
  if spread == 0:
    raise ArithmeticError(
      'every architecture has the same density: no temperature debiases. '
      'Choose another density.measure or other density.tensors.'
    )
  low, high = np.log(spread) - 20.0, np.log(spread) + 20.0
  if not share(low) <= fraction <= 1:
    raise ArithmeticError(
      f'debias.effective_fraction {fraction} is below {share(low):.3g}, '
      'what the lowest temperature leaves.'
    )
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if share(middle) < fraction else (low, middle)
  return float(np.exp((low + high) / 2))


def describe(
  alpha_A: Float[np.ndarray, ' A'],
  tau: float,
  logp_A: Float[Array, ' A'] | Float[np.ndarray, ' A'],
) -> str:
  """What the debiased softmax does, and a warning where it does nothing."""
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
