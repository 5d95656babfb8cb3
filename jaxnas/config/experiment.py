"""What an experiment is, section by section."""

import dataclasses
from typing import Literal

from jaxnas.config.sections import (
  Checkpoint,
  Data,
  Debias,
  Density,
  Logging,
  Mesh,
  Optimizer,
  Ranking,
  Retrain,
  Sampler,
  Supernet,
)


@dataclasses.dataclass(frozen=True)
class Config:
  """An experiment."""

  seed: int = 0
  """Every random number is a function of it."""
  space: str = 'digits'
  """digits, pooling, nas_bench_macro, nas_bench_201, mobilenet, or
  mobilenet_strict (no identity where the shape changes)."""
  warmup_epochs: int = 10
  """Epochs before the density is estimated."""
  epochs: int = 20
  """Epochs after the warm-up."""
  precision: Literal['auto', 'float32', 'bfloat16'] = 'auto'
  """Of the computation; parameters, statistics and loss are float32.
  auto: bfloat16 on accelerators, float32 on CPU."""
  data: Data = dataclasses.field(default_factory=Data)
  supernet: Supernet = dataclasses.field(default_factory=Supernet)
  sampler: Sampler = dataclasses.field(default_factory=Sampler)
  debias: Debias = dataclasses.field(default_factory=Debias)
  density: Density = dataclasses.field(default_factory=Density)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  ranking: Ranking = dataclasses.field(default_factory=Ranking)
  mesh: Mesh = dataclasses.field(default_factory=Mesh)
  checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
  logging: Logging = dataclasses.field(default_factory=Logging)
  retrain: Retrain = dataclasses.field(default_factory=Retrain)

  @property
  def debiases(self) -> bool:
    """Whether training is debiased after the warm-up."""
    return (self.debias.temperature, self.debias.effective_fraction) != (
      None,
      None,
    )

  @property
  def total_epochs(self) -> int:
    """Of the whole run, the warm-up among them."""
    return self.warmup_epochs + self.epochs

  def on_one_device(self) -> 'Config':
    """The same experiment, whatever the devices that it trained on."""
    return dataclasses.replace(self, mesh=Mesh())

  def undebiased(self) -> 'Config':
    """The same experiment without debiasing.

    Candidates stay: with them draws are made, whatever the temperature.
    """
    plain = Debias(candidates=self.debias.candidates)
    return dataclasses.replace(self, debias=plain)


# Sections and fields that may differ between a run and its resumption.
NOT_THE_EXPERIMENT = (
  'mesh',
  'checkpoint',
  'logging',
  'data.dir',
  'data.workers',
  'data.on_error',
)

# Fields of which one replaces the other: (section, fields).
ALTERNATIVES = (
  ('debias', ('temperature', 'effective_fraction')),
  ('data', ('train_fraction', 'holdout')),
)
