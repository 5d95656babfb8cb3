"""An experiment, section by section."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval

from jaxnas.config.fields import Few, Natural
from jaxnas.config.method import Debias, Density, Sampler
from jaxnas.config.sections import (
  Checkpoint,
  Data,
  Logging,
  Mesh,
  Optimizer,
  Ranking,
  Retrain,
  Supernet,
)


@dataclasses.dataclass(frozen=True)
class Config:
  """An experiment."""

  seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
  """Seed: every random number is a function of it."""
  space: str = 'digits'
  """digits, pooling, nas_bench_macro, nas_bench_201, mobilenet, or
  mobilenet_strict (no identity where the shape changes)."""
  warmup_epochs: Natural = 10
  """Epochs before the density is estimated."""
  epochs: Natural = 20
  """Epochs after the warm-up."""
  ensemble: Few = 1
  """Train so many supernets, at once where mesh.members allows it, which differ
  in all draws but the division of images; their mean score ranks beside that of
  the first."""
  modules: str | None = None
  """Modules from outside the package that register the space, the sampler and
  so on, separated by commas. A run remembers them; see --trust_module."""
  precision: Literal['auto', 'float32', 'bfloat16'] = 'auto'
  """Type of the computation; parameters, statistics and loss are float32.
  auto: bfloat16 on accelerators, float32 on CPU, where bfloat16 is faster with
  AMX or AVX512-BF16 and the extra onednn."""
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
    """True if training is debiased after the warm-up."""
    return (self.debias.temperature, self.debias.effective_fraction) != (
      None,
      None,
    )

  @property
  def distils(self) -> bool:
    """True if every step trains a teacher besides."""
    return self.optimizer.distill is not None

  @property
  def split_seed(self) -> int:
    """Seed of the division of images, and of what is ranked."""
    given = self.data.split_seed
    return self.seed if given is None else given

  @property
  def total_epochs(self) -> int:
    """Epochs of the whole run, warm-up included."""
    return self.warmup_epochs + self.epochs

  @property
  def snapshot_epochs(self) -> list[int]:
    """Numbers of epochs after which the states are that `ranking` averages."""
    given, total = self.ranking, self.total_epochs
    if given.average not in ('weights', 'scores'):
      return []
    cycles = self.optimizer.cycles
    own = total // cycles if cycles > 1 else max(total // 10, 1)
    gap = given.snapshot_epochs or own
    return [total - gap * back for back in reversed(range(given.snapshots))]

  def on_one_device(self) -> 'Config':
    """Returns the experiment laid over one device."""
    return dataclasses.replace(self, mesh=Mesh())

  def undebiased(self) -> 'Config':
    """Returns the experiment without debiasing.

    Candidates stay, since draws are made from them at any temperature.
    """
    plain = Debias(candidates=self.debias.candidates)
    return dataclasses.replace(self, debias=plain)


# Sections and fields that may differ between a run and its resumption.
NOT_THE_EXPERIMENT = (
  'modules',
  'ensemble',
  'mesh',
  'checkpoint',
  'logging',
  'data.dir',
  'data.workers',
  'data.on_error',
  'density.file_digest',
)

# Fields of which one replaces the other: (section, fields).
ALTERNATIVES = (
  ('debias', ('temperature', 'effective_fraction')),
  ('data', ('train_fraction', 'holdout')),
)
