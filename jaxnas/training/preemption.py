"""SIGTERM and SIGINT as a flag that every long loop polls."""

import os
import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


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

  def asked(self) -> bool:
    """Whether to stop now: what loops poll."""
    return self.requested

  def check(self) -> None:
    """Raises Stopped once a signal has come."""
    if self.asked():
      raise Stopped


class Together(Preemption):
  """The same among processes: a signal to one of them stops all.

  JAX takes the signal and has them agree on the poll at which to stop, since
  all of them poll alike; a second signal changes nothing.
  """

  def __init__(self) -> None:
    super().__init__()
    self._polls = 0

  def __enter__(self) -> 'Together':
    return self

  def asked(self) -> bool:
    self._polls += 1
    if not self.requested:
      self.requested = multihost_utils.reached_preemption_sync_point(
        self._polls
      )
    return self.requested


def of_processes() -> Preemption:
  """What suits the processes there are."""
  return Preemption() if jax.process_count() == 1 else Together()
