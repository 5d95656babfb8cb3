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
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxnas import locks
from jaxnas.config import Config, differences, from_json, to_json

# About when this process began.
START_S = time.monotonic()

VERSIONS = ('jaxnas', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def new_workdir(config_file: str) -> Path:
  """A folder under runs/ that is not there yet."""
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  return Path('runs') / f'{Path(config_file).stem}-{now}'


def open_run(workdir: Path, config: Config, *, resume: bool) -> None:
  """Makes or reopens a run directory, and keeps other processes out of it.

  Raises ValueError where a run would be overwritten, where the experiment to
  resume is another one, or where another process is at it.
  """
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


def read_config(workdir: Path) -> Config:
  """Raises FileNotFoundError where there is no run."""
  file = workdir / 'config.json'
  if not file.exists():
    raise FileNotFoundError(
      f'{workdir} holds no run (no config.json): start one with --config FILE.'
    )
  return from_json(file.read_text())


def environment(**facts: Any) -> dict[str, Any]:
  """Where a result comes from: command, machine, versions, and `facts`."""
  return {
    'command': ' '.join(['python', '-m', *sys.orig_argv[2:]]),
    'python': platform.python_version(),
    'platform': platform.platform(),
    'cpus': os.cpu_count(),
    'versions': {name: importlib.metadata.version(name) for name in VERSIONS},
    **facts,
  }


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


def read_rows(file: Path, keys: Collection[str]) -> list[dict[str, Any]]:
  """Objects with these keys in a jsonl file; one cut short is left out."""
  rows = []
  for line in file.read_text().splitlines() if file.exists() else ():
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and row.keys() >= {*keys}:
      rows.append(row)
  return rows


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
  """Its arrays, or those of `keys` that it has; never unpickles.

  Raises FileNotFoundError or ValueError naming the file.
  """
  if not file.exists():
    raise FileNotFoundError(f'{file} does not exist.')
  try:
    with np.load(file, allow_pickle=False) as arrays:
      return {key: arrays[key] for key in arrays if keys is None or key in keys}
  except Exception as error:
    raise ValueError(
      f'{file} is not a readable npz without pickled objects: {error}'
    ) from error
