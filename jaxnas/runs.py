"""The run directory: what a run writes, and any figure is redrawn from.

config.json, environment.json, metrics.jsonl, checkpoints/, density.npz,
samples.npz, predictions.npz, correlation.json, ledger.json.
"""

import contextlib
import datetime
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from jaxnas import locks, strict_json
from jaxnas.config import Config, differences, from_json, to_json

# About when this process began.
START_S = time.monotonic()

# What no log may keep: who an address is asked as, and what a flag or a
# variable holds whose name says that it is secret.
_SECRETS = re.compile(
  r"""(?<=://)[^/@\s'"]+(?=@)"""
  r'|(?:(?<=key)|(?<=token)|(?<=secret)|(?<=password))(?P<sep>[= ])\S+',
  re.IGNORECASE,
)

VERSIONS = ('jaxnas', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


T = TypeVar('T')


class Damaged(ValueError):
  """A file that does not hold what it must; names it and says what to do."""


def new_workdir(config_file: str) -> Path:
  """A folder under runs/ that is not there yet."""
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  return Path('runs') / f'{Path(config_file).stem}-{now}'


def open_run(workdir: Path, config: Config, *, resume: bool) -> None:
  """Makes or reopens a run directory, and keeps other processes out of it.

  Raises ValueError where a run would be overwritten, where the experiment to
  resume is another one, or where another process is at it.
  """
  make_workdir(workdir)
  locks.keep(workdir)
  existing = (workdir / 'config.json').exists()
  if existing and not resume:
    raise ValueError(
      f'{workdir} holds a run already: add --resume to go on with it, or '
      'choose another --workdir.'
    )
  if existing and (differing := differences(config, read_config(workdir))):
    name, (ours, theirs) = next(iter(differing.items()))
    raise ValueError(
      f'{workdir} is a run with {name} {theirs}, not {ours}: resume it as it '
      'is, or choose another --workdir.'
    )
  write_text(workdir / 'config.json', to_json(config))


def make_workdir(workdir: Path) -> None:
  """Makes the folder, unless it is there; raises as `check_folder` does."""
  check_folder(workdir, '--workdir')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'{workdir} cannot be made ({error.strerror}): choose another --workdir.'
    ) from error


def check_folder(folder: Path, flag: str) -> None:
  """Raises ValueError where a folder can neither be written to nor be made."""
  folder = folder.absolute()
  there = next(path for path in (folder, *folder.parents) if path.exists())
  if not there.is_dir():
    raise ValueError(f'{there} is no folder: choose another {flag}.')
  if not os.access(there, os.W_OK | os.X_OK):
    raise ValueError(f'{there} cannot be written to: choose another {flag}.')


def read_config(workdir: Path) -> Config:
  """Raises FileNotFoundError where there is no run, Damaged where it is none
  that this version can read."""
  file = workdir / 'config.json'
  if not file.exists():
    raise FileNotFoundError(
      f'{workdir} holds no run (no config.json): start one with --config FILE.'
    )
  return parsed(file, from_json)


def environment(**facts: Any) -> dict[str, Any]:
  """Where a result comes from: command, machine, versions, and `facts`."""
  command = ' '.join(['python', '-m', *sys.orig_argv[2:]])
  return {
    'command': without_secrets(command),
    'python': platform.python_version(),
    'platform': platform.platform(),
    'cpus': os.cpu_count(),
    'versions': {name: importlib.metadata.version(name) for name in VERSIONS},
    **facts,
  }


def without_secrets(text: str) -> str:
  """The text as a log may keep it.

  >>> without_secrets('--url https://me:word@host/file WANDB_API_KEY=abc')
  '--url https://***@host/file WANDB_API_KEY=***'
  """
  return _SECRETS.sub(lambda found: f'{found["sep"] or ""}***', text)


_writes = True


def leave_writing() -> None:
  """From here on another process of the run writes what this one would."""
  global _writes
  _writes = False


