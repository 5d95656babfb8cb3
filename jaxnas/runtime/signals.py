"""Signals that ask a command to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

ASK_TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Those that came while they were last handled, in their order.
_came: list[int] = []


@contextlib.contextmanager
def handled(
  handler: Callable[[int, FrameType | None], None],
) -> Iterator[None]:
  """Calls the handler for each of them; afterwards all is as before.

  SIGHUP, which a closed terminal sends, stays ignored where it is: `nohup` has
  asked for that.
  """
  _came.clear()

  def heard(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    handler(number, frame)

  before = {
    number: signal.signal(number, heard)
    for number in ASK_TO_STOP
    if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
  }
  try:
    yield
  finally:
    for number, handler_before in before.items():
      signal.signal(number, handler_before)


def interrupted() -> bool:
  """Returns True where Ctrl-C is what came first."""
  return _came[:1] == [signal.SIGINT]
