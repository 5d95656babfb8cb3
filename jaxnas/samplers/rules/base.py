"""The contract of a rule: from what is known of architectures to a factor."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas.density.similarity import Similarity


class Evidence(NamedTuple):
  """Facts about the architectures that a rule weighs."""

  archs_AxE: Int[np.ndarray, 'A E']
  alpha_A: Float[np.ndarray, ' A']
  """Densities, under uniform sampling."""
  similarity: Similarity | None = None
  """Their mean similarity under any sampling; None where no rule needs it."""
  predictor: Any = None
  """Arrays from which a sampler looks up the factor of any architecture, where
  these stand for a space too large to list."""


class Factor(NamedTuple):
  """P(a) is proportional to proposal(a) * exp(-alpha_a / tau)."""

  alpha_A: Float[np.ndarray, ' A']
  tau: float


class Rule(NamedTuple):
  """A pure function, and what it needs.

  weigh: (logp_A, evidence) -> Factor, for the proposal's log-probabilities
  similarity: True where it reads `Evidence.similarity`
  """

  weigh: Callable[[Float[np.ndarray, ' A'], Evidence], Factor]
  similarity: bool = False


def effective_number(logp_A: Float[np.ndarray, ' A']) -> float:
  """1 / sum P^2: A when uniform, 1 when collapsed on one architecture."""
  p_A = np.exp(np.asarray(logp_A, np.float64))
  return float(p_A.sum() ** 2 / np.square(p_A).sum())


def out_of_reach(fraction: float, least: float) -> ArithmeticError:
  """Returns the error of a fraction that no temperature leaves."""
  return ArithmeticError(
    f'debias.effective_fraction {fraction} is below {least:.3g}, what the '
    'lowest temperature leaves.'
  )


def all_alike() -> ArithmeticError:
  """Returns the error of densities that do not differ."""
  return ArithmeticError(
    'every architecture has the same density: no temperature debiases. '
    'Choose another density.measure or other density.tensors.'
  )
