"""Progress that people can see: a bar on a terminal, lines elsewhere."""

import contextlib
import sys
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

from jaxnas import runs

T = TypeVar('T')

SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def bar(
  label: str | None, total: int, *, done: int = 0
) -> Iterator[Callable[[int, str], None]]:
  """Yields advance(count, text); the text stands behind the bar.

  Args:
    label: what is going on; None shows nothing, and so does a process that
      writes nothing.
    total: units of work.
    done: those that an earlier run did.
  """
  if label is None or not runs.writes():
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
  start = last = time.monotonic()
  count_done = done

  def advance(count: int, text: str) -> None:
    nonlocal last, count_done
    count_done += count
    now = time.monotonic()
    if now - last >= SECONDS_BETWEEN_LINES:
      last = now
      pace_s = (now - start) / max(count_done - done, 1)
      left_s = pace_s * (total - count_done)
      # A download may not say how long it is.
      left = f', {left_s:.0f} s left' if left_s >= 0 else ''
      print(
        f'{label} {count_done}/{total}{left} {text}',
        file=sys.stderr,
        flush=True,
      )

  yield advance


def track(
  items: Iterable[T],
  label: str | None,
  total: int,
  poll: Callable[[], None] = lambda: None,
  size: Callable[[T], int] = lambda item: 1,
  done: int = 0,
) -> Iterator[T]:
  """The items, with a bar.

  Args:
    items: what is worked through.
    label: what is going on; None shows nothing.
    total: units of work.
    poll: called before each item; may raise.
    size: units of an item.
    done: those that an earlier run did.
  """
  with bar(label, total, done=done) as advance:
    for item in items:
      poll()
      yield item
      advance(size(item), '')
