"""The schedule of a run: the one place that decides which epoch does what.

Epoch n is the moment before the n-th epoch of training, counted from 0, and
after n epochs are done; the last one is the end of the run.
"""

import math

from jaxnas.config import Config
from jaxnas.nn import target
from jaxnas.training import loop

# Number of times that a tree is built, where the config does not say it
# (Roshtkhari et al. 2025: up to 4 times; one clustering is inferred).
REBUILDS = {'iterative': 4, 'hierarchical': 1}


def estimates_density(config: Config) -> bool:
  """Returns True if densities are estimated from held-out images.

  They are not where a file gives them, or where nobody asks.
  """
  given = config.density
  return given.file is None and (
    config.debiases or given.log_epochs is not None
  )


def steps_per_dispatch(
  config: Config, steps_per_epoch: int, *, streamed: bool
) -> int:
  """Returns how many steps one program does.

  Between two programs a run logs, saves and estimates densities.

  Args:
    config: the experiment.
    steps_per_epoch: the number of its steps.
    streamed: images arrive batch by batch, one for each program.

  Raises ValueError where the number that is asked for does not fit.
  """
  asked, every = config.mesh.steps_per_dispatch, config.logging.every_steps
  most = 1 if streamed else math.gcd(steps_per_epoch, every)
  if asked is None:
    return 1 if target.backend() == 'cpu' else most
  if most % asked:
    why = (
      'streamed images arrive batch by batch'
      if streamed
      else f'an epoch has {steps_per_epoch} steps, and a row of '
      f'logging.every_steps {every}'
    )
    fitting = ', '.join(str(n) for n in range(1, most + 1) if most % n == 0)
    raise ValueError(
      f'mesh.steps_per_dispatch {asked} does not divide what lies between two '
      f'of them: {why}. It may be {fitting}.'
    )
  return asked


def density_epochs(config: Config) -> range:
  """Returns the epochs before which the sampler gets a density."""
  first, epochs = config.warmup_epochs, config.epochs if config.debiases else 0
  every = config.density.refresh_epochs or epochs or 1
  return range(first, first + epochs, every)


def rebuild_epochs(config: Config) -> set[int]:
  """Returns the epochs before which a tree is built anew.

  The first is the end of the warm-up, and the others follow evenly.
  """
  if config.sampler.variant not in REBUILDS:
    return set()
  times = config.sampler.rebuilds or REBUILDS[config.sampler.variant]
  return {
    config.warmup_epochs + index * config.epochs // times
    for index in range(times)
  }


def logs_density(config: Config, epoch: int) -> bool:
  """Returns True if the density log gets a row after this many epochs.

  It does every `density.log_epochs`, after the warm-up and at the end.
  """
  every, ends = config.density.log_epochs, config.total_epochs
  return every is not None and (
    epoch % every == 0 or epoch in (config.warmup_epochs, ends)
  )


def reports_ranking(config: Config, epoch: int) -> bool:
  """Returns True if some architectures are ranked after this many epochs.

  They are every `ranking.every_epochs` and at the end.
  """
  every, ends = config.ranking.every_epochs, config.total_epochs
  return (
    every is not None and epoch > 0 and (epoch % every == 0 or epoch == ends)
  )


def kept_epochs(config: Config) -> tuple[int, ...]:
  """Returns the epochs after which a checkpoint is saved, and always stays."""
  return (config.warmup_epochs, *config.snapshot_epochs)


def of_training(config: Config, steps_per_epoch: int) -> loop.Schedule:
  """Returns the steps of a run, and which of them are logged and saved."""
  return loop.Schedule(
    steps_per_epoch=steps_per_epoch,
    epochs=config.total_epochs,
    log_every=config.logging.every_steps,
    save_every=config.checkpoint.every_epochs,
    also_save=kept_epochs(config),
    save_minutes=config.checkpoint.every_minutes,
  )


def of_stand_alone(config: Config, steps_per_epoch: int) -> loop.Schedule:
  """Returns the same for an architecture that is trained alone."""
  return loop.Schedule(
    steps_per_epoch=steps_per_epoch,
    epochs=config.retrain.epochs,
    log_every=config.logging.every_steps,
    save_every=config.checkpoint.every_epochs,
    save_minutes=config.checkpoint.every_minutes,
  )
