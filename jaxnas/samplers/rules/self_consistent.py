"""Self-consistent sampling: equation 8 carried to its end.

Equation 8 measures density under uniform sampling, and then samples otherwise.
Here the density is the one under the sampling itself: with lambda = 1 / tau,
the mean similarities C P of `jaxnas.density.similarity` and a proposal Q, the
probabilities are the fixed point

    P(a)  proportional to  Q(a) exp(-lambda (C P)_a),

the minimum over the simplex of F(P) = lambda/2 P'CP + sum_a P_a log(P_a/Q_a).
The first undamped step from uniform sampling is softmax of mean similarity,
which is how equation 8 begins. As lambda grows, P tends to the shortest mean
update that mixes the units: no other direction serves the architecture that is
worst off as well (Desideri's MGDA). Not in any paper that we know of.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxnas.density.similarity import Similarity
from jaxnas.samplers.rules.base import (
  Evidence,
  Factor,
  Rule,
  all_alike,
  effective_number,
  out_of_reach,
)

# Probabilities have converged where a step would move no more than this of
# their sum; rounding may allow less.
TOLERANCE = 1e-9
MOST_ITERATIONS = 10_000

# A fraction is met to this part of it.
PRECISION = 1e-4

# Doublings of lambda, and how little a share may still fall in one of them
# before it counts as the least that there is.
DOUBLINGS = 60
STALLED = 1e-4


class Solution(NamedTuple):
  """A fixed point."""

  logp_A: Float[np.ndarray, ' A']
  update_A: Float[np.ndarray, ' A']
  """(C P)_a: log P is log Q - lambda times this, normalised."""
  iterations: int


def self_consistent(
  *,
  temperature: float | None = None,
  effective_fraction: float | None = None,
  scale: Literal['raw', 'std'] = 'raw',
) -> Rule:
  """Weighs by the mean similarity under the sampling that this leads to.

  Args:
    temperature: 1 / lambda, in the unit of the scale.
    effective_fraction: bisect for it instead, until 1 / sum P^2 is this share
      of what it is under the proposal.
    scale: 'raw', or 'std' to divide similarities by their standard deviation
      under the proposal.
  """

  def weigh(logp_A: Float[np.ndarray, ' A'], evidence: Evidence) -> Factor:
    similarity = evidence.similarity
    assert similarity is not None  # `Rule.similarity`
    logq_A = normalised(np.asarray(logp_A, np.float64))
    unit = 1.0
    if scale == 'std':
      unit = float(similarity.under(np.exp(logq_A)).std()) or 1.0
    if effective_fraction is not None:
      strength, found = solve_fraction(logq_A, similarity, effective_fraction)
    else:
      assert temperature is not None  # `config.debiases`
      strength = 1 / (temperature * unit)
      found = solve(logq_A, similarity, strength)
    return Factor(found.update_A / unit, 1 / (strength * unit))

  return Rule(weigh, similarity=True)


def solve(
  logq_A: Float[np.ndarray, ' A'],
  similarity: Similarity,
  strength: float,
  start_A: Float[np.ndarray, ' A'] | None = None,
) -> Solution:
  """Returns the fixed point for a lambda, in O(A D) an iteration.

  Steps are damped, log P <- (1 - eta) log P + eta (log Q - lambda C P) with
  eta = 1 / (1 + 0.3 lambda) at first, halved where F rises and lengthened
  where it falls.

  Args:
    logq_A: log-probabilities of the proposal; -inf where it never draws.
    similarity: gives C P.
    strength: lambda.
    start_A: log-probabilities to start from; None: the proposal.

  Raises ArithmeticError where it does not converge.
  """
  # What the proposal never draws stays out of the arithmetic.
  drawn_A = np.isfinite(logq_A)
  logq_N = logq_A[drawn_A]
  tolerance = max(TOLERANCE, strength * similarity.rounding)

  def state(logp_N):
    """Returns log P, P, C P and the gradient of F at these probabilities."""
    p_A = np.zeros(len(logq_A))
    p_A[drawn_A] = p_N = np.exp(logp_N)
    update_A = similarity.under(p_A)
    slope_N = strength * update_A[drawn_A] + logp_N - logq_N
    # A constant is no slope, as probabilities sum to one.
    return logp_N, p_N, update_A, slope_N - p_N @ slope_N

  logp_N, p_N, update_A, slope_N = state(
    (logq_A if start_A is None else start_A)[drawn_A]
  )
  eta, residual = 1 / (1 + 0.3 * strength), np.inf
  for iteration in range(MOST_ITERATIONS):
    target_N = normalised(logq_N - strength * update_A[drawn_A])
    residual = np.abs(np.exp(target_N) - p_N).sum()
    if residual <= tolerance:
      logp_A = np.full(len(logq_A), -np.inf)
      logp_A[drawn_A] = target_N
      return Solution(logp_A, update_A, iteration)
    after = state(normalised((1 - eta) * logp_N + eta * target_N))
    # F itself rounds to more than what the last steps change: its slopes at
    # both ends say whether it rises between them.
    moved_N = after[1] - p_N
    if (slope_N + after[-1]) @ moved_N > 0:
      eta /= 2
      continue
    logp_N, p_N, update_A, slope_N = after
    eta = min(1.5 * eta, 1.0)
  raise ArithmeticError(
    f'self-consistent sampling has not converged in {MOST_ITERATIONS} '
    f'iterations at temperature {1 / strength:.3g}: a step still moves '
    f'{residual:.1e} of the probability. Raise debias.temperature or '
    'debias.effective_fraction.'
  )


def solve_fraction(
  logq_A: Float[np.ndarray, ' A'], similarity: Similarity, fraction: float
) -> tuple[float, Solution]:
  """Bisects for the lambda that leaves a fraction of the effective number.

  Returns lambda and its fixed point. Raises ArithmeticError where no lambda
  leaves so little.
  """
  undebiased = effective_number(logq_A)
  spread = float(similarity.under(np.exp(logq_A))[np.isfinite(logq_A)].std())
  if spread <= similarity.rounding:
    raise all_alike()

  def share(found: Solution) -> float:
    return effective_number(found.logp_A) / undebiased

  low, high = 0.0, 1 / spread
  found = solve(logq_A, similarity, high)
  for _ in range(DOUBLINGS):
    before = share(found)
    if before <= fraction:
      break
    low, high = high, 2 * high
    found = solve(logq_A, similarity, high, found.logp_A)
    if fraction < share(found) > (1 - STALLED) * before:
      raise out_of_reach(fraction, share(found))
  strength = high
  while abs(share(found) / fraction - 1) > PRECISION:
    strength = np.sqrt(low * high) if low else high / 4
    if high - low < 1e-9 * high or strength * spread < 1e-9:
      break
    found = solve(logq_A, similarity, strength, found.logp_A)
    low, high = (strength, high) if share(found) > fraction else (low, strength)
  return float(strength), found


def normalised(logp_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Returns log-probabilities whose exponentials sum to one."""
  return logp_A - np.logaddexp.reduce(logp_A)
