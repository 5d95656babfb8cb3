"""Puts batches on the devices that train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Placing:
  """Puts the inputs of a step on devices; by default on the first one."""

  everywhere: Callable[[Any], Any] = lambda tree: tree
  """Takes a pytree of arrays; gives them whole on every device."""
  within: Callable[[Any], Any] = lambda tree: tree
  """Does so in a jitted program. Every device then computes the arrays, where
  the compiler might divide the work and exchange the parts."""
  by_rows: Callable[[Any], Any] = lambda prepare: prepare
  """Takes (shared, rows) -> rows, to run in a jitted program. Every device
  does so with its rows of a batch, so that none holds those of all."""
  share: Callable[[int], range] = range
  """Takes the number of images in a batch; gives this process's rows of it."""
  batch: Callable[[Any, int], Any] = lambda rows, size: jax.device_put(rows)
  """Takes a pytree of these rows and the number of images; gives the batch."""


ON_ONE = Placing()
