"""What the commands share: their flags, and how they end.

Exit codes: 0 done, 1 failed, 2 usage, 143 stopped by a signal after saving.
This module imports no JAX, so that `--help` answers at once.
"""

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from jaxnas import allocator, caches, locks, runs, validation
from jaxnas.config import ALTERNATIVES, Config, Density, load

STOPPED = 143

# Characters of an error; a value may be a whole file.
LONGEST = 2000

# Fields of a dataclass that stand on the command line without its name.
UNPREFIXED = tyro.conf.arg(name='')

Experiment = Annotated[Config, UNPREFIXED]

# What a GPU needs to add in the same order every time, and to choose the same
# kernels: those it would time differ from start to start.
DETERMINISTIC = (
  '--xla_gpu_deterministic_ops=true',
  '--xla_gpu_autotune_level=0',
)

C = TypeVar('C', bound='OfExperiment')
F = TypeVar('F')


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
  deterministic: bool = False
  """On a GPU: the same bits in every run on the same card. Costs speed, since
  sums are taken in order and kernels are not timed to choose the fastest. On a
  CPU they are the same without it. (Not run on a GPU.)"""


def parse(command: type[C], argv: Sequence[str] | None = None) -> C:
  """Flags over the config file's values; usage errors end with exit code 2."""
  argv = list(sys.argv[1:] if argv is None else argv)
  with usage_errors():
    flags = peek(argv)
    if flags.config is not None:
      config = load(flags.config)
    elif flags.run is not None:
      config = runs.read_config(flags.run).on_one_device()
    elif flags.resume and flags.workdir is not None:
      config = runs.read_config(flags.workdir)
    elif asks_help(argv):
      config = Config()
    else:
      raise ValueError(
        'no experiment: give --config FILE (try --config quickstart.py), '
        'or --workdir DIR --resume.'
      )
  args = read(
    command,
    argv,
    command(experiment=_drop_replaced(config, argv)),
    description=sys.modules[command.__module__].__doc__,
  )
  with usage_errors():
    validation.validate(args.experiment)
  if isinstance(args, Command) and args.deterministic:
    set_deterministic()
  return args


def peek(argv: Sequence[str] | None) -> argparse.Namespace:
  """The flags that say what the defaults of the others are.

  Raises ValueError where one of them has no value.
  """
  first = _First(add_help=False, allow_abbrev=False)
  first.add_argument('--config')
  first.add_argument('--workdir', type=Path)
  first.add_argument('--resume', action='store_true')
  first.add_argument('--run', type=Path)
  return first.parse_known_args(argv)[0]


class _First(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise ValueError(f'{message}; --help says which.')


def asks_help(argv: Sequence[str]) -> bool:
  return any(arg in ('-h', '--help') for arg in argv)


def read(
  kind: type[F],
  argv: Sequence[str] | None,
  default: F | None = None,
  **options: Any,
) -> F:
  """Flags over defaults; what is none ends with one line and exit code 2.

  Args:
    kind: a dataclass, whose fields are the flags.
    argv: None: of this process.
    default: gives the fields' defaults; None: the class does.
    options: of tyro.cli.
  """
  said = io.StringIO()
  given = {} if default is None else {'default': default}
  try:
    with contextlib.redirect_stderr(said):
      args, unknown = tyro.cli(
        kind,
        args=argv,
        use_underscores=True,
        return_unknown_args=True,
        **given,
        **options,
      )
  except SystemExit as ended:
    if ended.code:
      print(f'error: {_without_box(said.getvalue())}', file=sys.stderr)
    raise
  print(said.getvalue(), end='', file=sys.stderr)
  with usage_errors():
    if unknown:
      # What follows a flag that is none is most likely its value.
      word = next((w for w in unknown if w.startswith('--')), unknown[0])
      name = word.partition('=')[0]
      raise ValueError(
        f'{name!r} is no flag here.'
        + (_nearest(name, kind) or ' --help lists all.')
      )
  return args


def _nearest(name: str, kind: Any) -> str:
  """The flag that may be meant, found by its last part or its whole name."""
  flags = [*_flags(kind)]
  known = {flag.rpartition('.')[2]: flag for flag in flags}
  known |= {flag.removeprefix('--'): flag for flag in flags}
  key = name.removeprefix('--').replace('-', '_')
  near = difflib.get_close_matches(key, known, 1)
  return f' Did you mean {known[near[0]]}?' if near and key != name else ''


def _flags(kind: Any, prefix: str = '--') -> Iterator[str]:
  """Of a dataclass, and of those in it."""
  for name, hint in typing.get_type_hints(kind, include_extras=True).items():
    extras = getattr(hint, '__metadata__', ())
    inner = typing.get_args(hint)[0] if extras else hint
    if dataclasses.is_dataclass(inner):
      below = prefix if UNPREFIXED in extras else f'{prefix}{name}.'
      yield from _flags(inner, below)
    elif not {tyro.conf.Suppress, tyro.conf.Positional} & {*extras}:
      # from_ has the name of a word of Python's.
      yield f'{prefix}{name.rstrip("_")}'


def _without_box(text: str) -> str:
  """tyro's error as a line, without the frame that it draws around it."""
  lines = [line.strip(' │╭╮╰╯─') for line in text.splitlines()]
  # The first line is its title, and the last says how to ask for help.
  said = ' '.join(line for line in lines[1:] if line)
  said, _, _ = said.partition(' For full helptext')
  return said.replace(' Argument helptext:', ';')


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
  except (ValueError, OSError, MemoryError) as error:
    locks.release()
    print(f'error: {_line(error)}', file=sys.stderr)
    raise SystemExit(2) from error


def _line(error: BaseException) -> str:
  """What an error says, in one line that is not endless."""
  text = str(error)
  if isinstance(error, OSError) and error.filename is not None:
    text = f'{error.filename}: {error.strerror}'
  text = ' '.join(text.splitlines()) or type(error).__name__
  return text if len(text) <= LONGEST else f'{text[:LONGEST]} [...]'


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
    print(f'error: {_line(error)}', file=sys.stderr)
    raise SystemExit(2) from error
  except (ArithmeticError, OSError, runs.Damaged) as error:
    # Of training, of the disk or the images, and of files of the run.
    print(f'error: {_line(error)}', file=sys.stderr)
    raise SystemExit(1) from error
  finally:
    locks.release()


def set_deterministic() -> None:
  """Tells XLA, which reads it when the first array is made."""
  given = os.environ.get('XLA_FLAGS', '').split()
  flags = [*given, *(flag for flag in DETERMINISTIC if flag not in given)]
  os.environ['XLA_FLAGS'] = ' '.join(flags)


def prepare_process() -> None:
  """Before JAX computes: keeps freed memory, and compiled programs.

  JAX_COMPILATION_CACHE_DIR, where set, is left to JAX.
  """
  allocator.tune()
  import jax

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    folder = str(caches.folder('compiled'))
    jax.config.update('jax_compilation_cache_dir', folder)
  # By default only what took a second is kept; a warm start compiles nothing.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
