"""Prepares a command's process before JAX computes."""

import os
import sys
from typing import Any

from jaxnas.runtime import (
  allocator,
  cache,
  errors,
  jax_settings,
  loading,
  memory,
  processes,
)

# With it a GPU adds in the same order every time. Kernels are still chosen by
# timing them, which differs from start to start: the choices are kept in the
# cache of compiled programs, and so are the same while that is.
DETERMINISTIC = ('--xla_gpu_exclude_nondeterministic_ops=true',)

# XLA ends the process where it cannot map what it wants. With 0.55 GB more the
# smallest run still died of it; with 0.87 GB it runs, or says what is lacking.
ADDRESS_SPACE = 3 * 2**28

# Extras of this package, by the platform whose support they install.
EXTRAS = {'cuda': 'cuda12', 'gpu': 'cuda12', 'tpu': 'tpu'}


def set_deterministic() -> None:
  """Tells XLA to be deterministic; call it before the first array is made."""
  given = os.environ.get('XLA_FLAGS', '').split()
  flags = [*given, *(flag for flag in DETERMINISTIC if flag not in given)]
  os.environ['XLA_FLAGS'] = ' '.join(flags)


def begin() -> None:
  """Prepares what every command uses, before it imports its libraries.

  A name that the terminal cannot show is printed with escapes, so that it ends
  no run; and libraries find a folder for what they cache.

  Raises ValueError where JAX cannot be imported with the variables that it is
  given.
  """
  for stream in (sys.stdout, sys.stderr):
    # A notebook has streams of its own, which take any text.
    reconfigure: Any = getattr(stream, 'reconfigure', None)
    if reconfigure and getattr(stream, 'errors', None) == 'strict':
      reconfigure(errors='backslashreplace')
  cache.folder('')
  jax_settings.check_variables()


def prepare_process(distributed: processes.Distributed | None = None) -> None:
  """Keeps freed memory and compiled programs; call it before JAX computes.

  Programs go to the cache that JAX was given, as JAX_COMPILATION_CACHE_DIR or
  otherwise, and else to the user's own.

  Args:
    distributed: the processes to join; None: this process runs alone.

  Raises ValueError where they cannot be joined, JAX finds no device, or the
  settings of JAX or XLA are none to compute with, and OutOfMemory where this
  process may take too little.
  """
  begin()
  allocator.tune()
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  jax_settings.check()
  config: Any = jax.config  # it makes its attributes as it goes
  if config.jax_compilation_cache_dir is None:
    folder = str(cache.folder('compiled'))
    jax.config.update('jax_compilation_cache_dir', folder)
    # It may have compiled without one, as in a notebook.
    compilation_cache.reset_cache()
  # The default keeps only programs that took a second to compile. With 0 a
  # warm start compiles nothing.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  if distributed is not None:
    processes.start(distributed)
  check_devices()
  if (left := memory.of_process()) < ADDRESS_SPACE:
    raise errors.OutOfMemory(
      f'this process may take {max(left, 0) / 1e9:.2g} GB of address space '
      f'more, and XLA takes {ADDRESS_SPACE / 1e9:.2g} GB at least: raise the '
      'limit (ulimit -v).'
    )
  # All libraries are loaded.
  loading.over()


def check_devices() -> None:
  """Raises ValueError, which says what to install, where JAX finds no device.

  Every process must have joined the others before.
  """
  import jax

  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    # It asserts that there is one; other errors say more.
    config: Any = jax.config
    asked, why = config.jax_platforms, ''
    if str(error):
      why = f' ({errors.reason(error)})'
    if not asked:
      raise ValueError(
        f'JAX finds no device{why}: JAX_PLATFORMS=cpu takes the processor.'
      ) from error
    extras = {EXTRAS[name] for name in asked.split(',') if name in EXTRAS}
    install = ''.join(
      f", or pip install 'jaxnas[{extra}]' where there is one"
      for extra in sorted(extras)
    )
    raise ValueError(
      f'JAX_PLATFORMS is {asked}, and JAX finds no such device here{why}: '
      f'unset it for what there is{install}.'
    ) from error
