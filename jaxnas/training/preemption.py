"""SIGTERM and SIGINT as a flag that every long loop polls."""

import os
import signal
from types import FrameType, TracebackType


class Stopped(Exception):
  """Somebody asked the run to stop; whoever catches it has saved."""


class Preemption:
  """While active, a first signal asks to stop and a second one ends at once."""

  def __init__(self) -> None:
    self.requested = False
    self._before: dict[int, signal._HANDLER] = {}

  def __enter__(self) -> 'Preemption':
    for number in (signal.SIGTERM, signal.SIGINT):
      self._before[number] = signal.signal(number, self._request)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _request(self, number: int, frame: FrameType | None) -> None:
    if self.requested:
      os._exit(128 + number)
    self.requested = True

  def check(self) -> None:
    """Raises Stopped once a signal has come."""
    if self.requested:
      raise Stopped