def writes() -> bool:
  """Whether what this process writes is kept."""
  return _writes


@contextlib.contextmanager
def whole(file: Path) -> Iterator[IO[bytes]]:
  """All of it or nothing: written beside, then renamed.

  Raises OSError naming the file.
  """
  if not _writes:
    yield io.BytesIO()
    return
  part = file.with_name(f'{file.name}.part')
  try:
    with naming(file), part.open('wb') as stream:
      yield stream
      stream.flush()
      # Else a power cut could leave the name without the content.
      os.fsync(stream.fileno())
    part.replace(file)
  finally:
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
  """Errors of the disk say which file, which writing alone does not."""
  try:
    yield
  except OSError as error:
    if error.filename is None and error.errno is not None:
      raise OSError(error.errno, error.strerror, str(file)) from error
    raise


def write_text(file: Path, text: str) -> None:
  """As `whole`."""
  with whole(file) as stream:
    stream.write(text.encode())


def write_json(file: Path, value: Any) -> None:
  write_text(file, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(
  file: Path, kinds: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
  """An object that has these keys, with values of these types.

  Raises FileNotFoundError, or Damaged where it is something else.
  """

  def parse(content: bytes) -> dict[str, Any]:
    value = strict_json.loads(content)
    if not isinstance(value, dict):
      raise ValueError(f'it is {value!r:.40}, no object')
    for key in kinds:
      if key not in value:
        raise ValueError(f'it lacks {key}')
    if wrong := [key for key in kinds if not _is(value[key], kinds[key])]:
      raise ValueError(f'{wrong[0]} is {value[wrong[0]]!r:.80}')
    return value

  return parsed(file, parse)


def parsed(file: Path, parse: Callable[[bytes], T]) -> T:
  """What `parse` makes of a file's content.

  Raises FileNotFoundError, or Damaged where `parse` raises ValueError.
  """
  try:
    return parse(file.read_bytes())
  except FileNotFoundError:
    raise FileNotFoundError(f'{file} does not exist.') from None
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise Damaged(
      f'{file} cannot be read ({str(reason).rstrip(".")}): put back what '
      'jaxnas wrote, or give another folder.'
    ) from error


def read_rows(
  file: Path, kinds: Mapping[str, type | tuple[type, ...]]
) -> list[dict[str, Any]]:
  """Objects with these keys and types in a jsonl file.

  What is something else, such as a row cut short, is left out.
  """
  rows = []
  for line in file.read_bytes().splitlines() if file.exists() else ():
    try:
      row = strict_json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and all(
      key in row and _is(row[key], kind) for key, kind in kinds.items()
    ):
      rows.append(row)
  return rows


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
  # True is an int, and no number.
  return isinstance(value, kind) and not isinstance(value, bool)


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """All of them or nothing; rows are appended after the last one."""
  write_text(file, ''.join(json.dumps(row) + '\n' for row in rows))


def write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
  """As `whole`; read it with `read_npz`."""
  with whole(file) as stream:
    np.savez(stream, allow_pickle=False, **arrays)


def read_npz(
  file: Path, keys: Collection[str] | None = None
) -> dict[str, np.ndarray]:
  """Its arrays, or those of `keys`, which must be there; never unpickles.

  Raises FileNotFoundError, or Damaged naming the file.
  """
  if not file.exists():
    raise FileNotFoundError(f'{file} does not exist.')
  try:
    with np.load(file, allow_pickle=False) as arrays:
      found = {
        key: arrays[key] for key in arrays if keys is None or key in keys
      }
  except Exception as error:
    # Whatever zip files and headers that are damaged make numpy raise.
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise Damaged(
      f'{file} is not a readable npz without pickled objects ({reason:.200}): '
      'put back what was written, or take it away.'
    ) from error
  if missing := [key for key in keys or () if key not in found]:
    raise Damaged(
      f'{file} lacks {", ".join(missing)}: it is no such file, or incomplete.'
    )
  return found
