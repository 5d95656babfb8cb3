"""Turns signals into a flag that every long loop polls."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxnas.runtime import errors, signals

# Training asks the other processes this often whether to stop. Each time
# waits for the steps that are under way, a few milliseconds.
ASK_EVERY_S = 1.0


class Preemption:
  """While active, a first signal asks to stop and a second one ends at once.

  A terminal that closes may send SIGHUP several times: it only asks.
  """

  def __init__(self) -> None:
    self.requested = False
    self._insisting = False
    self._handled = contextlib.ExitStack()

  def __enter__(self) -> 'Preemption':
    # Python gives signals to the main thread alone.
    if threading.current_thread() is not threading.main_thread():
      return self
    self._handled.enter_context(signals.handled(self._request))
    return self

  def __exit__(self, *error: object) -> None:
    self._handled.close()

  def _request(self, number: int, frame: FrameType | None) -> None:
    if number != signal.SIGHUP:
      if self._insisting:
        os._exit(128 + number)
      self._insisting = True
    self.requested = True

  def asked(self) -> bool:
    """Returns True once the run is to stop; loops poll it."""
    return self.requested

  def check(self) -> None:
    """Raises errors.Stopped once a signal has come."""
    if self.asked():
      raise errors.Stopped


class Together(Preemption):
  """Stops all processes of a run where one of them gets a signal.

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
    """Asks all processes, which get the same answers and the same next time."""
    waited_s = time.monotonic() - self._since
    signalled_P, waited_s_P = multihost_utils.process_allgather(
      np.array([self._signalled, waited_s], np.float32)
    ).T
    self.requested = bool(signalled_P.any())
    pace = self._polls / max(waited_s_P.max(), 1e-9)
    self._stride = max(1, min(2 * self._stride, int(pace * ASK_EVERY_S)))
    self._polls, self._since = 0, time.monotonic()


def for_processes() -> Preemption:
  """Returns a Preemption for one process, or one for several."""
  return Preemption() if jax.process_count() == 1 else Together()
