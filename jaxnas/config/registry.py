"""The lists of what a config can name: samplers, rules, measures, ...

An entry is a name and a `module:function`, which is imported when it is asked
for: this module imports no JAX. To add one is to write the function and a
line here, or, from outside the package, one call of `add`:

    registry.SAMPLERS.add('mine', 'my_module:make_sampler', options=MyOptions)

`options` is a frozen dataclass of its own settings, whose values a config
gives as `Sampler(name='mine', options={'strength': 2.0})` and the command line
as `--sampler.options strength 2.0`. The function receives an instance of it
as the argument `options`.

A function is called with those of the values on offer that its signature
names: an option that it does not name is none of its own.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxnas.config import trusted, types
from jaxnas.runtime import suggestions


class Entry(NamedTuple):
  """A function by its address, and the dataclass of its own options."""

  address: str
  options: type | None = None


class Registry:
  """Functions by name, imported when they are asked for.

  Args:
    field: the config's field that names an entry, for messages.
    addresses: a `module:function` by name.
  """

  def __init__(self, field: str, addresses: Mapping[str, str]) -> None:
    self.field = field
    self._entries = {name: Entry(at) for name, at in addresses.items()}

  def __iter__(self) -> Iterator[str]:
    """Yields the names."""
    return iter(self._entries)

  def add(self, name: str, address: str, options: type | None = None) -> None:
    """Adds an entry, in place of one with this name."""
    self._entries[name] = Entry(address, options)
    trusted.own(self.field, name, address.partition(':')[0])

  def remove(self, name: str) -> None:
    """Takes an entry out again."""
    del self._entries[name]

  def check(self, name: str, field: str | None = None) -> None:
    """Raises ValueError, with the nearest name, where there is none such."""
    suggestions.check(field or self.field, name, [*self])

  def takes_options(self, name: str) -> bool:
    """Returns True if an entry has options of its own."""
    return self._entries[name].options is not None

  def get(self, name: str) -> Any:
    """Imports what stands at an entry's address, as a rule a function.

    Raises ValueError where there is no such entry, or nothing at its address.
    """
    self.check(name)
    address = self._entries[name].address
    module, _, function = address.partition(':')
    try:
      return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
      raise ValueError(
        f'{self.field} {name} is registered as {address}, which cannot be '
        f'imported: {error}.'
      ) from error

  def make(
    self,
    name: str,
    offered: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
  ) -> Any:
    """Calls an entry's function with what its signature names.

    Args:
      name: of the entry.
      offered: arguments by name.
      options: values of the entry's own options, from a config.
    """
    function = self.get(name)
    given = {**offered, **self.options(name, options)}
    named = inspect.signature(function).parameters
    return function(**{key: given[key] for key in named if key in given})

  def options(
    self, name: str, values: Mapping[str, Any] | None
  ) -> dict[str, Any]:
    """Returns {'options': an instance of the entry's dataclass}, if it has one.

    Raises ValueError for values that are none of its options.
    """
    self.check(name)
    kind = self._entries[name].options
    where = f'{self.field.partition(".")[0]}.options'
    if kind is None:
      if values:
        raise ValueError(
          f'{where} is of entries with options of their own; {self.field} '
          f'{name} has none.'
        )
      return {}
    return {'options': types.make(kind, values or {}, f'{where}.')}


# -> Sampler. On offer: space, the sampler section, steps_per_epoch, epochs,
# warmup_steps, steps and clip_norm.
SAMPLERS = Registry(
  'sampler.name',
  {
    'uniform': 'jaxnas.samplers.uniform:uniform',
    'balanced': 'jaxnas.samplers.balanced:balanced',
    'fair': 'jaxnas.samplers.fair:fair',
    'boltzmann': 'jaxnas.samplers.boltzmann:boltzmann',
    'importance': 'jaxnas.samplers.importance:importance',
    'novelty': 'jaxnas.samplers.novelty:novelty',
    'tree': 'jaxnas.samplers.tree:tree',
    # Architectures of a mixture; its wrapper comes after debiasing.
    'mixture': 'jaxnas.samplers.mixture:proposal',
  },
)

# -> samplers.rules.Rule. On offer: temperature and effective_fraction of the
# debias section, scale of the density section, and the options.
RULES = Registry(
  'debias.rule',
  {
    'eq8': 'jaxnas.samplers.rules.eq8:eq8',
    'self_consistent': 'jaxnas.samplers.rules.self_consistent:self_consistent',
  },
)

# -> density.Measure. On offer: net, params, archs_AxE and the density section.
MEASURES = Registry(
  'density.measure',
  {
    'gradient': 'jaxnas.density.measures:gradient',
    'representational': 'jaxnas.density.measures:representational',
    'functional': 'jaxnas.density.measures:functional',
    'encoding': 'jaxnas.density.measures:encoding',
  },
)

# -> training.optimizer.Optimizer. On offer: schedule and the optimizer section,
# with decay_all for its field decay.
OPTIMIZERS = Registry(
  'optimizer.name',
  {
    'sgd': 'jaxnas.training.optimizer:Sgd',
    'adamw': 'jaxnas.training.optimizer:AdamW',
  },
)

# -> Searcher. On offer: space, limits, distance and the flags of jaxnas.search.
SEARCHERS = Registry(
  'searcher',
  {
    'random': 'jaxnas.searchers.random:random',
    'evolution': 'jaxnas.searchers.evolution:evolution',
    'shifting': 'jaxnas.searchers.evolution:shifting',
    'tree': 'jaxnas.searchers.tree:tree',
    'exhaustive': 'jaxnas.searchers.exhaustive:exhaustive',
  },
)

# -> combine.Scores. On offer: space and scores.
COMBINATIONS = Registry(
  'ranking.combine',
  {
    'canonical': 'jaxnas.truth.combine:canonical',
    'additive': 'jaxnas.truth.combine:additive',
    'extend': 'jaxnas.truth.combine:extend',
    'macs': 'jaxnas.truth.combine:macs',
    'params': 'jaxnas.truth.combine:params',
    'log_macs': 'jaxnas.truth.combine:log_macs',
    'log_params': 'jaxnas.truth.combine:log_params',
  },
)

# -> data.DataSet. On offer: the data section.
DATASETS = Registry(
  'data.name',
  {
    'digits': 'jaxnas.data.images:digits',
    'cifar10': 'jaxnas.data.images:cifar10',
    'cifar100': 'jaxnas.data.images:cifar100',
    'imagenet16_120': 'jaxnas.data.images:imagenet16_120',
    'arrays': 'jaxnas.data.images:arrays',
    'imagenet': 'jaxnas.data.photos:load',
  },
)

# Where many trainings run. On offer: work, tell, stopped, and the flags
# workers, at_once, needs and address.
EXECUTORS = Registry(
  '--on',
  {
    'local': 'jaxnas.many.local:run',
    'ray': 'jaxnas.many.ray:run',
    'slurm': 'jaxnas.many.slurm:run',
  },
)
