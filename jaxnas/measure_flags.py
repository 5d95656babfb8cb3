"""What may be asked of `jaxnas.measure`: flags over the config of a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxnas import cli, trained, validation
from jaxnas.config import Config, Density, Logging
from jaxnas.trained import Hidden


@dataclasses.dataclass(frozen=True)
class Fields(Density):
  """How architectures are compared; hidden is what only training uses."""

  file: Hidden = None
  measure: Hidden = Density.measure
  estimator: Hidden = Density.estimator
  prototypes: Hidden = Density.prototypes
  lookup: Hidden = Density.lookup
  scale: Hidden = Density.scale
  refresh_epochs: Hidden = None
  log_epochs: Hidden = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure(trained.Command):
  """Flags of the command; what is not given is as in the run."""

  measure: tuple[
    Literal['gradient', 'representational', 'functional', 'encoding'], ...
  ]
  """What is compared; several of them one after the other."""
  estimator: Literal['inverse_mean_distance', 'kde']
  """From distances to a density."""
  archs: int | None = None
  """How many architectures, drawn with a fixed seed. Default: all."""
  density: Fields


def parse(
  argv: Sequence[str] | None, description: str | None
) -> tuple[Measure, Config]:
  """Flags over what the run did, and the run's config."""
  args, run = trained.parse(_as_in_run, argv, description)
  with cli.usage_errors():
    if not args.measure:
      raise ValueError('--measure names nothing: give one or several.')
  return args, run


def _as_in_run(run: Path, config: Config) -> Measure:
  given = dataclasses.asdict(config.density)
  kde = config.density.estimator == 'kde'
  return Measure(
    run=run,
    measure=(config.density.measure,),
    estimator='kde' if kde else 'inverse_mean_distance',
    density=Fields(
      **{
        name: value
        for name, value in given.items()
        if name not in Fields.__annotations__
      }
    ),
  )


def configs_of(args: Measure, run: Config) -> dict[str, Config]:
  """By measure: the run's config with this density, and without debiasing.

  A field that the run needed and this measure does not is at its default.

  Raises ValueError for a field that no measure of the command uses.
  """
  chosen = {
    'density.measure': args.measure,
    'density.estimator': (args.estimator,),
  }
  out = {}
  for name in args.measure:
    fields = dataclasses.asdict(args.density)
    fields |= {'measure': name, 'estimator': args.estimator}
    for field, owner, *values in validation.USED_WITH:
      section, _, field = field.partition('.')
      if section == 'density' and (
        fields[owner.partition('.')[2]] not in values
      ):
        of_run = fields[field] == getattr(run.density, field)
        if of_run or {*values} & {*chosen[owner]}:
          fields[field] = getattr(Density, field)
    out[name] = dataclasses.replace(run.undebiased(), density=Density(**fields))
    validation.validate(out[name])
  return out


def seen_with(run: Config, given: Fields) -> Config:
  """The run's config for its net, its state, and these held-out images.

  The density of the run itself, and its logging, are not checked again.
  """
  return dataclasses.replace(
    run.undebiased(),
    logging=Logging(),
    density=dataclasses.replace(
      run.density,
      file=None,
      log_epochs=None,
      batches=given.batches,
      batch_size=given.batch_size,
    ),
  )
