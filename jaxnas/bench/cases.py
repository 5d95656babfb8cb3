"""Cases of a benchmark, each ours beside a baseline."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple


class Side(NamedTuple):
  """One side of a case: a function that is called in a process of its own."""

  function: str
  """'module:name'. function(**kwargs) prepares and warms up; it returns a
  measure(), which gives one value in the case's unit."""
  kwargs: dict[str, Any]
  """Ready for JSON."""


class Case(NamedTuple):
  """One measurement, which becomes a row of the table."""

  part: str
  case: str
  """Unique in its part."""
  unit: str
  """More is better for rates ('/s') and shares ('of peak'), else less is."""
  ours: Side
  baseline: Side | None
  """None: nothing to compare with."""
  rounds: int = 5
  """Number of times that each side measures, in turns."""


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings that parts share; None: each part's own choice."""

  seed: int = 0
  """Seed of weights, images and architectures."""
  archs: int | None = None
  """Number of architectures."""
  batch_size: int | None = None
  """Images of a training step."""
  images: int | None = None
  """Number of images to rank on, to load, or to train on."""
  data_dir: Path | None = None
  """A folder with CIFAR-10, for end_to_end. Default: noise."""
