"""What is measured: cases of a part, each ours beside a baseline."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple


class Side(NamedTuple):
  """Who measures: a function called in a process of its own."""

  function: str
  """'module:name'. function(**kwargs) prepares and warms up; it returns a
  measure(), which gives one value in the case's unit."""
  kwargs: dict[str, Any]
  """Ready for JSON."""


class Case(NamedTuple):
  """A row to be."""

  part: str
  case: str
  """Unique in its part."""
  unit: str
  """More is better of a rate, '/s', and of a share, 'of peak'; else less."""
  ours: Side
  baseline: Side | None
  """None: nothing to compare with."""
  rounds: int = 5
  """How often each side measures, in turns."""


@dataclasses.dataclass(frozen=True)
class Options:
  """What parts are asked for; None: each part's own choice."""

  seed: int = 0
  """Of weights, images and architectures."""
  archs: int | None = None
  """How many architectures."""
  batch_size: int | None = None
  """Images of a training step."""
  images: int | None = None
  """How many are ranked on, loaded, or trained on."""
  data_dir: Path | None = None
  """A folder with CIFAR-10, for end_to_end. Default: noise."""
