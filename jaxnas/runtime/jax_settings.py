"""Holds what the environment tells JAX and XLA to what jaxnas computes with.

Both read variables of the environment while they begin: JAX ends at a bad one
with a traceback, and XLA ends the process with a line of its own. Others are
fine with JAX and change what jaxnas computes, without a word.
"""

import functools
import importlib.metadata
import os
import re
import subprocess
import sys
from typing import Any

from jaxnas.runtime import errors

# Options of JAX, and the values with which jaxnas computes. With other random
# numbers or in float64 the same seed is another run; the last two make JAX
# refuse what libraries do.
EXPECTED = {
  'jax_enable_x64': (False,),
  'jax_default_prng_impl': ('threefry2x32',),
  'jax_threefry_partitionable': (True,),
  'jax_numpy_dtype_promotion': ('standard',),
  'jax_numpy_rank_promotion': ('allow', 'warn'),
}

# Reads XLA_FLAGS as a training does, in a fraction of a second.
_READ_FLAGS = 'from jaxlib import xla_client; xla_client.CompileOptions()'

# What XLA logs at an error, behind its place in XLA's source.
_LOGGED = re.compile(r'^[EF]\d{4} .*?\] *(.+)$', re.MULTILINE)


def check_variables() -> None:
  """Raises ValueError where JAX cannot be imported with its variables.

  Nothing is imported where there are none.
  """
  given = {
    name: value for name, value in os.environ.items() if name.startswith('JAX_')
  }
  if not given:
    return
  try:
    import jax  # noqa: F401
  except ValueError as error:
    # JAX's text names the variable, its option, or neither of them.
    text = str(error)
    named = [name for name in given if re.search(rf'\b{name}\b', text, re.I)]
    settings = ', '.join(f'{name}={given[name]}' for name in named or given)
    raise ValueError(
      f'JAX cannot be imported with {settings} ({errors.reason(error)}): '
      'unset it, or give a value that JAX takes.'
    ) from error


def check() -> None:
  """Raises ValueError where jaxnas cannot compute with the settings of JAX or
  XLA; call it before JAX computes."""
  check_options()
  check_xla_flags()


def check_options() -> None:
  """Raises ValueError where an option of JAX changes what jaxnas computes."""
  import jax

  config: Any = jax.config
  for name, values in EXPECTED.items():
    # Later versions may drop an option whose default is the one expected.
    value = getattr(config, name, values[0])
    if value not in values:
      variable = name.upper()
      remedy = (
        f'unset {variable}'
        if variable in os.environ
        else f"call jax.config.update('{name}', {values[0]!r})"
      )
      raise ValueError(
        f"JAX's option {name} is {value}, and jaxnas computes with "
        f'{values[0]} alone: {remedy}.'
      )


def check_xla_flags() -> None:
  """Raises ValueError where XLA would end this process because of XLA_FLAGS."""
  flags = os.environ.get('XLA_FLAGS', '')
  if flags.strip() and (why := _refusal(flags)):
    version = importlib.metadata.version('jaxlib')
    raise ValueError(
      f'XLA_FLAGS is {flags!r}, which jaxlib {version} refuses ({why}): unset '
      'it, or keep the flags that this version knows.'
    )


@functools.cache
def _refusal(flags: str) -> str:
  """Returns what XLA says against these flags, or nothing.

  Another process reads them, since XLA ends the one that does.
  """
  probe = subprocess.run(
    [sys.executable, '-c', _READ_FLAGS],
    env={**os.environ, 'XLA_FLAGS': flags},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
    check=False,
  )
  said = _LOGGED.search(probe.stderr)
  # It may have failed for lack of memory, which this process says better.
  if not probe.returncode or said is None or 'flags' not in said[0]:
    return ''
  return ' '.join(said[1].split())[:400]
