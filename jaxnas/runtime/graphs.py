"""Programs as CUDA graphs, in which no branch waits for the host.

XLA runs a branch on a GPU by copying its number to the host and waiting for it,
unless all of the branch can be part of a CUDA graph, as which convolutions do
not count by default. A training step of NAS-Bench-Macro waits 16 times so, and
one of NAS-Bench-201 180 times. With `OPTIONS` both wait for nothing, and the
graph starts their kernels instead of the host.

Not every convolution can be captured, which is why XLA leaves them out: where
one fails, its program is compiled again as XLA would by default. The options
are given program by program, since XLA ends a process whose XLA_FLAGS it does
not know, and reads them once. Not run: there was no GPU.
"""

import ctypes
import os
import re
from collections.abc import Callable
from typing import Any

from jaxnas.runtime import environment, errors

# Functions import JAX late, so that `--help` is quick.

# What may be part of a graph: XLA's own choice, and convolutions. Graphs of one
# kernel count, since a branch may have no more.
OPTIONS: dict[str, Any] = {
  'xla_gpu_enable_command_buffer': 'FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,'
  'CONDITIONAL,DYNAMIC_SLICE_FUSION,CONVOLUTION',
  'xla_gpu_graph_min_graph_size': 1,
}
# The variable that turns them off, by 0.
SWITCH = 'JAXNAS_GRAPHS'
# Graphs have branches since this version of CUDA's driver.
OLDEST = (12, 3)
# XLA runs a program once or twice before it captures it.
TRIES = 3

_said: set[str] = set()
# Why programs of this process are no graphs, once one could not be.
_failed: list[str] = []


def jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """Returns `jax.jit` of a function, as graphs where this machine has them.

  Args:
    fn: a function with branches.
    options: of `jax.jit`; of arguments the first one alone may be donated.
  """
  import jax

  plain = jax.jit(fn, **options)
  if jax.default_backend() != 'gpu':
    return plain
  why = reason()
  if why is not None:
    _say(f'branches wait for the host: {why}')
    return plain
  _say(f'CUDA graphs have the branches; {SWITCH}=0 turns that off')
  captured = jax.jit(fn, compiler_options=OPTIONS, **options)
  return Tried(captured, plain, donated='donate_argnums' in options)


class Tried:
  """A function that is `captured`, or `plain` where that fails.

  The first calls wait for their results. With several processes a failure ends
  the run, since the others would go on with what this one has not computed.

  Args:
    captured: may fail in any of its first calls.
    plain: computes the same.
    donated: both take away their first argument, of which the first calls get
      a copy.
  """

  def __init__(self, captured: Any, plain: Any, *, donated: bool):
    self._run, self._plain, self._donated = captured, plain, donated
    self._calls = 0

  def __call__(self, *args: Any) -> Any:
    if _failed:
      self._run = self._plain
    if self._run is self._plain or self._calls >= TRIES:
      return self._run(*args)
    self._calls += 1
    return self._try(*args)

  def __getattr__(self, name: str) -> Any:
    """Gives what else a jitted function has, such as `lower`."""
    return getattr(self._run, name)

  def _try(self, *args: Any) -> Any:
    import jax

    given = args
    if self._donated:
      given = (jax.tree.map(lambda leaf: leaf.copy(), args[0]), *args[1:])
    try:
      return jax.block_until_ready(self._run(*given))
    except jax.errors.JaxRuntimeError as error:
      if jax.process_count() > 1:
        raise
      # What fails without graphs as well raises its own error here.
      out = jax.block_until_ready(self._plain(*args))
      _failed.append(f'capturing failed ({errors.reason(error)})')
      _say(
        f'warning: {_failed[-1]}: branches wait for the host, as with '
        f'{SWITCH}=0'
      )
      return out


def reason() -> str | None:
  """Says why programs are no graphs on this GPU; None where they are."""
  if _failed:
    return _failed[0]
  if os.environ.get(SWITCH) == '0':
    return f'{SWITCH} is 0'
  flags = os.environ.get('XLA_FLAGS', '')
  if named := [name for name in OPTIONS if re.search(rf'--{name}\b', flags)]:
    return f'XLA_FLAGS has {named[0]}'
  version = driver()
  if version is None:
    return 'there is no CUDA driver'
  if version < OLDEST:
    found, oldest = ('.'.join(map(str, each)) for each in (version, OLDEST))
    return (
      f'the driver is for CUDA {found}, and graphs have branches since '
      f'{oldest}: a newer driver has them'
    )
  return None


def describe() -> dict[str, str]:
  """Returns what XLA was told, for environment.json."""
  import jax

  given = os.environ.get('XLA_FLAGS', '')
  out = {'xla_flags': environment.without_secrets(given)}
  if jax.default_backend() == 'gpu':
    out['graphs'] = reason() or 'on'
  return out


def driver() -> tuple[int, int] | None:
  """Returns the CUDA version of the driver; None where there is none."""
  try:
    library = ctypes.CDLL('libcuda.so.1')
  except OSError:
    return None
  number = ctypes.c_int()
  if library.cuDriverGetVersion(ctypes.byref(number)):
    return None
  return number.value // 1000, number.value % 1000 // 10


def _say(line: str) -> None:
  """Prints a line once in a process."""
  if line not in _said:
    _said.add(line)
    print(line, flush=True)
