"""Flags over an experiment, which the commands share.

This module imports no JAX, so that `--help` answers at once.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from jaxnas.config import help, run_folder, trusted, validation, wrong_flags
from jaxnas.config.experiment import Config
from jaxnas.config.files import load
from jaxnas.runtime import paths, startup
from jaxnas.runtime.errors import usage_errors

# Fields of a dataclass that stand on the command line without its name.
UNPREFIXED = tyro.conf.arg(name='')

Experiment = Annotated[Config, UNPREFIXED]


C = TypeVar('C', bound='OfExperiment')
F = TypeVar('F')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfExperiment:
  """Flags of every command that is about an experiment."""

  config: str | None = None
  """A config file: a path, or a name in ./configs or shipped with jaxnas."""
  experiment: Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trusts:
  """Flags of every command that may need code from outside the package."""

  trust_module: str | None = None
  """A module from outside the package whose code you trust, which registers
  what the run or the config names; several with commas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writes(Trusts):
  """Flags of every command that writes where the user says."""

  overwrite: bool = False
  """Replace files that are in the way and that another command wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
  """Flags of every command that holds a ranking to the truth."""

  table: Path | None = None
  """Ground truth. Default: what the run was held to, else the table that is
  shipped, if any."""
  table_column: str | None = None
  """The accuracies of the table to take, where they are not on data.name: a
  column of the npz of NAS-Bench-201, such as cifar10_test, or the data that a
  json names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(Writes, OfExperiment):
  """Flags of every command that runs one."""

  workdir: Path | None = None
  """Folder that the command writes. Default: a new one under runs/."""
  resume: bool = False
  """Go on where the run in --workdir stopped."""
  deterministic: bool = False
  """On a GPU: the same bits in every run on the same card, more slowly, since
  sums are taken in order. The kernels that were the fastest when a program was
  first compiled are kept in the cache of programs: with an emptied one they may
  be others. On a CPU bits are the same without it. (Not run on a GPU.)"""


def parse(command: type[C], argv: Sequence[str] | None = None) -> C:
  """Reads flags over a config file's values; bad ones end with exit code 2."""
  argv = list(sys.argv[1:] if argv is None else argv)
  with usage_errors():
    flags = peek(argv)
    if flags.config is not None:
      config = load(flags.config)
    elif flags.run is not None:
      config = run_folder.read_config(flags.run).on_one_device()
    elif (flags.resume or flags.gather) and flags.workdir is not None:
      config = run_folder.read_config(flags.workdir)
    elif asks_help(argv) or (not flags.resume and _says_something(argv)):
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
    prog=prog(command),
    description=sys.modules[command.__module__].__doc__,
  )
  with usage_errors():
    validation.validate(args.experiment)
  if isinstance(args, Command) and args.deterministic:
    startup.set_deterministic()
  return args


def _says_something(argv: Sequence[str]) -> bool:
  """Returns True where flags say more than where to write."""
  names = {word.partition('=')[0] for word in argv if word.startswith('--')}
  return bool(names - {'--workdir', '--overwrite'})


def prog(command: type) -> str:
  """Returns the command line that runs the module of these flags."""
  file = Path(sys.modules[command.__module__].__file__ or '')
  name = file.parent.name if file.stem == '__main__' else file.stem
  return f'python -m jaxnas.{name}'


def peek(argv: Sequence[str] | None) -> argparse.Namespace:
  """Reads the flags on which the defaults of the others depend.

  The module that they trust is imported, so that it has registered its names.

  Raises ValueError where one of them has no value, or no module is found.
  """
  first = _First(add_help=False, allow_abbrev=False)
  first.add_argument('--config', type=_not_empty)
  first.add_argument('--workdir', type=_path)
  first.add_argument('--resume', action='store_true')
  first.add_argument('--gather', action='store_true')
  first.add_argument('--run', type=_path)
  first.add_argument('--trust_module', '--trust-module')
  given = first.parse_known_args(argv)[0]
  if given.trust_module is not None and not asks_help(argv or ()):
    for module in given.trust_module.split(','):
      trusted.trust(module, run_folder.holds_run)
  return given


