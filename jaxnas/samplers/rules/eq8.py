"""Equation 8: the density under uniform sampling, once.

Roshtkhari et al., "Debiased One-Shot NAS via Density-Aware Sampling", CVPR
Findings 2026: P(a) = softmax_a(-alpha_a / tau). Inferred: the sign is negative,
alpha is the raw density, and the factor multiplies the probability that a
proposal gives the architecture.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxnas.samplers.rules.base import (
  Evidence,
  Factor,
  Rule,
  all_alike,
  effective_number,
  out_of_reach,
)


def eq8(
  *,
  temperature: float | None = None,
  effective_fraction: float | None = None,
  scale: Literal['raw', 'std'] = 'raw',
) -> Rule:
  """Weighs by the densities at a temperature, given or solved for.

  Args:
    temperature: in the unit of the scale.
    effective_fraction: solve for it instead, as `solve_temperature` does.
    scale: 'raw', or 'std' to divide densities by their standard deviation.
  """

  def weigh(logp_A: Float[np.ndarray, ' A'], evidence: Evidence) -> Factor:
    alpha_A = evidence.alpha_A
    unit = 1.0 if scale == 'raw' else float(alpha_A.std()) or 1.0
    alpha_A, tau = alpha_A / unit, temperature
    if effective_fraction is not None:
      tau = solve_temperature(logp_A, alpha_A, effective_fraction)
    assert tau is not None  # `config.debiases`
    return Factor(alpha_A, tau)

  return Rule(weigh)


def solve_temperature(
  logp_A: Float[np.ndarray, ' A'],
  alpha_A: Float[np.ndarray, ' A'],
  fraction: float,
) -> float:
  """Solves for the tau that leaves a fraction of the effective number.

  Not in the paper: a temperature cannot be compared across spaces, tensor sets
  and training stages, while this fraction can. Bisects log tau.

  Args:
    logp_A: the proposal's log-probabilities.
    alpha_A: densities.
    fraction: of the proposal's effective number, in (0, 1]; 1 leaves the
      proposal itself. For a uniform proposal it is a fraction of the space.

  Raises:
    ArithmeticError: no temperature reaches the fraction.
  """
  logp_A = np.asarray(logp_A, np.float64)
  alpha_A = np.asarray(alpha_A, np.float64)
  undebiased = effective_number(logp_A)

  def share(log_tau: float) -> float:
    logits_A = logp_A - (alpha_A - alpha_A.min()) / np.exp(log_tau)
    return effective_number(logits_A - logits_A.max()) / undebiased

  width = np.ptp(alpha_A)
  if width == 0:
    raise all_alike()
  low, high = np.log(width) - 20.0, np.log(width) + 20.0
  if not share(low) <= fraction <= 1:
    raise out_of_reach(fraction, share(low))
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if share(middle) < fraction else (low, middle)
  return float(np.exp((low + high) / 2))
