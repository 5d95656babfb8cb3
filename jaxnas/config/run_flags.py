"""Flags over a trained run, which the commands that read one share."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxnas.config import fields, run_folder, sections, validation
from jaxnas.config.experiment import Config
from jaxnas.config.files import flatten
from jaxnas.config.flags import Writes, asks_help, peek, prog, read
from jaxnas.runtime import startup
from jaxnas.runtime.errors import usage_errors


@dataclasses.dataclass(frozen=True)
class Data:
  """The place of the run's images, and how they are read: None is as in the
  run. It is no part of the experiment, and another machine has another."""

  dir: fields.PathOrNone = None
  """Folder of the images, or the npz."""
  workers: int | None = None
  """Processes that decode imagenet; 0 for threads."""
  on_error: Literal['raise', 'skip'] | None = None
  """Stop at an unreadable image of imagenet, or replace and count it."""

  def __post_init__(self) -> None:
    fields.make_absolute(self)


AS_IN_RUN = Data()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCommand(Writes):
  """Flags of every command that reads a run."""

  run: Annotated[Path, tyro.conf.arg(help_behavior_hint='(required)')]
  """A run directory of jaxnas.train."""
  workdir: Path | None = None
  """Folder that the command writes. Default: one of its name in the run."""
  deterministic: bool = False
  """On a GPU: the same bits in every run on the same card, more slowly; see
  jaxnas.train. (Not run on a GPU.)"""
  data: Data = AS_IN_RUN


# A field that is neither shown nor taken.
Hidden = Annotated[Any, tyro.conf.Suppress, tyro.conf.Fixed]


@dataclasses.dataclass(frozen=True)
class Ranking(sections.Ranking):
  """Flags of an evaluation; what only training uses is hidden."""

  every_epochs: Hidden = None
  sample: Hidden = sections.Ranking.sample


C = TypeVar('C', bound=RunCommand)


def parse(
  defaults: Callable[[Path, Config], C],
  argv: Sequence[str] | None,
  description: str | None,
  run: Path | None = None,
) -> tuple[C, Config]:
  """Reads flags over what the run did; returns them and the run's config.

  Usage errors, such as a folder that holds no run, end with exit code 2.

  Args:
    defaults: (run, its config) -> the flags where none is given.
    argv: the command line; None: that of this process.
    description: the text above the flags in `--help`.
    run: the run that is read where no flag says it.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  with usage_errors():
    run = peek(argv).run or run
    if run is not None:
      config = run_folder.read_config(run).on_one_device()
    elif asks_help(argv):
      config = Config()
    else:
      raise ValueError('no run: give --run DIR, which jaxnas.train wrote.')
  default = defaults(run or Path('RUN'), config)
  args = read(
    type(default),
    argv,
    default,
    prog=prog(type(default)),
    description=description,
  )
  with usage_errors():
    return settled(args, config)


def settled(args: C, config: Config) -> tuple[C, Config]:
  """Returns flags, and the run's config with its images where they say.

  Raises ValueError where the flags would overwrite a run, or are at odds.
  """
  if args.workdir and (args.workdir / 'config.json').exists():
    raise ValueError(
      f'{args.workdir} holds a run, which this would overwrite: choose '
      'another --workdir.'
    )
  config = read_from(config, args.data)
  if args.deterministic:
    startup.set_deterministic()
  return args, config


def read_from(config: Config, given: Data) -> Config:
  """Returns a run's config with its images where the flags say.

  Raises ValueError for a flag out of range, or that the data set does not use.
  """
  values = {
    name: value
    for name, value in dataclasses.asdict(given).items()
    if value is not None
  }
  if not values:
    return config
  data = dataclasses.replace(config.data, **values)
  config = dataclasses.replace(config, data=data)
  flat = flatten(config)
  validation.check_ranges('data.', sections.Data, flat)
  validation.check_owners('data.', sections.Data, flat)
  return config


def ranking_of(config: Config) -> Ranking:
  """Returns the flags that rank as the run did."""
  fields = dataclasses.asdict(config.ranking)
  return Ranking(**{**fields, 'every_epochs': None, 'sample': Ranking.sample})
