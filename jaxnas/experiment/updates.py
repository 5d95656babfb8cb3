"""updates.npz: the effective updates of architectures, by rule of sampling.

An architecture's effective update is the mean similarity of its gradient to
those that training draws: `update_RxA` under `probability_RxA`, whose effective
number is `fraction_R` of the proposal's. `rule_R` names the proposal and each
rule of debiasing; the run drew by its own at temperature `tau`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxnas import samplers
from jaxnas.config import Config
from jaxnas.config.registry import RULES
from jaxnas.experiment import densities
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import files
from jaxnas.training.step import TrainState

FILE = 'updates.npz'
PROPOSAL = 'proposal'

# Rules that are set side by side, and where.
COMPARED = ('eq8', 'self_consistent')
FRACTIONS = (0.9, 0.7, 0.5, 0.3)


class Updates(NamedTuple):
  """The effective updates under a sampling."""

  rule: str
  fraction: float
  """Its effective number, as a share of the proposal's."""
  p_A: Float[np.ndarray, ' A']
  update_A: Float[np.ndarray, ' A']


def rule(config: Config) -> samplers.Rule:
  """Returns the rule that a config debiases by."""
  given = {**vars(config.debias), 'scale': config.density.scale}
  return RULES.make(config.debias.rule, given, config.debias.options)


def of_uniform(config: Config, evidence: samplers.Evidence) -> samplers.Factor:
  """Returns the factor where the proposal is uniform.

  This is how debiasing went in a run that is over.
  """
  count = len(evidence.alpha_A)
  return rule(config).weigh(np.full(count, -np.log(count)), evidence)


def applied(
  config: Config,
  alpha_A: Float[np.ndarray, ' A'],
  arrays: Mapping[str, np.ndarray] | None,
) -> tuple[Float[np.ndarray, ' A'], float] | None:
  """Returns P and temperature of a run whose proposal was uniform.

  Args:
    config: of the run.
    alpha_A: its densities.
    arrays: of its updates.npz, if it has one.

  None where neither says it.
  """
  if arrays is not None:
    row = [*arrays['rule_R']].index(config.debias.rule)
    return arrays['probability_RxA'][row], float(arrays['tau'])
  if rule(config).similarity:
    return None
  none_AxE = np.zeros((len(alpha_A), 0), int)
  factor = of_uniform(config, samplers.Evidence(none_AxE, alpha_A))
  p_A = np.exp(-(factor.alpha_A - factor.alpha_A.min()) / factor.tau)
  return p_A / p_A.sum(), factor.tau


def change(
  config: Config, arrays: Mapping[str, np.ndarray]
) -> Float[np.ndarray, ' A']:
  """Returns the effective updates of a run less those without debiasing.

  Args:
    config: of the run.
    arrays: of its updates.npz.
  """
  rules, update_RxA = [*arrays['rule_R']], arrays['update_RxA']
  return (
    update_RxA[rules.index(config.debias.rule)]
    - update_RxA[rules.index(PROPOSAL)]
  )


def compare(
  proposal_logp_A: Float[np.ndarray, ' A'],
  evidence: samplers.Evidence,
  fractions: Iterable[float] = FRACTIONS,
) -> list[Updates]:
  """Returns the updates under the proposal, and under each rule.

  A rule stands at each fraction of the proposal's effective number that it
  reaches.

  Args:
    proposal_logp_A: log-probabilities without debiasing.
    evidence: with similarities.
    fractions: of the effective number.
  """
  assert evidence.similarity is not None
  p_A = np.exp(np.asarray(proposal_logp_A, np.float64))
  out = [Updates(PROPOSAL, 1.0, p_A, evidence.similarity.under(p_A))]
  for fraction in fractions:
    for name in COMPARED:
      chosen = RULES.make(name, {'effective_fraction': fraction})
      try:
        factor = chosen.weigh(proposal_logp_A, evidence)
      except ArithmeticError:
        continue
      logp_A = proposal_logp_A - factor.alpha_A / factor.tau
      p_A = np.exp(logp_A - np.logaddexp.reduce(logp_A))
      update_A = evidence.similarity.under(p_A)
      out.append(Updates(name, fraction, p_A, update_A))
  return out


def write(
  experiment: Experiment,
  state: TrainState,
  evidence: samplers.Evidence,
  debiasing: samplers.Debiasing,
  workdir: Path,
) -> None:
  """Writes the updates under the run's sampling, and under the others.

  They are written where similarities are known. The others leave the same
  fraction of the proposal's effective number as the run's own.
  """
  if evidence.similarity is None:
    return
  logp_A = debiasing.proposal_logp_A
  fraction = samplers.effective_number(
    debiasing.logp_A
  ) / samplers.effective_number(logp_A)
  own = experiment.config.debias.rule
  rows = [
    row
    for row in compare(logp_A, evidence, [min(fraction, 1.0)])
    if row.rule != own
  ]
  p_A = np.exp(np.asarray(debiasing.logp_A, np.float64))
  rows.append(Updates(own, fraction, p_A, evidence.similarity.under(p_A)))
  given = experiment.config.density
  files.write_npz(
    workdir / FILE,
    {
      **arrays(evidence.archs_AxE, rows),
      'tau': np.array(debiasing.factor.tau),
    },
    densities.facts(experiment, state, given),
  )


def arrays(archs_AxE: np.ndarray, rows: list[Updates]) -> dict[str, np.ndarray]:
  """Returns updates as arrays for a file."""
  return {
    'archs_AxE': archs_AxE,
    'rule_R': np.array([row.rule for row in rows]),
    'fraction_R': np.array([row.fraction for row in rows]),
    'probability_RxA': np.stack([row.p_A for row in rows]),
    'update_RxA': np.stack([row.update_A for row in rows]),
  }