def _not_empty(text: str) -> str:
  """Returns the text of a path. Raises ArgumentTypeError for none, as of an
  unset variable of a shell."""
  if not text:
    raise argparse.ArgumentTypeError('is empty, where a path is needed')
  return text


def _path(text: str) -> Path:
  """Returns a path. Raises ArgumentTypeError as `_not_empty` does, and for a
  home that nobody knows."""
  try:
    return Path(paths.expanded(_not_empty(text)))
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


class _First(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise ValueError(f'{message}; --help says which.')


def asks_help(argv: Sequence[str]) -> bool:
  return help.asked(argv)[0]


def read(
  kind: type[F],
  argv: Sequence[str] | None,
  default: F | None = None,
  **options: Any,
) -> F:
  """Reads flags over defaults; bad ones end with one line and exit code 2.

  Args:
    kind: a dataclass, whose fields are the flags.
    argv: None: of this process.
    default: gives the fields' defaults; None: the class does.
    options: of tyro.cli.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  with usage_errors():
    _show_help(kind, argv, default, options)
    peek(argv)
    wrong_flags.check_paths(of_paths(kind), argv)
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
      print(
        f'error: {wrong_flags.without_box(said.getvalue())}', file=sys.stderr
      )
    raise
  print(said.getvalue(), end='', file=sys.stderr)
  with usage_errors():
    startup.begin()
    if unknown:
      # The word after an unknown flag is most likely its value.
      word = next((w for w in unknown if w.startswith('--')), unknown[0])
      name = word.partition('=')[0]
      raise ValueError(
        f'{name!r} is no flag here.'
        + (wrong_flags.nearest(name, _flags(kind)) or ' --help lists all.')
      )
    return _expanded(args)


def _show_help(
  kind: Any, argv: list[str], default: Any, options: Mapping[str, Any]
) -> None:
  """Prints the help that is asked for, and ends; `--help_all` is left to tyro.

  Raises ValueError where it is of a section that there is not.
  """
  asks, section = help.asked(argv)
  if not asks:
    return
  if {'--help_all', '--help-all'} & {*argv}:
    argv[:] = ['--help']
    return
  print(
    help.write(
      kind,
      UNPREFIXED,
      default=default,
      section=section,
      prog=options.get('prog', ''),
      description=options.get('description'),
    )
  )
  raise SystemExit(0)


def _expanded(given: Any) -> Any:
  """Returns flags with the home for ~ in each path; texts that are paths are
  absolute already (`fields.make_absolute`)."""
  if isinstance(given, Path):
    return Path(paths.expanded(str(given)))
  if isinstance(given, tuple):
    return tuple(map(_expanded, given))
  if dataclasses.is_dataclass(given) and not isinstance(given, type):
    values = {
      field.name: getattr(given, field.name)
      for field in dataclasses.fields(given)
    }
    return dataclasses.replace(
      given, **{name: _expanded(value) for name, value in values.items()}
    )
  return given


def _flags(kind: Any) -> Iterator[wrong_flags.Flag]:
  """Yields (flag, its type) of a dataclass, and of those in it."""
  for flag in help.flags(kind, UNPREFIXED):
    if tyro.conf.Positional not in flag.marks:
      yield f'--{flag.name}', flag.hint


def of_paths(kind: Any) -> set[str]:
  """Returns the flags of a dataclass, and of those in it, that are paths."""
  return {
    f'--{flag.name}'
    for flag in help.flags(kind, UNPREFIXED)
    if tyro.conf.Positional not in flag.marks
    and wrong_flags.is_path(flag.hint, flag.marks)
  }


def _drop_replaced(config: Config, argv: Sequence[str]) -> Config:
  """Returns the config without what a flag on the command line replaces."""
  words = [word for arg in argv for word in arg.split('=', 1)]
  given = {
    name.removeprefix('--').replace('-', '_'): None
    if value == 'None'
    else value
    for name, value in itertools.pairwise(words)
    if name.startswith('--')
  }
  return validation.without_replaced(config, given)
