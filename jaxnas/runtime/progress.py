"""Shows progress: a bar on a terminal, lines elsewhere."""

import contextlib
import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from jaxnas.runtime import files

T = TypeVar('T')

SECONDS_BETWEEN_LINES = 30.0

# What takes longer is worth a line.
LONG_S = 2.0


@contextlib.contextmanager
def bar(
  label: str | None, total: int, *, done: int = 0
) -> Iterator[Callable[[int, str], None]]:
  """Yields advance(count, text); the text stands behind the bar.

  Args:
    label: name of the work; None shows nothing, and so does a process that
      writes nothing.
    total: units of work.
    done: units that an earlier run did.
  """
  if label is None or not files.writes():
    yield lambda count, text: None
    return
  console = Console(stderr=True)
  if console.is_terminal:
    with Progress(
      TextColumn('{task.description}'),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn('{task.fields[text]}'),
      console=console,
      transient=True,
    ) as shown:
      task = shown.add_task(label, total=total, completed=done, text='')
      yield lambda count, text: shown.update(task, advance=count, text=text)
    return
  last = time.monotonic()
  count_done, since = done, None

  def advance(count: int, text: str) -> None:
    nonlocal last, count_done, since
    count_done += count
    now = time.monotonic()
    # The first unit includes compilation, and says nothing about the others.
    since = since or (now, count_done)
    if now - last >= SECONDS_BETWEEN_LINES:
      last = now
      left = time_left(
        now - since[0], count_done - since[1], total - count_done
      )
      print(
        f'{label} {count_done}/{total}{left} {text}',
        file=sys.stderr,
        flush=True,
      )

  yield advance


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
  """Says what a process waits for, where it waits long, and how long it did."""
  if not files.writes():
    yield
    return
  start_s = time.monotonic()
  timer = threading.Timer(
    LONG_S,
    lambda: print(f'{what} ...', file=sys.stderr, flush=True),
  )
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
  took_s = time.monotonic() - start_s
  if took_s >= LONG_S:
    print(f'{what} took {took_s:.0f} s', file=sys.stderr, flush=True)


def time_left(took_s: float, count: int, left: int) -> str:
  """Returns ', H:MM:SS left', estimated from the time that `count` units took.

  Returns '' where no unit is done yet, or where a download does not tell its
  length.

  >>> time_left(60.0, 30, 1860)
  ', 1:02:00 left'
  """
  if count < 1 or left < 0:
    return ''
  left_s = round(took_s / count * left)
  return f', {datetime.timedelta(seconds=left_s)} left'


def track(
  items: Iterable[T],
  label: str | None,
  total: int,
  poll: Callable[[], None] = lambda: None,
  size: Callable[[T], int] = lambda item: 1,
  done: int = 0,
) -> Iterator[T]:
  """Yields the items, with a bar.

  Args:
    items: the work.
    label: name of the work; None shows nothing.
    total: units of work.
    poll: called before each item; may raise.
    size: units of an item.
    done: units that an earlier run did.
  """
  with bar(label, total, done=done) as advance:
    for item in items:
      poll()
      yield item
      advance(size(item), '')
