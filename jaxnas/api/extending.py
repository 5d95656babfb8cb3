"""Adds to what a config can name."""

from collections.abc import Callable
from typing import Any

from jaxnas import spaces, supernets
from jaxnas.config import registry, trusted
from jaxnas.config.trusted import register_function as register_function

# The names of spaces of the package.
SHIPPED = frozenset(spaces.SPACES)


def register_space(space: spaces.Space, net: Any) -> None:
  """Adds a space, which a config names as `Config(space=...)`.

  A run remembers the module that defines `net`; in another process a command
  imports it where `--trust_module` says so.

  Args:
    space: its name, and its architectures and their costs.
    net: its supernet, a subclass of `jaxnas.Network` outside of any function.

  Raises ValueError where jaxnas has a space of this name, and for a class that
  is no network.
  """
  if space.name in SHIPPED:
    raise ValueError(
      f'space {space.name} is one of jaxnas: choose another name.'
    )
  if not (isinstance(net, type) and issubclass(net, supernets.Network)):
    raise ValueError(f'{net!r:.80} is no subclass of jaxnas.Network.')
  if type(space).costs is spaces.Space.costs:
    raise ValueError(
      f'space {space.name} does not define its costs: override '
      'costs(archs_AxE) -> jaxnas.Costs.'
    )
  spaces.add(space)
  supernets.OWN[space.name] = net
  trusted.own('space', space.name, net.__module__)


def register_sampler(
  name: str, make: Callable[..., Any] | str, options: type | None = None
) -> None:
  """Adds a sampler, which a config names as `Sampler(name=...)`.

  Args:
    name: of the sampler.
    make: (space, *, ...) -> `jaxnas.samplers.Sampler`, or its address
      `module:function`; it is called with what its signature names of the
      values that `jaxnas.config.registry` lists.
    options: a frozen dataclass of the sampler's own options, which a config
      gives as `Sampler(name=..., options={...})`.
  """
  registry.SAMPLERS.add(name, trusted.address(make), options)


def register_rule(
  name: str, make: Callable[..., Any] | str, options: type | None = None
) -> None:
  """Adds a rule of debiasing, which a config names as `Debias(rule=...)`.

  Args:
    name: of the rule.
    make: (...) -> `jaxnas.samplers.Rule`, or its address, called as that of
      `register_sampler`.
    options: a frozen dataclass of the rule's own options.
  """
  registry.RULES.add(name, trusted.address(make), options)


def register_optimizer(
  name: str, make: Callable[..., Any] | str, options: type | None = None
) -> None:
  """Adds an optimizer, which a config names as `Optimizer(name=...)`.

  Args:
    name: of the optimizer.
    make: (schedule, *, ...) -> what `jaxnas.training.optimizer.Optimizer` says,
      or its address, called as that of `register_sampler`.
    options: a frozen dataclass of the optimizer's own options.
  """
  registry.OPTIMIZERS.add(name, trusted.address(make), options)
