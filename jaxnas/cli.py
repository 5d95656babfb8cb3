"""What the commands share: their flags, and how they end.

Exit codes: 0 done, 1 failed, 2 usage, 143 stopped by a signal after saving.
This module imports no JAX, so that `--help` answers at once.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from jaxnas import locks, runs, validation
from jaxnas.config import ALTERNATIVES, Config, Density, load

STOPPED = 143

# The experiment's own fields stand on the command line without a prefix.
Experiment = Annotated[Config, tyro.conf.arg(name='')]

C = TypeVar('C', bound='OfExperiment')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfExperiment:
  """Flags of every command that is about an experiment."""

  config: str | None = None
  """A config file: a path, or a name in ./configs or shipped with jaxnas."""
  experiment: Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(OfExperiment):
  """Flags of every command that runs one."""

  workdir: Path | None = None
  """What the command writes. Default: a new folder under runs/."""
  resume: bool = False
  """Go on where the run in --workdir stopped."""


def parse(command: type[C], argv: Sequence[str] | None = None) -> C:
  """Flags over the config file's values; usage errors end with exit code 2."""
  argv = list(sys.argv[1:] if argv is None else argv)
  first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  first.add_argument('--config')
  first.add_argument('--workdir', type=Path)
  first.add_argument('--resume', action='store_true')
  first.add_argument('--run', type=Path)
  flags, _ = first.parse_known_args(argv)
  asks_help = any(arg in ('-h', '--help') for arg in argv)
  with usage_errors():
    if flags.config is not None:
      config = load(flags.config)
    elif flags.run is not None:
      config = runs.read_config(flags.run).on_one_device()
    elif flags.resume and flags.workdir is not None:
      config = runs.read_config(flags.workdir)
    elif asks_help:
      config = Config()
    else:
      raise ValueError(
        'no experiment: give --config FILE (try --config quickstart.py), '
        'or --workdir DIR --resume.'
      )
  args = tyro.cli(
    command,
    args=argv,
    default=command(experiment=_drop_replaced(config, argv)),
    use_underscores=True,
    description=sys.modules[command.__module__].__doc__,
  )
  with usage_errors():
    validation.validate(args.experiment)
  return args


def _drop_replaced(config: Config, argv: Sequence[str]) -> Config:
  """Fields of the file that give way to an alternative on the command line."""
  words = [word for arg in argv for word in arg.split('=', 1)]
  given = {
    name.removeprefix('--').replace('-', '_')
    for name, value in itertools.pairwise(words)
    if name.startswith('--') and value != 'None'
  }
  for section, fields in ALTERNATIVES:
    if any(f'{section}.{field}' in given for field in fields):
      dropped: dict[str, Any] = {
        field: None for field in fields if f'{section}.{field}' not in given
      }
      values = dataclasses.replace(getattr(config, section), **dropped)
      config = dataclasses.replace(config, **{section: values})
  if 'density.file' in given and 'density.log_epochs' not in given:
    # It replaces the file's estimate, however that would have been made.
    values = Density(scale=config.density.scale)
    config = dataclasses.replace(config, density=values)
  return config


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
  """Bad input, found before any work: one line, exit code 2."""
  try:
    yield
  except (ValueError, FileNotFoundError) as error:
    locks.release()
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from error


@contextlib.contextmanager
def outcome(workdir: Path, stopped: str | None = None) -> Iterator[None]:
  """How a run that has begun may end, with the exit code of each end.

  `stopped` says how to go on; None: with --resume.
  """
  from jaxnas.training.digests import Different
  from jaxnas.training.preemption import Stopped

  try:
    yield
  except Stopped:
    print(
      stopped
      or f'stopped, nothing lost: go on with --workdir {workdir} --resume',
      file=sys.stderr,
    )
    raise SystemExit(STOPPED) from None
  except Different as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from error
  except (ArithmeticError, OSError) as error:
    # Of training, and of the disk or the images.
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(1) from error
  finally:
    locks.release()


def keep_compiled() -> None:
  """Keeps compiled programs in the user's own cache, never a shared one.

  What is cached is trusted code. JAX_COMPILATION_CACHE_DIR, where set, is
  left to JAX.
  """
  import jax

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(home) / 'jaxnas' / 'compiled'
    jax.config.update('jax_compilation_cache_dir', str(folder))
  # By default only what took a second is kept; a warm start compiles nothing.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
