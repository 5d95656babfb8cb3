"""SIGTERM and SIGINT as a flag that every long loop polls."""

import os
import signal
import time
from types import FrameType, TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils

# Between two times that training asks the other processes whether to stop:
# each waits for the steps that are under way, a few milliseconds.
ASK_EVERY_S = 1.0


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

  All of them poll alike, so that they can ask one another at the same poll:
  at every `check`, and in training, whose steps are many, about once a second.
  A second signal changes nothing, since saving takes all of them.
  """

  def __init__(self) -> None:
    super().__init__()
    self._signalled = False
    self._stride = 1
    self._polls, self._since = 0, time.monotonic()

  def _request(self, number: int, frame: FrameType | None) -> None:
    self._signalled = True

  def asked(self) -> bool:
    self._polls += 1
    if not self.requested and self._polls >= self._stride:
      self._ask()
    return self.requested

  def check(self) -> None:
    self._stride = 1
    super().check()

  def _ask(self) -> None:
    """All of them get the same answers, and so the same next poll to ask at."""
    waited_s = time.monotonic() - self._since
    signalled_P, waited_s_P = multihost_utils.process_allgather(
      np.array([self._signalled, waited_s], np.float32)
    ).T
    self.requested = bool(signalled_P.any())
    pace = self._polls / max(waited_s_P.max(), 1e-9)
    self._stride = max(1, min(2 * self._stride, int(pace * ASK_EVERY_S)))
    self._polls, self._since = 0, time.monotonic()


def of_processes() -> Preemption:
  """What suits the processes there are."""
  return Preemption() if jax.process_count() == 1 else Together()
