"""Finds the processes among which a cluster has started this one."""

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Runs this process by itself, whatever started it.
ALONE = '--distributed.num_processes 1 runs this process alone'

# A process that waits for others to start says so after this long, and gives
# up after that.
TELL_AFTER_S = 10.0
JOINED_WITHIN_S = 300


class Launcher(NamedTuple):
  """The variables by which a launcher tells its processes of one another."""

  total: str
  """Says how many processes there are."""
  own: str
  """Says the number of this one."""
  others: tuple[str, ...]
  """The rest of what JAX needs to find the first process."""
  start: str
  """The command that sets them all."""


LAUNCHERS = (
  Launcher(
    'SLURM_STEP_NUM_TASKS',
    'SLURM_PROCID',
    ('SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_JOB_ID', 'SLURM_STEP_NODELIST'),
    'srun',
  ),
  Launcher(
    'OMPI_COMM_WORLD_SIZE',
    'OMPI_COMM_WORLD_RANK',
    ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_MCA_orte_hnp_uri'),
    'mpirun of Open MPI 4',
  ),
)
NUMBERS = ('SLURM_NTASKS', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')


class Found(NamedTuple):
  """The processes of a run, where a launcher says them; else None."""

  total: int | None = None
  own: int | None = None
  said_by: str | None = None
  """The variable that says that there are several."""


def find() -> Found | None:
  """Returns the processes among which a cluster has started this one.

  Returns None for one process. Not run: Cloud TPU, Kubernetes.

  Raises ValueError, which names the variable, where a launcher says that there
  are several and not how to find them.
  """
  problem = None
  for launcher in LAUNCHERS:
    try:
      if found := _read(launcher):
        return found
    except ValueError as error:
      problem = problem or error
  if problem is not None:
    raise problem
  # A slice of one host detects itself too, which does no harm.
  if importlib.util.find_spec('libtpu') and (
    Path('/dev/accel0').exists() or Path('/dev/vfio/0').exists()
  ):
    return Found()
  pods = {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'}
  if pods <= os.environ.keys() and importlib.util.find_spec('kubernetes'):
    return Found()
  return None


def _read(launcher: Launcher) -> Found | None:
  if launcher.total not in os.environ:
    return None
  total = _number(launcher, launcher.total)
  if total == 1:
    return None
  own = _number(launcher, launcher.own)
  for name in launcher.others:
    if name in NUMBERS:
      _number(launcher, name)
    elif not os.environ.get(name):
      raise ValueError(_lacking(launcher, name))
  if not own < total:
    raise ValueError(
      f'{launcher.own} is {own}, of {launcher.total} {total} processes: '
      f'{_remedy(launcher)}.'
    )
  return Found(total, own, launcher.total)


def _number(launcher: Launcher, name: str) -> int:
  text = os.environ.get(name, '')
  if text.isascii() and text.isdigit():
    return int(text)
  raise ValueError(_lacking(launcher, name))


def _lacking(launcher: Launcher, name: str) -> str:
  given = os.environ.get(name)
  state = 'is not set' if given is None else f'is {given!r:.80}'
  if name != launcher.total:
    state += f', but {launcher.total} is {os.environ[launcher.total]}'
  return f'{name} {state}: {_remedy(launcher)}.'


def _remedy(launcher: Launcher) -> str:
  return (
    f'start all processes with {launcher.start}, or give --distributed.*; '
    f'{ALONE}'
  )


@contextlib.contextmanager
def waiting(found: Found) -> Iterator[None]:
  """Says for which processes this one waits, and ends it in the long run."""
  because = f' ({found.said_by} is {found.total})' if found.said_by else ''
  joined = threading.Event()

  def say(text: str) -> None:
    print(f'{text}; {ALONE}', file=sys.stderr, flush=True)

  def wait() -> None:
    if joined.wait(TELL_AFTER_S):
      return
    say(f'waiting for {_others(found)}{because}')
    if not joined.wait(JOINED_WITHIN_S - TELL_AFTER_S):
      say(
        f'error: {_others(found)} did not come within {JOINED_WITHIN_S} s'
        f'{because}: start all again'
      )
      # The main thread is in C++, which no exception reaches.
      os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
  # Python's own handler would wait for the C++ too: Ctrl-C ends it at once.
  before = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
    joined.set()


def _others(found: Found) -> str:
  """Names the processes that are not this one.

  >>> _others(Found(2, 0))
  'process 1 of 2'
  """
  if found.total is None or found.own is None:
    return 'the other processes'
  left = [str(p) for p in range(found.total) if p != found.own]
  if len(left) > 4:
    left[3:] = ['...']
  return f'process{"es" * (len(left) > 1)} {", ".join(left)} of {found.total}'
