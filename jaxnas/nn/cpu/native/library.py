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
    'jaxnas_channel_moments',
    'jaxnas_normalise_channels',
    'jaxnas_normalise_channels_gradient',
  ),
  'onednn': (
    'jaxnas_onednn_convolve',
    'jaxnas_onednn_input_gradient',
    'jaxnas_onednn_kernel_gradient',
    'jaxnas_onednn_multiply',
    'jaxnas_onednn_multiply_gradient',
  ),
  'pooling': (
    'jaxnas_shrink',
    'jaxnas_shrink_gradient',
    'jaxnas_average',
  ),
  'relayout': ('jaxnas_relayout',),
  'unwritten': ('jaxnas_extend',),
}
# Distributions that a source needs, and the end of a path to what it needs of
# each: a library, or a header.
NEEDS = {
  'onednn': {
    'onednn-cpu-gomp': 'libdnnl.so.3',
    'onednn-devel-cpu-gomp': 'oneapi/dnnl/dnnl.hpp',
  }
}
BUILD_S = 120


# The library of each source that was asked about; None where XLA serves.
_loaded: dict[str, ctypes.CDLL | None] = {}


def available(source: str) -> bool:
  """Registers a source's functions with XLA; returns False where it can't.

  That is so without a C++ compiler, or a library or instructions that the
  source needs, and with a warning where the compiler fails.
  """
  return load(source) is not None


def load(source: str) -> ctypes.CDLL | None:
  """Returns a source's library, if it is `available`."""
  if source not in _loaded:
    _loaded[source] = _registered(source)
  return _loaded[source]


def asked() -> tuple[str, ...]:
  """Returns the sources of which `available` was asked in this process."""
  return tuple(_loaded)


def _registered(source: str) -> ctypes.CDLL | None:
  compiler = shutil.which(os.environ.get('CXX', 'c++'))
  needed = _needed(source)
  if compiler is None or needed is None:
    return None
  try:
    with progress.waiting(f'compiling {source}.cc (once on this machine)'):
      library = _library(FOLDER / f'{source}.cc', compiler, needed)
  except (OSError, subprocess.SubprocessError) as error:
    failed = isinstance(error, subprocess.CalledProcessError)
    lines = ((failed and error.stderr.strip()) or str(error)).splitlines()
    said = next((line for line in lines if 'error' in line), lines[0])
    warnings.warn(
      f'XLA serves in place of {source}.cc, as {compiler} failed: {said}. Set '
      "CXX to another compiler, or to '' for none.",
      stacklevel=4,
    )
    return None
  # A source may find at run time that this processor is none for it.
  finds = getattr(library, f'jaxnas_{source}_instructions', None)
  if finds is not None and not finds():
    return None
  for name in TARGETS[source]:
    jax.ffi.register_ffi_target(
      name, jax.ffi.pycapsule(getattr(library, name)), platform='cpu'
    )
  return library


def _needed(source: str) -> list[str] | None:
  """Returns options that name what a source needs; None: not installed."""
  options = []
  for distribution, end in NEEDS.get(source, {}).items():
    try:
      files = importlib.metadata.files(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
      return None
    paths = [str(file.locate()) for file in files if str(file).endswith(end)]
    if not paths:
      return None
    root = os.path.realpath(paths[0].removesuffix(end))
    if '.so' in end:
      options += [f'-L{root}', f'-l:{end}', f'-Wl,-rpath,{root}']
    else:
      options += [f'-I{root}']
  return options


def _library(source: Path, compiler: str, needed: list[str]) -> ctypes.CDLL:
  """Loads a source built for this machine, from the cache or the compiler.

  Raises OSError or subprocess.SubprocessError.
  """
  tune = '-march=native' if platform.machine() == 'x86_64' else '-mcpu=native'
  command = [
    *(compiler, '-std=c++17', '-O3', tune, '-ffp-contract=fast', '-w'),
    *('-fPIC', '-shared', f'-I{jax.ffi.include_dir()}', str(source)),
    *needed,
  ]
  version = importlib.metadata.version('jaxlib')
  texts = [file.read_text() for file in (source, *sorted(FOLDER.glob('*.h')))]
  parts = *texts, ' '.join(command), version, cpu()
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


def cpu() -> str:
  """Names this machine's instructions; other machines may share the cache."""
  with contextlib.suppress(OSError):
    for line in Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith(('flags', 'Features')):
        return line
  return f'{platform.machine()} {platform.processor()} {platform.node()}'
