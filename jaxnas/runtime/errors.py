"""Ends of a command: one line to the user, and an exit code for each kind.

Exit codes: 0 done, 1 failed, 2 usage; after saving, 130 stopped by Ctrl-C and
143 by another signal.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.runtime import loading, lock, signals


class Ends(NamedTuple):
  """Says what becomes of an error: `COMMAND` for a process, `CALL` in Python.

  usage: () -> context of what is checked before any work
  outcome: (workdir, message after a signal) -> context of the work
  """

  usage: Callable[[], Any]
  outcome: Callable[..., Any]


class Damaged(ValueError):
  """A file does not hold what it must; the message names it and the remedy."""


class Different(ValueError):
  """A checkpoint or an image is whole, but belongs to another experiment."""


class Stopped(Exception):
  """A signal asked the run to stop, and the run has saved."""


class OutOfMemory(Exception):
  """Memory ran out; the message says what to lower."""


# Errors of work that has begun: training raises the first, the disk or images
# the second, and files of the run the third.
OF_WORK = (ArithmeticError, OSError, Damaged, OutOfMemory)


# Fields that decide how much memory the work of a run takes.
TAKE_MEMORY = (
  'data.batch_size',
  'sampler.paths',
  'ranking.batch_size',
  'density.memory_gb',
)

STOPPED, INTERRUPTED = 143, loading.INTERRUPTED

# What the loader says where the address space has no room for a library.
_UNMAPPED = 'failed to map segment'

# Characters of an error that are printed; a value in it may be a whole file.
LONGEST = 2000


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
  """Turns errors of bad input, found before any work, into exit code 2."""
  try:
    with memory_of(*TAKE_MEMORY):
      yield
  except (ValueError, OSError, OutOfMemory) as error:
    lock.release()
    print(f'error: {line_of(error)}', file=sys.stderr)
    raise SystemExit(2) from error


@contextlib.contextmanager
def memory_of(*fields: str) -> Iterator[None]:
  """Raises OutOfMemory where memory runs out, of a device or of the host.

  Args:
    fields: the fields that decide how much memory the work within takes, if
      any do.
  """
  try:
    yield
  except Exception as error:
    if not _is_of_memory(error):
      raise
    lower = f'lower {_either(fields)}, or ' if fields else ''
    raise OutOfMemory(
      f'memory ran out ({reason(error)}): {lower}take a machine with more.'
    ) from error


def _is_of_memory(error: BaseException | None) -> bool:
  """Returns True where memory was lacking; libraries name that as the cause."""
  while error is not None and not isinstance(error, OutOfMemory):
    # JAX's error has this name, and importing it here would import JAX.
    of_jax = type(error).__name__ == 'JaxRuntimeError'
    if of_jax and str(error).startswith('RESOURCE_EXHAUSTED'):
      return True
    # The loader of libraries says so by an ImportError of this text.
    unmapped = isinstance(error, ImportError) and _UNMAPPED in str(error)
    if unmapped or isinstance(error, MemoryError):
      return True
    error = error.__cause__
  return False


def _either(names: Sequence[str]) -> str:
  """Lists names in words.

  >>> _either(['a', 'b', 'c'])
  'a, b or c'
  """
  *most, last = names
  return f'{", ".join(most)} or {last}' if most else last


def reason(error: BaseException) -> str:
  """Returns an error's type and text, at most 200 characters on one line.

  For errors of libraries, which may raise anything:

  >>> reason(KeyError('label'))
  "KeyError: 'label'"
  >>> reason(MemoryError())
  'MemoryError'
  """
  text = ' '.join(f'{type(error).__name__}: {error}'.split())
  return text.removesuffix(':')[:200]


def line_of(error: BaseException) -> str:
  """Returns an error's text as one line of limited length."""
  text = str(error)
  if isinstance(error, OSError) and error.filename is not None:
    text = f'{error.filename}: {error.strerror}'
  text = ' '.join(text.splitlines()) or type(error).__name__
  return text if len(text) <= LONGEST else f'{text[:LONGEST]} [...]'


def code_of_stop() -> int:
  """Returns the exit code of a command that a signal has stopped."""
  return INTERRUPTED if signals.interrupted() else STOPPED


@contextlib.contextmanager
def outcome(workdir: Path, stopped: str | None = None) -> Iterator[None]:
  """Turns the errors of a run that has begun into its exit codes.

  Args:
    workdir: the run's folder.
    stopped: the message after a signal; None says to go on with --resume.
  """
  try:
    with memory_of(*TAKE_MEMORY):
      yield
  except Stopped:
    print(
      stopped
      or f'stopped, nothing lost: go on with --workdir {workdir} --resume',
      file=sys.stderr,
    )
    raise SystemExit(code_of_stop()) from None
  except Different as error:
    print(f'error: {line_of(error)}', file=sys.stderr)
    raise SystemExit(2) from error
  except OF_WORK as error:
    print(f'error: {line_of(error)}', file=sys.stderr)
    raise SystemExit(1) from error
  finally:
    lock.release()


COMMAND = Ends(usage_errors, outcome)


# A command in a text, which stays one in Python, or a flag, which is a keyword.
_COMMAND_OR_FLAG = re.compile(
  r"(?:jaxnas\.\w+|ray \w+)(?: [^\s,;:()]+)*|(?<![^\s('])--([a-z]\w*(?:\.\w+)*)"
)
_SWITCHES = ('resume', 'overwrite', 'gather', 'dry_run')


def in_python(text: str) -> str:
  """Returns a text that speaks of flags as it is said to who calls functions.

  >>> in_python('add --resume to go on with it, or choose another --workdir.')
  'add resume=True to go on with it, or choose another workdir.'
  >>> in_python('for what was exported before, add --overwrite.')
  'for what was exported before, add overwrite=True.'
  """

  def said(found: re.Match[str]) -> str:
    name = found[1]
    return f'{name}=True' if name in _SWITCHES else name or found[0]

  return _COMMAND_OR_FLAG.sub(said, text)


@contextlib.contextmanager
def _let_through() -> Iterator[None]:
  """Lets errors through, which name keywords instead of flags."""
  try:
    with memory_of(*TAKE_MEMORY):
      yield
  except (ValueError, *OF_WORK) as error:
    if len(error.args) == 1 and isinstance(error.args[0], str):
      error.args = (in_python(error.args[0]),)
    raise


@contextlib.contextmanager
def _checked() -> Iterator[None]:
  """Lets errors of bad input through, after letting go of folders."""
  try:
    with _let_through():
      yield
  except BaseException:
    lock.release()
    raise


@contextlib.contextmanager
def _called(workdir: Path, stopped: str | None = None) -> Iterator[None]:
  """Lets the errors of work that has begun through.

  Args:
    workdir: the folder of the work.
    stopped: speaks of flags; this says what to call instead.
  """
  del stopped
  try:
    with _let_through():
      yield
  except Stopped:
    raise Stopped(
      f'stopped: {workdir} keeps what is done; the same call goes on, with '
      'resume=True where it takes that.'
    ) from None
  finally:
    lock.release()


CALL = Ends(_checked, _called)
