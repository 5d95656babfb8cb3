"""An experiment once it is built: plain data, which everything else reads."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import data, samplers, spaces, supernets
from jaxnas.config import Config, digest
from jaxnas.experiment.contents import Contents
from jaxnas.training import paths
from jaxnas.training.step import TrainState, WithNumbers


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """Images that no step trains on, without augmentation.

  Each split holds the first images of a shuffle of its own. `calibration` is
  the exception: those are training images.
  """

  ranking: data.Split
  """Images that rank architectures."""
  density: data.Split
  """Images on which densities are estimated."""
  rebuild: data.Split
  """Images on which a tree is built anew."""
  calibration: data.Split
  """Training images on which statistics of normalisation are measured."""


@dataclasses.dataclass(frozen=True)
class Experiment:
  """All that training and ranking a supernet needs."""

  config: Config
  space: spaces.Space
  net: Any
  """The supernet, normalised by each batch's statistics."""
  trained_net: Any
  """The supernet with the running statistics that training keeps, if any."""
  sampler: samplers.Sampler
  init: Callable[[int], TrainState]
  """Seed -> the state before the first step."""
  step: WithNumbers
  """The step, of any seed."""
  steps_per_dispatch: int
  training: data.Training
  held_out: HeldOut
  ranking_archs_AxE: Int[np.ndarray, 'A E']
  images: Contents
  skipped: data.SkippedImages
  run: Config | None = None
  """The config of the run that has trained it, where that is another one."""

  def init_state(self) -> TrainState:
    """Returns the state before the first step."""
    return self.init(self.config.seed)

  @property
  def step_fn(self) -> WithNumbers:
    """The training step."""
    return self.step.seeded(self.config.seed)

  @property
  def run_digest(self) -> str:
    """Digest of the config of the run; all of its results carry it."""
    return digest(self.run or self.config)

  @property
  def paths(self) -> int:
    """Number of architectures in a step, a teacher among them."""
    return samplers.paths(self.sampler) + self.config.distils

  @property
  def steps(self) -> int:
    """Number of steps in the whole run, warm-up included."""
    return self.config.total_epochs * self.training.steps_per_epoch

  @property
  def warmup_steps(self) -> int:
    """Number of steps before the density is estimated."""
    return self.config.warmup_epochs * self.training.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class StandAlone:
  """All that training architectures alone needs."""

  config: Config
  space: spaces.Space
  net: supernets.StandAlone
  optimizer: Any
  training: data.Training
  test: data.Split
  images: Contents
  loss: paths.Loss | None
  skipped: data.SkippedImages
