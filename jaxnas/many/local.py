"""Tasks in processes of this machine, each pinned to its own devices."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from jaxnas.many import tasks
from jaxnas.many.tasks import Ended, Task, Work

# How often the main thread, which gets signals, looks up.
LOOKS_S = 0.2

# The share of a GPU's memory that JAX takes by itself.
OF_A_GPU = 0.75


class Share(NamedTuple):
  """The part of the machine that one worker has."""

  cores: tuple[int, ...]
  environment: dict[str, str]


def shares(workers: int) -> list[Share]:
  """Divides the machine: a GPU each, or a share of the cores.

  More workers than GPUs share them, and their memory.
  """
  gpus = visible_gpus()
  cores = sorted(os.sched_getaffinity(0))
  out = []
  for number in range(workers):
    own = cores[number % len(cores) :: workers] or [cores[number % len(cores)]]
    environment = {}
    if gpus:
      environment['CUDA_VISIBLE_DEVICES'] = gpus[number % len(gpus)]
      beside = -(-workers // len(gpus))
      if beside > 1 and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in os.environ:
        fraction = f'{OF_A_GPU / beside:.3f}'
        environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] = fraction
    out.append(Share(tuple(own), environment))
  return out


def visible_gpus() -> list[str]:
  """Returns the GPUs that processes may use, and starts none of them."""
  given = os.environ.get('CUDA_VISIBLE_DEVICES')
  if os.environ.get('JAX_PLATFORMS', '') == 'cpu':
    return []
  if given is not None:
    return [name for name in given.split(',') if name]
  files = Path('/dev').glob('nvidia[0-9]*')
  return sorted((file.name.removeprefix('nvidia') for file in files), key=int)


def run(
  work: Work,
  tell: Callable[[Ended], None],
  stopped: Callable[[], bool],
  workers: int | None = None,
) -> None:
  """Does the tasks, so many at once; a signal has all of them save and stop.

  Args:
    work: the tasks.
    tell: called with each that has ended.
    stopped: returns True once a signal has asked to stop.
    workers: processes at once; None: 1.
  """
  waiting, ended = queue.SimpleQueue(), queue.SimpleQueue()
  stop, alive = threading.Event(), Alive()
  for task in work.tasks:
    waiting.put(task)
  count = max(1, min(workers or 1, len(work.tasks)))

  def serve(share: Share) -> None:
    with contextlib.suppress(queue.Empty):
      while not stop.is_set():
        task = waiting.get_nowait()
        ended.put(persist(work, task, share, stop, alive))

  left = len(work.tasks)
  with ThreadPoolExecutor(count) as pool:
    served = [pool.submit(serve, share) for share in shares(count)]
    try:
      while left and not all(one.done() for one in served):
        if stopped() and not stop.is_set():
          stop.set()
          alive.stop()
        with contextlib.suppress(queue.Empty):
          tell(ended.get(timeout=LOOKS_S))
          left -= 1
    finally:
      stop.set()
      alive.stop()
  while not ended.empty():
    tell(ended.get())
  for one in served:
    one.result()


class Alive:
  """The processes that run, each of which is asked to stop once."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._processes: list[subprocess.Popen[bytes]] = []
    self._stopping = False

  def add(self, process: subprocess.Popen[bytes]) -> None:
    with self._lock:
      self._processes = [p for p in self._processes if p.poll() is None]
      self._processes.append(process)
      if self._stopping:
        process.send_signal(signal.SIGTERM)

  def stop(self) -> None:
    with self._lock:
      if not self._stopping:
        for process in self._processes:
          process.send_signal(signal.SIGTERM)
      self._stopping = True


def persist(
  work: Work, task: Task, share: Share, stop: threading.Event, alive: Alive
) -> Ended:
  """Does a task, and starts it again where something killed its process."""
  error = None
  for _ in range(1 + tasks.RESTARTS):
    try:
      return tasks.attempt(
        work,
        task,
        environment=share.environment,
        cores=share.cores,
        stop=stop,
        started=alive.add,
      )
    except tasks.Died as died:
      error = died
      if stop.is_set():
        return Ended(task, 'stopped')
  line = f'error: {error}, {1 + tasks.RESTARTS} times'
  tasks.fail(task.folder, line, 1)
  return Ended(task, 'failed', line)
