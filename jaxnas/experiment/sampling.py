"""The sampler that a config asks for."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxnas import density, samplers, spaces
from jaxnas.config import Config, Debias
from jaxnas.config.registry import SAMPLERS
from jaxnas.experiment import online


def sampler(
  config: Config, space: spaces.Space, net: Any, steps_per_epoch: int
) -> samplers.Sampler:
  """Returns a proposal that can be debiased; until then it samples as it is.

  Args:
    config: the experiment.
    space: the architectures.
    net: the supernet; of a mixture, one of its members.
    steps_per_epoch: under the config's budget.

  Raises ValueError where the proposal cannot serve the space, no density can
  be had of so large a one, or an option is asked for that nothing uses.
  """
  made = debiasable(
    config, space, net, proposal(config, space, steps_per_epoch)
  )
  if config.sampler.name == 'mixture':
    made = samplers.mixture(
      made,
      space,
      members=config.sampler.members,
      warmup_steps=config.warmup_epochs * steps_per_epoch,
      steps=config.total_epochs * steps_per_epoch,
    )
  if config.sampler.reward_every != 1 and not made.rewards:
    raise ValueError(
      'sampler.reward_every is of samplers that read rewards; '
      f'{config.sampler.name} reads none.'
    )
  return made


def steps_per_epoch(config: Config, space: spaces.Space, batches: int) -> int:
  """Returns the steps of an epoch under the config's budget.

  Args:
    config: the experiment.
    space: the architectures.
    batches: number of batches in the training images.

  Raises ValueError as `proposal` does.
  """
  if config.sampler.budget == 'steps':
    return batches
  paths = samplers.paths(proposal(config, space, batches))
  return max(round(batches / (paths + config.distils)), 1)


def proposal(
  config: Config, space: spaces.Space, steps_per_epoch: int
) -> samplers.Sampler:
  """Returns the proposal, whose probabilities debiasing multiplies.

  Raises ValueError where it cannot serve the space.
  """
  epochs = config.total_epochs
  options = {
    **dataclasses.asdict(config.sampler),
    'steps_per_epoch': steps_per_epoch,
    'epochs': epochs,
    'warmup_steps': config.warmup_epochs * steps_per_epoch,
    'steps': epochs * steps_per_epoch,
    'clip_norm': config.optimizer.clip_norm,
  }
  if config.sampler.variant is None:
    # The sampler's own default.
    del options['variant']
  return SAMPLERS.make(
    config.sampler.name, {**options, 'space': space}, config.sampler.options
  )


def debiasable(
  config: Config, space: spaces.Space, net: Any, proposal: samplers.Sampler
) -> samplers.Sampler:
  """Returns the proposal, with a state that holds density and temperature.

  Raises ValueError where no density can be had of so large a space, or where
  candidates are asked for that are not chosen among.
  """
  source, fraction = None, config.debias.effective_fraction
  if not space.enumerable and online.used(config.density, space):
    source = samplers.predicted_densities(
      space, online.count(config.density, space)
    )
  elif config.debiases and not space.enumerable:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for the '
      'density of each: set density.estimator prototypes.'
    )
  elif proposal.together and space.enumerable:
    source = samplers.listed_densities(space)
  if source is not None:
    candidates = config.debias.candidates
    if fraction is not None and fraction * candidates < 1:
      raise ValueError(
        f'debias.effective_fraction {fraction} is below 1 / '
        f'debias.candidates, the least that {candidates} candidates '
        'can leave: raise either.'
      )
    return samplers.among_candidates(proposal, source, candidates=candidates)
  if config.debias.candidates != Debias.candidates:
    raise ValueError(
      'debias.candidates is of spaces too large to list and of sampler '
      'fair; elsewhere every architecture has its exact probability.'
    )
  if not space.enumerable:
    return proposal
  return samplers.debiased(
    proposal, space.enumerate(), paths=config.sampler.paths
  )


def check_state(made: samplers.Sampler, state: Any) -> None:
  """Raises ArithmeticError where a sampler's probabilities are not finite."""
  logp_A = jax.jit(made.log_prob)(state)
  if logp_A is not None:
    check_probabilities(logp_A)


def check_probabilities(logp_A: Any) -> None:
  """Raises ArithmeticError where a probability is not finite."""
  count = int((~np.isfinite(np.exp(np.asarray(logp_A)))).sum())
  if count:
    raise ArithmeticError(
      f'the probabilities of {count} of {len(logp_A)} architectures are not '
      'finite: raise debias.temperature, or choose another sampler.'
    )


def check_outputs(
  config: Config, net: Any, archs_AxF: Int[np.ndarray, 'A F'], batch: int
) -> None:
  """Raises ValueError where outputs to cluster do not fit the memory.

  Args:
    config: of the experiment.
    net: the supernet.
    archs_AxF: all architectures, as the net takes them.
    batch: images that each is looked at with.
  """
  if config.sampler.variant == 'hierarchical':
    size = density.feature_bytes(
      density.functional(), net, {}, len(archs_AxF), 1, batch
    )
    if size > config.density.memory_gb * 1e9:
      raise ValueError(
        f'sampler.variant hierarchical clusters {size / 1e9:.3g} GB of '
        f'outputs, more than density.memory_gb {config.density.memory_gb:g}: '
        'raise that, or use variant iterative.'
      )


def check_paths(config: Config, paths: int) -> None:
  """Raises ValueError where a mesh cannot share so many paths evenly."""
  if paths % config.mesh.paths:
    raise ValueError(
      f'mesh.paths {config.mesh.paths} does not divide the {paths} '
      f'architectures of a step of sampler {config.sampler.name}: set '
      'mesh.paths or sampler.paths.'
    )
