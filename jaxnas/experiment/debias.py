"""Density within a run: estimated when due, then applied to the sampler."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import config as sections
from jaxnas import density, samplers, spaces
from jaxnas.config import Config, run_files
from jaxnas.experiment import densities, online, sampling, schedule, updates
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files, processes
from jaxnas.training.step import TrainState

# The file that keeps what debiases a run.
FILE = 'debiasing.json'


def check(config: Config, space: spaces.Space, net: Any) -> None:
  """Raises ValueError for a debiasing that cannot be had, before any work.

  Args:
    config: the experiment.
    space: the architectures.
    net: the supernet.
  """
  fraction = config.debias.effective_fraction
  count = space.size if space.enumerable else online.SAMPLE
  # The bound itself may lie on either side of a float.
  if fraction is not None and fraction * count < 1 - 1e-9:
    raise ValueError(
      f'debias.effective_fraction {fraction} of {count} architectures is less '
      f'than one of them: it must be at least {1 / count:.3g}.'
    )
  online.check_fields(config.density, space)
  if (
    config.debiases
    and config.density.file is None
    and online.used(config.density, space)
  ):
    online.check(config, space, net)
    return
  if not (config.debiases or config.density.file is not None):
    return
  if config.debiases and updates.rule(config).similarity:
    densities.check_similarity(config.density, space, net)
  known = densities.known(config.density, space, net)
  uniform = config.sampler.name == 'uniform'
  if known is not None and config.debiases and uniform:
    try:
      alpha_A, tau = updates.of_uniform(
        config, samplers.Evidence(*known[:2], similarity(known, None))
      )
      sampling.check_probabilities(
        jax.nn.log_softmax(-jnp.float32(alpha_A) / jnp.float32(tau))
      )
    except ArithmeticError as error:
      raise ValueError(str(error)) from error


def debias(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
  record: Callable[[dict[str, float]], None] = lambda row: None,
) -> TrainState:
  """Returns the state debiased from this epoch on, where a density is due.

  `record` receives numbers about it.

  Raises FloatingPointError where a density is not finite, ArithmeticError where
  probabilities are not.
  """
  config = experiment.config
  if epoch not in schedule.density_epochs(config):
    return state
  if online.used(config.density, experiment.space) and not config.density.file:
    return _by_prototypes(experiment, state, epoch, workdir, poll, record)
  evidence = found(experiment, state, workdir, poll)
  debiasing = apply_density(experiment, state.sampler, evidence)
  print(describe(debiasing))
  write(experiment, epoch, debiasing, workdir)
  updates.write(experiment, state, evidence, debiasing, workdir)
  return dataclasses.replace(state, sampler=debiasing.state)


def _by_prototypes(
  experiment: Experiment,
  state: TrainState,
  epoch: int,
  workdir: Path,
  poll: Callable[[], None],
  record: Callable[[dict[str, float]], None],
) -> TrainState:
  measured = online.measure(experiment, state, workdir, poll)
  found = online.found(experiment, measured)
  facts = densities.facts(experiment, state, experiment.config.density)
  _check_finite(experiment, found)
  density.save(found, workdir / 'density.npz', facts)
  if measured.spearman is not None:
    record({'density_spearman': measured.spearman})
  debiasing = online.apply(experiment, state.sampler, measured)
  sampling.check_probabilities(debiasing.logp_A)
  print(online.describe(experiment, measured))
  print(describe(debiasing))
  write(experiment, epoch, debiasing, workdir)
  return dataclasses.replace(state, sampler=debiasing.state)


def _check_finite(experiment: Experiment, found: density.Density) -> None:
  if len(bad_B := np.flatnonzero(~np.isfinite(found.alpha_A))):
    arch = experiment.space.format(found.archs_AxE[bad_B[0]])
    raise FloatingPointError(f'the density of {arch} is not finite.')


def found(
  experiment: Experiment,
  state: TrainState,
  workdir: Path,
  poll: Callable[[], None] = lambda: None,
) -> samplers.Evidence:
  """Returns what is known of the architectures at this state.

  The density is that of the run's file where it holds this one, and is
  written there else.
  """
  config, file = experiment.config, workdir / 'density.npz'
  facts = densities.facts(experiment, state, config.density)
  features = None
  if processes.agreed(is_of(file, facts, config.density)):
    estimated = density.load(file, experiment.space.enumerate())
  else:
    features = gathered(experiment, state, workdir, poll)
    estimated = current(experiment, state, poll, features)
    _check_finite(experiment, estimated)
    density.save(estimated, file, facts)
  needed = updates.rule(config).similarity and estimated.distance_P is None
  if needed and features is None:
    features = gathered(experiment, state, workdir, poll)
  return samplers.Evidence(
    *estimated[:2], similarity(estimated, features, poll)
  )


def gathered(
  experiment: Experiment,
  state: TrainState,
  workdir: Path,
  poll: Callable[[], None],
) -> dict[str, np.ndarray] | None:
  """Returns features where they fit the memory, or where a rule needs them."""
  config = experiment.config
  if config.density.file:
    return None
  return densities.vectors(
    config.density,
    densities.snapshot(experiment, state),
    poll,
    spool=workdir if updates.rule(config).similarity else None,
  )


def similarity(
  estimated: density.Density,
  features: dict[str, np.ndarray] | None,
  poll: Callable[[], None] = lambda: None,
) -> density.Similarity | None:
  """Returns mean similarities from distances or features, as far as known."""
  if estimated.distance_P is not None:
    return density.of_distances(estimated.distance_P, len(estimated.alpha_A))
  return None if features is None else density.of_vectors(features, poll)


def is_of(
  file: Path, facts: Mapping[str, Any], given: sections.Density
) -> bool:
  """Returns True if a file holds what would be estimated at this step.

  It does where the run estimated it before it was cut, or where another run
  did, whose warm-up this one took over.
  """
  if given.file or not file.exists():
    return False
  try:
    density.read_file(file, facts)
    return True
  except errors.Damaged:
    return False


def current(
  experiment: Experiment,
  state: TrainState,
  poll: Callable[[], None] = lambda: None,
  features: dict[str, np.ndarray] | None = None,
) -> density.Density:
  """Returns the density at this state: from a file, or estimated.

  Args:
    experiment: the run.
    state: a state of its training.
    poll: called before each block; may raise.
    features: from `densities.vectors`, where they are at hand.
  """
  config, space = experiment.config, experiment.space
  if config.density.file is not None:
    return densities.of_file(config.density, space)
  snapshot = densities.snapshot(experiment, state)
  return densities.estimate(config.density, snapshot, poll, features=features)


def apply_density(
  experiment: Experiment, state: Any, evidence: samplers.Evidence
) -> samplers.Debiasing:
  """Returns the sampler's state with what the rule makes of the evidence."""
  config, apply = experiment.config, experiment.sampler.apply_density
  assert apply is not None  # `config.debiases`
  debiasing = apply(state, evidence, updates.rule(config).weigh)
  sampling.check_probabilities(debiasing.logp_A)
  return debiasing


def write(
  experiment: Experiment,
  epoch: int,
  debiasing: samplers.Debiasing,
  workdir: Path,
) -> None:
  """Writes what debiases from this epoch on: its temperature and extremes."""
  alpha_A, tau = debiasing.factor
  logp_A = np.asarray(debiasing.logp_A, np.float64)
  p_A = np.exp(logp_A)
  files.write_result(
    workdir / FILE,
    {
      'epoch': epoch,
      'temperature': float(tau),
      'effective': float(samplers.effective_number(logp_A)),
      'archs': len(p_A),
      'density': [float(alpha_A.min()), float(alpha_A.max())],
      'probability': [float(p_A.min()), float(p_A.max())],
    },
    {'config': experiment.run_digest},
  )


def read(workdir: Path, of: str) -> dict[str, Any] | None:
  """Reads what `write` wrote for a run of this digest, if it did."""
  file = workdir / FILE
  if not file.exists():
    return None
  return files.read_result(file, run_files.DEBIASING, {'config': of})


def describe(debiasing: samplers.Debiasing) -> str:
  """Returns a line on the effect of debiasing."""
  alpha_A, tau = debiasing.factor
  return samplers.describe(alpha_A, tau, debiasing.logp_A)
