"""Runs of jaxnas.train that another command reads."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from jaxnas import cli, runs, validation
from jaxnas.config import Config, sections

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """Flags of every command that reads a run."""

  run: Annotated[Path, tyro.conf.arg(help_behavior_hint='(required)')]
  """A run directory of jaxnas.train."""
  workdir: Path | None = None
  """What the command writes. Default: a folder of its name in the run."""


# What a run ends with.
RANKED = 'correlation.json'

# Neither shown nor taken.
Hidden = Annotated[Any, tyro.conf.Suppress, tyro.conf.Fixed]


@dataclasses.dataclass(frozen=True)
class Ranking(sections.Ranking):
  """How architectures are evaluated; hidden is what only training uses."""

  every_epochs: Hidden = None
  sample: Hidden = sections.Ranking.sample


C = TypeVar('C', bound=Command)


def parse(
  defaults: Callable[[Path, Config], C],
  argv: Sequence[str] | None,
  description: str | None,
  run: Path | None = None,
) -> tuple[C, Config]:
  """Flags over what the run did, and the run's config.

  `run` is what is read where no flag says it. Usage errors, such as a folder
  that holds no run, end with exit code 2.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  with cli.usage_errors():
    run = cli.peek(argv).run or run
    if run is not None:
      config = runs.read_config(run).on_one_device()
    elif cli.asks_help(argv):
      config = Config()
    else:
      raise ValueError('no run: give --run DIR, which jaxnas.train wrote.')
  default = defaults(run or Path('RUN'), config)
  args = cli.read(type(default), argv, default, description=description)
  with cli.usage_errors():
    if args.workdir and (args.workdir / 'config.json').exists():
      raise ValueError(
        f'{args.workdir} holds a run, which this would overwrite: choose '
        'another --workdir.'
      )
  return args, config


def ranking_of(config: Config) -> Ranking:
  """As the run ranked."""
  fields = dataclasses.asdict(config.ranking)
  return Ranking(**{**fields, 'every_epochs': None, 'sample': Ranking.sample})


def load(
  run: Path, config: Config, ranking: Ranking
) -> 'tuple[Experiment, TrainState]':
  """A finished run, to be ranked so, and its last state.

  Raises ValueError or FileNotFoundError, one line.
  """
  from jaxnas import build

  # What its densities came from may be gone, and is not asked for again.
  seen = dataclasses.replace(
    config.undebiased(),
    ranking=sections.Ranking(**dataclasses.asdict(ranking)),
    density=dataclasses.replace(config.density, file=None, log_epochs=None),
  )
  if ranking.calibration_batches == config.ranking.calibration_batches:
    # Not asked for here: it goes where this ranking does not use it.
    seen = validation.without_unused(seen, 'ranking')
  validation.validate(seen)
  experiment = build.experiment(seen)
  return experiment, finished(experiment, run)


def best_arch(run: Path) -> str:
  """What a search in the run has found, else what the run ranks first.

  Raises FileNotFoundError where there is neither.
  """
  for file, key in (('search/best.json', 'arch'), (RANKED, 'best_arch')):
    if (run / file).exists():
      return runs.read_json(run / file, {key: str})[key]
  raise FileNotFoundError(
    f'{run} has ranked nothing yet (no {RANKED}): finish it with python -m '
    f'jaxnas.train --workdir {run} --resume, or give --arch ARCH.'
  )


def newest(experiment: 'Experiment', run: Path) -> 'TrainState':
  """The state of the newest good checkpoint.

  Raises FileNotFoundError where there is none, ValueError where all are
  damaged or another command wrote the folder.
  """
  from jaxnas.training.checkpoint import Checkpoints

  for command in ('retrain', 'compare'):
    if (run / f'{command}.json').exists():
      raise ValueError(
        f'{run} was written by jaxnas.{command}: give a run of jaxnas.train.'
      )
  folder = run / 'checkpoints'
  if folder.is_dir():
    with Checkpoints(folder, read_only=True) as checkpoints:
      if found := checkpoints.newest(experiment.init_state()):
        return found[0]
  raise FileNotFoundError(
    f'{run} has no checkpoint: train it further with --workdir {run} --resume.'
  )


def finished(experiment: 'Experiment', run: Path) -> 'TrainState':
  """The state at the end of training.

  Raises ValueError or FileNotFoundError where the run has not come there.
  """
  state = newest(experiment, run)
  if int(state.step) < experiment.steps:
    raise ValueError(
      f'{run} is at step {int(state.step)} of {experiment.steps}: finish it '
      f'with python -m jaxnas.train --workdir {run} --resume.'
    )
  return state
