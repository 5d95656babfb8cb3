"""Has tasks done somewhere, and shows how far they are."""

import datetime
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import jax
from rich.table import Table

from jaxnas.config.registry import EXECUTORS
from jaxnas.many import flags, tasks
from jaxnas.many.tasks import Ended, Task, Work
from jaxnas.runtime import progress, table
from jaxnas.runtime.preemption import Preemption

STATES = ('finished', 'running', 'waiting', 'failed')

# Lines on failures and on what runs, below which the others are counted.
SHOWN = 10


def leave_devices() -> None:
  """Leaves GPUs to the tasks: this process only looks at their results.

  Call it before JAX computes.
  """
  jax.config.update('jax_platforms', 'cpu')


def prepare(given: flags.Many) -> None:
  """Checks that the place of tasks takes them, and leaves GPUs to them.

  Raises ValueError or OSError where it is not.
  """
  leave_devices()
  name, address = given.where
  module = sys.modules[EXECUTORS.get(name).__module__]
  if (check := getattr(module, 'check', None)) is not None:
    check(address, given.needs)


def ready(given: flags.Gathers) -> None:
  """Readies this process to start tasks, or to look at their results.

  Raises as `prepare`.
  """
  if given.gather:
    leave_devices()
  elif given.in_processes:
    prepare(given)


def run(
  work: Work, given: flags.Many, preemption: Preemption, done: int = 0
) -> dict[str, str]:
  """Has all tasks done; returns the last line of each that failed, by name.

  Slurm does them later: they are submitted when this returns.

  Args:
    work: the tasks, from `tasks.begin`.
    given: where, and how many at once.
    preemption: an active one; a signal has running tasks save, and ends the
      work by Stopped.
    done: tasks that were finished before.
  """
  failed: dict[str, str] = {}
  name, address = given.where
  if not work.tasks:
    return failed
  total = done + len(work.tasks)
  with progress.bar('tasks', total, done=done) as advance:
    end = _clock(len(work.tasks))
    left = len(work.tasks)

    def tell(ended: Ended) -> None:
      nonlocal left
      left -= 1
      if ended.state == 'failed':
        failed[ended.task.name] = ended.line
      wrong = f', {len(failed)} failed' if failed else ''
      advance(int(ended.state != 'stopped'), f'{end(left)}{wrong}')

    EXECUTORS.make(
      name,
      {
        'work': work,
        'tell': tell,
        'stopped': preemption.asked,
        'workers': given.workers,
        'at_once': given.at_once,
        'address': address,
        'needs': given.needs,
      },
    )
  preemption.check()
  return failed


def _clock(count: int) -> Callable[[int], str]:
  """Returns what says when the last of so many tasks will have ended."""
  since = time.monotonic()

  def end(left: int) -> str:
    took_s = (time.monotonic() - since) / max(count - left, 1)
    now = datetime.datetime.now()
    at = now + datetime.timedelta(seconds=took_s * left)
    return f'ends {at:%H:%M}' if at.date() == now.date() else f'ends {at:%c}'

  return end


def report(failed: dict[str, str]) -> list[str]:
  """Returns a line for each reason why tasks failed, and how many did."""
  by_line: dict[str, list[str]] = {}
  for name, line in failed.items():
    by_line.setdefault(line.removeprefix('error: '), []).append(name)
  return [
    f'{names[0]}: {line}'
    if len(names) == 1
    else f'{len(names)} tasks, such as {names[0]}: {line}'
    for line, names in by_line.items()
  ]


def show(
  all_tasks: Sequence[Task], title: str, finished: Collection[str] = ()
) -> Counter[str]:
  """Prints how many tasks are in which state, what runs and what failed.

  Args:
    all_tasks: of one command.
    title: the line above them.
    finished: names of those that are known to be finished.

  Returns the counts.
  """
  states = {
    task.name: ('finished', '') if task.name in finished else tasks.state(task)
    for task in all_tasks
  }
  counts = Counter(state for state, _ in states.values())
  out = table.table(f'{title}: {len(states)} tasks', ['state', 'tasks', ''])
  out.columns[-1].justify = 'left'
  out.columns[-1].overflow = 'fold'
  for state in STATES:
    out.add_row(state, str(counts[state]), '')
    if state in ('running', 'failed'):
      _rows(out, [(n, s[1]) for n, s in states.items() if s[0] == state])
  table.show(out, width=table.WIDTH)
  return counts


def _rows(out: Table, named: Sequence[tuple[str, str]]) -> None:
  for name, about in named[:SHOWN]:
    out.add_row('', '', f'{name}: {about}')
  if len(named) > SHOWN:
    out.add_row('', '', f'and {len(named) - SHOWN} more')
