"""Runs a command as a process, whose standard streams may be full or gone."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from jaxnas.runtime import errors, loading


def run(main: Callable[[], int | None]) -> NoReturn:
  """Calls the command and ends the process with its exit code.

  What a command prints is no part of its work. Where nobody can read it any
  more, as on a full disk, by a closed pipe or in a closed terminal, the work
  goes on, one line says so, and a 0 of the command becomes a 1.
  """
  _open_missing()
  # A line about lost errors could be read by nobody.
  err: Any = _Guarded(sys.stderr, lambda error: None)
  out: Any = _Guarded(
    sys.stdout,
    lambda error: print(
      f'error: standard output cannot be written to ({error.strerror}): the '
      'command goes on without it.',
      file=err,
    ),
  )
  sys.stdout, sys.stderr = out, err
  try:
    # Libraries are loaded outside of what watches over the work itself.
    with errors.memory_of():
      code = main() or 0
  except errors.OutOfMemory as error:
    print(f'error: {errors.line_of(error)}', file=sys.stderr)
    code = 1
  except SystemExit as end:
    code = end.code or 0
  except KeyboardInterrupt:
    print('stopped', file=sys.stderr)
    code = loading.INTERRUPTED
  loading.said()
  out.flush()
  sys.exit(code or int(out.lost))


def _open_missing() -> None:
  """Opens streams that are closed, whose numbers files would get else."""
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)
    if getattr(sys, name) is None:
      setattr(sys, name, open(number, 'w' if number else 'r'))  # noqa: SIM115


class _Guarded:
  """A stream that loses what can't be written, and goes on.

  Args:
    stream: to write to; what else it can do, this can.
    tell: called with the first error.
  """

  def __init__(self, stream: Any, tell: Callable[[OSError], None]):
    self._stream, self._tell = stream, tell
    self.lost = False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    if text:
      loading.said()
    try:
      return self._stream.write(text)
    except OSError as error:
      self._lose(error)
      return len(text)

  def writelines(self, lines: Any) -> None:
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    try:
      self._stream.flush()
    except OSError as error:
      self._lose(error)

  def _lose(self, error: OSError) -> None:
    """Sends to nowhere what is still kept, and all that follows."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self._stream.fileno())
    os.close(nowhere)
    self._stream.flush()
    self.lost = True
    self._tell(error)
