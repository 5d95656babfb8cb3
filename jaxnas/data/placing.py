"""How batches get to the devices that train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Placing:
  """Where the inputs of a step lie; as it stands, on the first device."""

  everywhere: Callable[[Any], Any] = lambda tree: tree
  """A pytree of arrays -> the same, whole on every device."""
  within: Callable[[Any], Any] = lambda tree: tree
  """The same in a jitted program. What makes them is then computed on every
  device, where the compiler might divide it and exchange the parts."""
  share: Callable[[int], range] = range
  """Images in a batch -> those rows of it that this process brings."""
  batch: Callable[[Any, int], Any] = lambda rows, size: jax.device_put(rows)
  """(a pytree of these rows, images in a batch) -> the batch."""


ON_ONE = Placing()
