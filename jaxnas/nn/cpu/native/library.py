"""Builds C++ sources when they are first needed, and keeps the result.

The name of a file that is kept holds a digest of its content. What a power cut
or a full disk has left of one is not loaded: it would end the process, or fall
back upon XLA, whose digits are others.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import jax

from jaxnas.runtime import cache, progress

FOLDER = Path(__file__).parent
# Names that XLA's registry gets from each source.
TARGETS = {
  'dense': ('jaxnas_convolve', 'jaxnas_kernel_gradient'),
  'middle': ('jaxnas_middle', 'jaxnas_middle_gradient'),
  'normalising': (
    'jaxnas_moments',
    'jaxnas_normalise',
    'jaxnas_normalise_gradient',
  ),
  'relayout': ('jaxnas_relayout',),
  'unwritten': ('jaxnas_extend',),
}
BUILD_S = 120


# Whether C++ serves, by source, for those that were asked about.
_available: dict[str, bool] = {}


def available(source: str) -> bool:
  """Registers a source's functions with XLA; returns False where it can't.

  That is so without a C++ compiler, and with a warning where one fails.
  """
  if source not in _available:
    _available[source] = _registered(source)
  return _available[source]


def asked() -> tuple[str, ...]:
  """Returns the sources of which `available` was asked in this process."""
  return tuple(_available)


def _registered(source: str) -> bool:
  if (compiler := shutil.which(os.environ.get('CXX', 'c++'))) is None:
    return False
  try:
    with progress.waiting(f'compiling {source}.cc (once on this machine)'):
      library = _library(FOLDER / f'{source}.cc', compiler)
  except (OSError, subprocess.SubprocessError) as error:
    failed = isinstance(error, subprocess.CalledProcessError)
    lines = ((failed and error.stderr.strip()) or str(error)).splitlines()
    said = next((line for line in lines if 'error' in line), lines[0])
    warnings.warn(
      f'XLA serves in place of {source}.cc, as {compiler} failed: {said}. Set '
      "CXX to another compiler, or to '' for none.",
      stacklevel=3,
    )
    return False
  for name in TARGETS[source]:
    jax.ffi.register_ffi_target(
      name, jax.ffi.pycapsule(getattr(library, name)), platform='cpu'
    )
  return True


def _library(source: Path, compiler: str) -> ctypes.CDLL:
  """Loads a source built for this machine, from the cache or the compiler.

  Raises OSError or subprocess.SubprocessError.
  """
  tune = '-march=native' if platform.machine() == 'x86_64' else '-mcpu=native'
  command = [
    *(compiler, '-std=c++17', '-O3', tune, '-ffp-contract=fast', '-w'),
    *('-fPIC', '-shared', f'-I{jax.ffi.include_dir()}', str(source)),
  ]
  version = importlib.metadata.version('jaxlib')
  texts = [file.read_text() for file in (source, *sorted(FOLDER.glob('*.h')))]
  parts = *texts, ' '.join(command), version, _cpu()
  name = f'{source.stem}-{_digest(chr(10).join(parts).encode())}'
  folder = cache.folder('native')
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
  if (kept := _kept(folder, name)) is not None:
    return kept
  # Where the cache can't be written to, or is full, the library serves this
  # process alone.
  if os.access(folder, os.W_OK):
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
      return _built(command, name, folder)
  return _built(command, name, None)


def _kept(folder: Path, name: str) -> ctypes.CDLL | None:
  """Loads a library that is whole; removes what is left of one that is not."""
  for file in folder.glob(f'{name}-*.so'):
    with contextlib.suppress(OSError):
      if file.stem == f'{name}-{_digest(file.read_bytes())}':
        return ctypes.CDLL(str(file))
      file.unlink()
  return None


def _built(command: list[str], name: str, folder: Path | None) -> ctypes.CDLL:
  """Builds a library, loads it, and keeps it in the folder, if there is one.

  Another process may build the same: a file gets its name when it is whole.

  Raises OSError or subprocess.SubprocessError.
  """
  with tempfile.TemporaryDirectory(prefix='building-', dir=folder) as building:
    part = Path(building) / f'{name}.so'
    subprocess.run(
      [*command, '-o', str(part)],
      check=True,
      capture_output=True,
      text=True,
      timeout=BUILD_S,
    )
    library = ctypes.CDLL(str(part))
    if folder is not None:
      with part.open('rb') as stream:
        digest = _digest(stream.read())
        os.fsync(stream.fileno())
      part.replace(folder / f'{name}-{digest}.so')
  return library


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _cpu() -> str:
  """Names this machine's instructions; other machines may share the cache."""
  with contextlib.suppress(OSError):
    for line in Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith(('flags', 'Features')):
        return line
  return f'{platform.machine()} {platform.processor()} {platform.node()}'
