"""Checks that the fields of a Config are in range and agree with each other.

Ranges and owners stand beside the fields (`jaxnas.config.fields`); here are
the rules that need several fields.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from annotated_types import Interval

from jaxnas.config import fields, trusted, types
from jaxnas.config.experiment import ALTERNATIVES, Config
from jaxnas.config.fields import LARGEST, MOST, SMALLEST
from jaxnas.config.files import flatten
from jaxnas.config.method import Debias, Density
from jaxnas.config.registry import COMBINATIONS
from jaxnas.config.sections import Optimizer, Ranking


def validate(config: Config) -> None:
  """Raises ValueError, one line, where fields are out of range or at odds."""
  types.check(config)
  flat = flatten(config)
  check_ranges('', Config, flat)
  for section, kind in fields.sections(Config):
    check_ranges(f'{section}.', kind, flat)
    check_owners(f'{section}.', kind, flat)
    for field, registry in fields.registries(kind):
      registry.check(flat[f'{section}.{field}'])
      registry.options(flat[f'{section}.{field}'], flat[f'{section}.options'])
  check_alternatives(flat)
  trusted.check_functions(flat)
  debias, density, data = config.debias, config.density, config.data
  if data.train_fraction is None and data.holdout is None:
    raise ValueError('set one of data.train_fraction and data.holdout.')
  if data.name == 'imagenet' and data.crop_padding:
    raise ValueError(
      'data.crop_padding is of images in memory; imagenet is cropped at '
      'random anyway.'
    )
  if config.sampler.variant in ('iterative', 'hierarchical') and not (
    config.warmup_epochs and config.epochs
  ):
    raise ValueError(
      f'sampler.variant {config.sampler.variant} builds its tree after the '
      'warm-up: set warmup_epochs and epochs above 0.'
    )
  if not config.debiases and (
    (debias.rule, debias.options) != (Debias.rule, Debias.options)
  ):
    raise ValueError(
      f'debias.rule {debias.rule} needs debiasing: set debias.temperature or '
      'debias.effective_fraction.'
    )
  if debias.baseline and not config.debiases:
    raise ValueError(
      'debias.baseline needs debiasing: set debias.temperature or '
      'debias.effective_fraction.'
    )
  if density.file is None and density.file_digest is not None:
    raise ValueError(
      f'density.file_digest {density.file_digest:.80} is of no density.file: '
      'a run writes it down by itself, leave it None.'
    )
  if density.file is not None and density.log_epochs is None:
    only = Density(
      file=density.file,
      file_digest=density.file_digest,
      scale=density.scale,
    )
    if density != only:
      raise ValueError(
        'density.file replaces the estimate: leave the other density fields, '
        'but for density.scale, at their defaults.'
      )
  if density.absent == 'skip' and density.combine == 'concatenate':
    raise ValueError(
      'density.absent skip averages over tensors: it needs '
      'density.combine mean.'
    )
  if density.estimator == 'prototypes' and density.absent == 'skip':
    raise ValueError(
      'density.estimator prototypes clusters vectors: it needs density.absent '
      'zero.'
    )
  if density.unbiased and density.batch_size < 4:
    raise ValueError(
      f'density.unbiased needs a density.batch_size of 4, not '
      f'{density.batch_size}.'
    )
  if config.ensemble > 1 and debias.baseline:
    raise ValueError(
      'ensemble is of one training, and debias.baseline adds another: give one '
      'of them.'
    )
  if config.ranking.sample != Ranking.sample and (
    config.ranking.every_epochs is None
  ):
    raise ValueError(
      'ranking.sample is of ranking.every_epochs: set that, or leave it.'
    )
  for step in config.ranking.steps:
    COMBINATIONS.check(step)
  if config.ranking.bn == 'running' and not config.supernet.bn_running:
    raise ValueError(
      'ranking.bn running needs statistics that training kept: set '
      'supernet.bn_running before it, or ranking.bn recalibrate.'
    )
  if config.ranking.average == 'ema' and config.optimizer.ema_decay is None:
    raise ValueError(
      'ranking.average ema needs a moving average that training kept: set '
      'optimizer.ema_decay before it, or ranking.average weights.'
    )
  if (epochs := config.snapshot_epochs) and (
    epochs[0] < max(config.warmup_epochs, 1)
  ):
    raise ValueError(
      f'ranking.snapshots {config.ranking.snapshots} would begin after epoch '
      f'{epochs[0]}, before the warm-up of {config.warmup_epochs} ends: lower '
      'it, or ranking.snapshot_epochs.'
    )
  if config.optimizer.nesterov and config.optimizer.momentum == 0:
    raise ValueError('optimizer.nesterov needs optimizer.momentum above 0.')
  if config.optimizer.name == 'adamw' and (
    config.optimizer.peak_lr == Optimizer.peak_lr
  ):
    raise ValueError(
      f'optimizer.peak_lr {Optimizer.peak_lr} is the default of sgd, with '
      'which adamw diverges: give its own, such as optimizer.peak_lr 0.001.'
    )
  if config.optimizer.distill is not None and config.sampler.name == 'mixture':
    raise ValueError(
      'optimizer.distill learns from the largest architecture of one supernet; '
      'sampler mixture trains several: choose another sampler.name.'
    )
  if config.optimizer.floor_lr > config.optimizer.peak_lr:
    raise ValueError(
      f'optimizer.floor_lr {config.optimizer.floor_lr} is above '
      f'optimizer.peak_lr {config.optimizer.peak_lr}.'
    )
  _check_parts(config)
  _check_members(config)


def check_ranges(prefix: str, section: type, flat: dict) -> None:
  """Raises ValueError where a field is out of its range."""
  for field, interval in fields.ranges(section):
    if (value := flat[f'{prefix}{field}']) is not None:
      check_range(f'{prefix}{field}', value, interval)


def check_range(name: str, value: int | float, interval: Interval) -> None:
  """Raises ValueError where a value is not in the interval, or 0 in float32.

  An interval ends at a number above, and below at a number, or above 0.
  """
  # annotated_types allows bounds of any kind.
  ends: Any = interval
  if ends.gt == 0 and (ends.le == LARGEST or not value > 0):
    above_zero(name, value)
  else:
    within(name, value, ends.ge or 0, ends.le)


def check_owners(prefix: str, section: type, flat: dict) -> None:
  """Raises ValueError where a field is set that nothing uses."""
  for field, owner, values in fields.owners(section):
    chosen = flat[f'{prefix}{owner}']
    if flat[f'{prefix}{field}'] != getattr(section, field) and (
      chosen not in values
    ):
      raise ValueError(
        f'{prefix}{field} is of {prefix}{owner} '
        f'{" and ".join(filter(None, values))}; '
        f'{prefix}{owner} {chosen} does not use it.'
      )


def check_alternatives(flat: dict) -> None:
  """Raises ValueError where two fields are set of which one replaces the
  other."""
  for section, names in ALTERNATIVES:
    given = [
      f'{section}.{field}'
      for field in names
      if flat[f'{section}.{field}'] is not None
    ]
    if len(given) > 1:
      raise ValueError(
        f'{" and ".join(given)} exclude each other: set one of them to None.'
      )


def without_replaced(config: Config, values: Mapping[str, Any]) -> Config:
  """Returns the config without what fields that are given now replace.

  Args:
    config: the values so far.
    values: what is given, by 'section.field'; None replaces nothing.
  """
  given = {name for name, value in values.items() if value is not None}
  for section, names in ALTERNATIVES:
    if any(f'{section}.{field}' in given for field in names):
      dropped: dict[str, Any] = {
        field: None for field in names if f'{section}.{field}' not in given
      }
      left = dataclasses.replace(getattr(config, section), **dropped)
      config = dataclasses.replace(config, **{section: left})
  if 'density.file' in values:
    # The digest is of the file that the config named.
    left = dataclasses.replace(config.density, file=None, file_digest=None)
    if 'density.file' in given and 'density.log_epochs' not in given:
      # It replaces the file's estimate, however that would have been made.
      left = Density(scale=config.density.scale)
    config = dataclasses.replace(config, density=left)
  return config


def _check_parts(config: Config) -> None:
  """Raises ValueError where batch, groups and mesh do not divide."""
  batch, groups = config.data.batch_size, config.supernet.bn_groups
  devices, paths = config.mesh.data, config.mesh.paths
  for name, parts in (('supernet.bn_groups', groups), ('mesh.data', devices)):
    if rest := batch % parts:
      less, more = batch - rest, batch - rest + parts
      fitting = f'{less} or {more}' if less else str(more)
      raise ValueError(
        f'data.batch_size {batch} does not divide into {name} {parts} equal '
        f'parts; {fitting} does.'
      )
  if groups > 1 and batch < 2 * groups:
    raise ValueError(
      f'supernet.bn_groups {groups} of data.batch_size {batch} have '
      f'{batch // groups} image each; statistics need 2.'
    )
  if groups % devices and devices % groups:
    raise ValueError(
      f'supernet.bn_groups {groups} and mesh.data {devices}: one must be a '
      'multiple of the other.'
    )
  if paths > 1 and groups % devices:
    needs = [f'supernet.bn_groups {devices}']
    if config.sampler.name != 'fair' and config.sampler.paths % paths:
      needs.append(f'sampler.paths {paths}')
    raise ValueError(
      f'mesh.paths {paths} with mesh.data {devices} and supernet.bn_groups '
      f'{groups}: devices on different paths cannot wait for each other; give '
      f'{" and ".join(needs)}.'
    )


def _check_members(config: Config) -> None:
  """Raises ValueError where members are to train at once that cannot."""
  members, mesh = config.mesh.members or 1, config.mesh
  if members > config.ensemble:
    raise ValueError(
      f'mesh.members {members} is more than the ensemble of {config.ensemble}: '
      f'leave it out, or set ensemble {members}.'
    )
  if members > 1 and mesh.data * mesh.paths > 1:
    raise ValueError(
      f'mesh.members {members} gives each member one device, and mesh.data '
      f'{mesh.data} times mesh.paths {mesh.paths} asks for '
      f'{mesh.data * mesh.paths}: leave one of them out.'
    )


def _shown(value: int | float) -> str:
  if isinstance(value, int) and abs(value) >= 10**40:
    # Python refuses to write some of them out.
    return f'an integer of {value.bit_length()} bits'
  return repr(value)


def without_unused(config: Config, section: str) -> Config:
  """Returns the config with a section's fields at their defaults where the
  chosen method does not use them."""
  given = getattr(config, section)
  # One after the other: the owner of a field may be without use itself.
  for field, owner, values in fields.owners(type(given)):
    if getattr(given, owner) not in values:
      unused = {field: getattr(type(given), field)}
      given = dataclasses.replace(given, **unused)
  return dataclasses.replace(config, **{section: given})


def within(
  name: str, value: int | float, low: int | float, high: int | float
) -> None:
  """Raises ValueError where it is not in [low, high], in which NaN never is."""
  if low <= value <= high:
    _not_rounded_to_0(name, value)
    return
  allowed = f'in [{low}, {high}]'
  if high in (MOST, LARGEST):
    allowed = f'at most {high}' if value > high else f'at least {low}'
  raise ValueError(f'{name} is {_shown(value)}; it must be {allowed}.')


def above_zero(name: str, value: int | float) -> None:
  """Raises ValueError where it is not, or is infinite or NaN."""
  if not 0 < value <= LARGEST:
    raise ValueError(
      f'{name} is {_shown(value)}; it must be above 0'
      + (f', and at most {LARGEST}.' if value > LARGEST else '.')
    )
  _not_rounded_to_0(name, value)


def _not_rounded_to_0(name: str, value: int | float) -> None:
  """Raises ValueError where it is 0 in float32, in which it is used."""
  if 0 < value < SMALLEST:
    raise ValueError(
      f'{name} is {value!r}, which is 0 in float32: it must be at least '
      f'{SMALLEST}.'
    )


def at_least_one(name: str, value: int) -> None:
  """Raises ValueError where fewer are asked for, or more than are counted."""
  within(name, value, 1, MOST)


def at_most(name: str, value: int, most: int, unit: str) -> None:
  """Raises ValueError where more are asked for than there are."""
  if value > most:
    raise ValueError(f'{name} is {value}; there are {most} {unit}.')
