"""Whether the fields of a Config are in range and agree with each other."""

import dataclasses

from jaxnas.config import (
  ALTERNATIVES,
  Config,
  Data,
  Density,
  Ranking,
  flatten,
  types,
)

# Of counts, which steps are too: int32. Of numbers: float32.
MOST = 2**31 - 1
LARGEST = 3.4e38

# Where the upper end is neither, more would not fit any machine.
RANGES: dict[str, tuple[float, float]] = {
  'seed': (0, 2**32 - 1),
  'warmup_epochs': (0, MOST),
  'epochs': (0, MOST),
  'data.train_fraction': (0, 1),
  'data.batch_size': (1, MOST),
  'data.holdout': (1, MOST),
  'data.crop_padding': (0, MOST),
  'data.size': (8, 8192),
  'data.workers': (0, 4096),
  'supernet.bn_groups': (1, MOST),
  'sampler.paths': (1, 65536),
  'sampler.cost_bins': (1, MOST),
  'sampler.rebuilds': (1, MOST),
  'sampler.members': (2, 65536),
  'sampler.reward_every': (1, MOST),
  'debias.effective_fraction': (0, 1),
  'debias.candidates': (1, 65536),
  'density.prototypes': (2, 65536),
  'density.log_epochs': (1, MOST),
  'density.batches': (1, MOST),
  'density.batch_size': (2, MOST),
  'density.refresh_epochs': (1, MOST),
  'optimizer.peak_lr': (0, LARGEST),
  'optimizer.floor_lr': (0, LARGEST),
  'optimizer.momentum': (0, 1),
  'optimizer.weight_decay': (0, LARGEST),
  'optimizer.label_smoothing': (0, 1),
  'optimizer.lr_warmup_steps': (0, MOST),
  'ranking.images': (1, MOST),
  'ranking.archs': (2, MOST),
  'ranking.batch_size': (2, MOST),
  'ranking.calibration_batches': (1, MOST),
  'ranking.every_epochs': (1, MOST),
  'ranking.sample': (2, MOST),
  'mesh.data': (1, 65536),
  'mesh.paths': (1, 65536),
  'checkpoint.every_epochs': (1, MOST),
  'checkpoint.keep': (1, MOST),
  'logging.every_steps': (1, MOST),
  'retrain.epochs': (1, MOST),
  'retrain.seeds': (1, MOST),
  'retrain.ema_decay': (0, 1),
}

POSITIVE = (
  'checkpoint.every_minutes',
  'data.train_fraction',
  'debias.temperature',
  'debias.effective_fraction',
  'density.bandwidth',
  'density.memory_gb',
  'optimizer.clip_norm',
)

# (field, what it belongs to, and the values at which that uses it)
USED_WITH = (
  ('density.tensors', 'density.measure', 'gradient'),
  ('density.combine', 'density.measure', 'gradient'),
  ('density.absent', 'density.measure', 'gradient'),
  ('density.layers', 'density.measure', 'representational'),
  ('density.unbiased', 'density.measure', 'representational'),
  ('density.outputs', 'density.measure', 'functional'),
  ('density.bandwidth', 'density.estimator', 'kde'),
  ('density.prototypes', 'density.estimator', 'prototypes'),
  ('density.lookup', 'density.estimator', 'prototypes'),
  ('ranking.calibration_batches', 'ranking.bn', 'recalibrate'),
  ('sampler.cost_bins', 'sampler.name', 'uniform'),
  ('sampler.variant', 'sampler.name', 'importance', 'tree'),
  ('sampler.rebuilds', 'sampler.variant', 'iterative', 'hierarchical'),
  ('sampler.members', 'sampler.name', 'mixture'),
)


