"""What a Config says of sampling, as a sampler."""

import dataclasses
import functools
import inspect
from typing import Any

from flax.traverse_util import flatten_dict

from jaxnas import density_config, names, samplers, spaces, supernets
from jaxnas.config import Config, Debias
from jaxnas.density import prototypes, tensors


def sampler(
  config: Config, space: spaces.Space, net: Any, steps_per_epoch: int
) -> samplers.Sampler:
  """A proposal, ready to be debiased: until then it is the proposal.

  Args:
    config: of the experiment.
    space: of the architectures.
    net: the supernet, of a mixture one of its members.
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
  """Steps of an epoch under the config's budget.

  Args:
    config: of the experiment.
    space: of the architectures.
    batches: of as many images as there are to train on.

  Raises ValueError as `proposal` does.
  """
  if config.sampler.budget == 'steps':
    return batches
  paths = samplers.paths(proposal(config, space, batches))
  return max(round(batches / paths), 1)


def proposal(
  config: Config, space: spaces.Space, steps_per_epoch: int
) -> samplers.Sampler:
  """What debiasing multiplies, given those options that it names.

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
  names.check('sampler.name', config.sampler.name, samplers.PROPOSALS)
  make = samplers.PROPOSALS[config.sampler.name]
  named = inspect.signature(make).parameters
  return make(
    space, **{name: v for name, v in options.items() if name in named}
  )


def debiasable(
  config: Config, space: spaces.Space, net: Any, proposal: samplers.Sampler
) -> samplers.Sampler:
  """The proposal, with a state that density and temperature can be put in.

  Raises ValueError where no density can be had of so large a space, or where
  candidates are asked for that are not chosen among.
  """
  densities = None
  if config.density.estimator == 'prototypes':
    chosen, dimension = clustered(config, space, net)
    densities = samplers.clustered(
      functools.partial(
        prototypes.init, config.density.prototypes, dimension, space.positions
      ),
      density_config.lookup(config, space),
      chosen,
    )
  elif config.debiases and not space.enumerable:
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures, too many for the '
      'density of each: set density.estimator prototypes.'
    )
  elif proposal.together and space.enumerable:
    densities = samplers.listed(space)
  if densities is not None:
    return samplers.among_candidates(
      proposal, densities, candidates=config.debias.candidates
    )
  if config.debias.candidates != Debias.candidates:
    raise ValueError(
      'debias.candidates is of density.estimator prototypes and of sampler '
      'fair; elsewhere every architecture has its exact probability.'
    )
  if not space.enumerable:
    return proposal
  return samplers.debiased(
    proposal, space.enumerate(), paths=config.sampler.paths
  )


def clustered(
  config: Config, space: spaces.Space, net: Any
) -> tuple[tuple[str, ...], int]:
  """Tensors whose gradients prototypes cluster, and how long they are.

  Raises ValueError where an architecture does without one of them.
  """
  archs_OxE = density_config.every_op(space)
  params = supernets.shapes(net, archs_OxE[0])['params']
  chosen = tensors.select(net, params, archs_OxE, config.density.tensors)
  if lacking := {*chosen} - tensors.used_by_all(net, params, archs_OxE):
    raise ValueError(
      f'density.estimator prototypes compares what every architecture trains; '
      f'{min(lacking)} is not: choose other density.tensors.'
    )
  by_name: dict[str, Any] = flatten_dict(params, sep='/')
  return chosen, sum(by_name[name].size for name in chosen)
