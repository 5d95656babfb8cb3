"""Builds the library on demand, and keeps it."""

import contextlib
import ctypes
import functools
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

from jaxnas import caches

FOLDER = Path(__file__).parent
# Of each source what XLA's registry gets.
TARGETS = {
  'dense': ('jaxnas_convolve', 'jaxnas_kernel_gradient'),
  'middle': ('jaxnas_middle', 'jaxnas_middle_gradient'),
  'relayout': ('jaxnas_relayout',),
  'unit_sum': ('jaxnas_unit_sum',),
  'unwritten': ('jaxnas_extend',),
}
BUILD_S = 120


@functools.cache
def available(source: str) -> bool:
  """Whether XLA knows a source's functions, which it is told of here.

  False without a C++ compiler; with a warning where there is one that fails.
  """
  if (compiler := shutil.which(os.environ.get('CXX', 'c++'))) is None:
    return False
  try:
    library = _library(FOLDER / f'{source}.cc', compiler)
  except (OSError, subprocess.SubprocessError) as error:
    failed = isinstance(error, subprocess.CalledProcessError)
    lines = ((failed and error.stderr.strip()) or str(error)).splitlines()
    said = next((line for line in lines if 'error' in line), lines[0])
    warnings.warn(
      f'XLA serves in place of {source}.cc, as {compiler} failed: {said}. Set '
      "CXX to another compiler, or to ''.",
      stacklevel=2,
    )
    return False
  for name in TARGETS[source]:
    jax.ffi.register_ffi_target(
      name, jax.ffi.pycapsule(getattr(library, name)), platform='cpu'
    )
  return True


def _library(source: Path, compiler: str) -> ctypes.CDLL:
  """For this machine, from the cache or the compiler.

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
  key = hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]
  kept = caches.folder('native') / f'{source.stem}-{key}.so'
  if kept.exists():
    return ctypes.CDLL(str(kept))
  with contextlib.suppress(OSError):
    kept.parent.mkdir(parents=True, exist_ok=True)
  # Another process may be at it, too: what has the name is whole. Without a
  # folder to keep it in it serves this process.
  folder = kept.parent if os.access(kept.parent, os.W_OK) else None
  with tempfile.TemporaryDirectory(prefix='building-', dir=folder) as building:
    part = Path(building) / kept.name
    subprocess.run(
      [*command, '-o', str(part)],
      check=True,
      capture_output=True,
      text=True,
      timeout=BUILD_S,
    )
    library = ctypes.CDLL(str(part))
    if folder:
      part.replace(kept)
  return library


def _cpu() -> str:
  """What instructions this machine has; others may share the cache."""
  with contextlib.suppress(OSError):
    for line in Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith(('flags', 'Features')):
        return line
  return f'{platform.machine()} {platform.processor()} {platform.node()}'