def validate(config: Config) -> None:
  """Raises ValueError, one line, where fields are out of range or at odds."""
  types.check(config)
  flat = flatten(config)
  for name, (low, high) in RANGES.items():
    if flat[name] is not None:
      within(name, flat[name], low, high)
  for name in POSITIVE:
    if flat[name] is not None:
      above_zero(name, flat[name])
  debias, density, data = config.debias, config.density, config.data
  for section, fields in ALTERNATIVES:
    given = [
      f'{section}.{field}'
      for field in fields
      if flat[f'{section}.{field}'] is not None
    ]
    if len(given) > 1:
      raise ValueError(
        f'{" and ".join(given)} exclude each other: set one of them to None.'
      )
  if data.train_fraction is None and data.holdout is None:
    raise ValueError('set one of data.train_fraction and data.holdout.')
  if data.name != 'imagenet':
    for name in ('size', 'workers', 'on_error'):
      if getattr(data, name) != getattr(Data, name):
        raise ValueError(
          f'data.{name} is of imagenet; data {data.name} does not use it.'
        )
  elif data.crop_padding:
    raise ValueError(
      'data.crop_padding is of images in memory; imagenet is cropped at '
      'random anyway.'
    )
  untouched = flatten(Config())
  for name, owner, *values in USED_WITH:
    if flat[name] != untouched[name] and flat[owner] not in values:
      raise ValueError(
        f'{name} is of {owner} {" and ".join(values)}; {owner} {flat[owner]} '
        'does not use it.'
      )
  if config.sampler.variant in ('iterative', 'hierarchical') and not (
    config.warmup_epochs and config.epochs
  ):
    raise ValueError(
      f'sampler.variant {config.sampler.variant} builds its tree after the '
      'warm-up: set warmup_epochs and epochs above 0.'
    )
  if debias.baseline and not config.debiases:
    raise ValueError(
      'debias.baseline needs debiasing: set debias.temperature or '
      'debias.effective_fraction.'
    )
  if density.file is not None and density.log_epochs is None:
    only = Density(file=density.file, scale=density.scale)
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
  if density.estimator == 'prototypes' and (
    density.measure,
    density.combine,
    density.absent,
  ) != ('gradient', 'mean', 'zero'):
    raise ValueError(
      'density.estimator prototypes clusters the gradients of training: it '
      'needs density.measure gradient, density.combine mean and density.absent '
      'zero.'
    )
  among = config.sampler.name == 'fair' or density.estimator == 'prototypes'
  fraction = debias.effective_fraction
  if among and fraction is not None and fraction * debias.candidates < 1:
    raise ValueError(
      f'debias.effective_fraction {fraction} is below 1 / '
      f'debias.candidates, the least that {debias.candidates} candidates '
      'can leave: raise either.'
    )
  if density.estimator == 'prototypes' and config.debiases:
    if density.file is not None:
      raise ValueError(
        'density.file replaces density.estimator prototypes: leave that at '
        'its default.'
      )
    if config.warmup_epochs == 0:
      raise ValueError(
        'density.estimator prototypes learns in the warm-up: set '
        'warmup_epochs above 0.'
      )
  if density.unbiased and density.batch_size < 4:
    raise ValueError(
      f'density.unbiased needs a density.batch_size of 4, not '
      f'{density.batch_size}.'
    )
  if config.ranking.sample != Ranking.sample and (
    config.ranking.every_epochs is None
  ):
    raise ValueError(
      'ranking.sample is of ranking.every_epochs: set that, or leave it.'
    )
  if config.ranking.bn == 'running' and not config.supernet.bn_running:
    raise ValueError(
      'ranking.bn running needs statistics that training kept: set '
      'supernet.bn_running before it, or ranking.bn recalibrate.'
    )
  if config.optimizer.nesterov and config.optimizer.momentum == 0:
    raise ValueError('optimizer.nesterov needs optimizer.momentum above 0.')
  if config.optimizer.floor_lr > config.optimizer.peak_lr:
    raise ValueError(
      f'optimizer.floor_lr {config.optimizer.floor_lr} is above '
      f'optimizer.peak_lr {config.optimizer.peak_lr}.'
    )
  _check_parts(config)


def _check_parts(config: Config) -> None:
  """Raises ValueError where batch, groups and mesh do not divide."""
  batch, groups = config.data.batch_size, config.supernet.bn_groups
  devices, paths = config.mesh.data, config.mesh.paths
  for name, parts in (('supernet.bn_groups', groups), ('mesh.data', devices)):
    if batch % parts:
      raise ValueError(
        f'data.batch_size {batch} does not divide into {name} {parts} equal '
        'parts.'
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
    raise ValueError(
      f'mesh.paths {paths} with mesh.data {devices} needs at least as many '
      f'supernet.bn_groups, not {groups}: devices on different paths cannot '
      'wait for each other.'
    )


def _shown(value: int | float) -> str:
  if isinstance(value, int) and abs(value) >= 10**40:
    # Python refuses to write some of them out.
    return f'an integer of {value.bit_length()} bits'
  return repr(value)


def without_unused(config: Config, section: str) -> Config:
  """The config with those fields of a section at their defaults that the
  chosen method does not use."""
  untouched = flatten(Config())
  for name, owner, *values in USED_WITH:
    prefix, _, field = name.partition('.')
    if prefix == section and flatten(config)[owner] not in values:
      fields = dataclasses.replace(
        getattr(config, section), **{field: untouched[name]}
      )
      config = dataclasses.replace(config, **{section: fields})
  return config


def within(
  name: str, value: int | float, low: int | float, high: int | float
) -> None:
  """Raises ValueError where it is not in [low, high], in which NaN never is."""
  if low <= value <= high:
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


def at_least_one(name: str, value: int) -> None:
  """Raises ValueError where fewer are asked for, or more than are counted."""
  within(name, value, 1, MOST)


def at_most(name: str, value: int, most: int, unit: str) -> None:
  """Raises ValueError where more are asked for than there are."""
  if value > most:
    raise ValueError(f'{name} is {value}; there are {most} {unit}.')
