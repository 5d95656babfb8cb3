"""The rate of a training, in images a second."""

import time


class Pace:
  """Images a second, over steps whose results are there.

  A step is given to the device before its result is there, and the first one
  of a process compiles: the count begins with the first result.
  """

  def __init__(self, images_per_step: int):
    self._images, self._steps, self._first = images_per_step, 0, 1
    self._begun_s, self._since_s, self._last = time.monotonic(), None, None

  def steps_done(self, count: int) -> None:
    """Notes that the results of so many steps have come at once."""
    if self._since_s is None:
      self._since_s, self._first = time.monotonic(), count
    else:
      self._steps += count

  def rate(self) -> float | None:
    """Returns None before the second result."""
    if self._since_s is None or not self._steps:
      return None
    return self._steps * self._images / (time.monotonic() - self._since_s)

  def next_row(self) -> float:
    """Returns the rate of a row of metrics, and begins the next one.

    A row of the first result alone has its rate, compilation included; one
    whose steps came with those of the row before has the rate of that.
    """
    now_s = time.monotonic()
    first = self._first * self._images / (now_s - self._begun_s)
    self._last = self.rate() or self._last or first
    self._since_s, self._steps = now_s, 0
    return self._last
