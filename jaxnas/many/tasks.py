"""A list of tasks as data, and the process of each.

A task is one training in a folder of its own, and its process is the same
command with `--only NAME`. Locks, checkpoints and resumption are those of the
command. A task that is finished has its result, whoever started it.
"""

import contextlib
import hashlib
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from jaxnas.runtime import errors, files, lock, places

# The file of a root that says who started its tasks: a worker that does not
# find it sees another folder.
MARK = 'many.json'

# Files in the folder of a task: what its process prints, and why it failed.
LOG, FAILED = 'log.txt', 'failed.json'

# The exit code of a child whose folder another process is at.
BUSY = 75
BUSY_S = 5.0

# A process that something killed starts again so often.
RESTARTS = 3


class Died(Exception):
  """A signal from outside ended the process of a task before it could save."""


class Task(NamedTuple):
  """One training."""

  name: str
  """The word after `--only`."""
  folder: Path
  """An absolute path, which one process at a time is at."""
  result: Path | None
  """The file that is there once the task is finished; None: the command itself
  has to look."""

  @property
  def finished(self) -> bool:
    return self.result is not None and self.result.exists()


class Work(NamedTuple):
  """Tasks of one command that are not finished."""

  root: Path
  """The folder that all machines share, absolute."""
  mark: str
  module: str
  """The module of the command."""
  argv: tuple[str, ...]
  """Flags of every task, before `--only NAME`."""
  tasks: tuple[Task, ...]


class Ended(NamedTuple):
  """The end of a task: finished, failed or stopped."""

  task: Task
  state: str
  line: str = ''
  """The last line of one that failed."""


def sharded(root: Path, key: Mapping[str, Any]) -> Path:
  """Returns the folder of a task, named by the hash of what it trains.

  No folder has more than 256 others beside those of its own share: file
  systems are slow with 100,000 names in one.
  """
  text = json.dumps(key, sort_keys=True)
  name = hashlib.sha256(text.encode()).hexdigest()[:16]
  return root.absolute() / 'tasks' / name[:2] / name


def begin(
  root: Path, module: str, argv: Sequence[str], tasks: Sequence[Task]
) -> Work:
  """Marks the root, and returns the tasks that are not finished."""
  root = root.absolute()
  mark = secrets.token_hex(8)
  if (root / MARK).exists():
    mark = files.read_json(root / MARK, {'mark': str})['mark']
  else:
    files.write_json(root / MARK, {'mark': mark})
  left = tuple(task for task in tasks if not task.finished)
  return Work(root, mark, module, tuple(argv), left)


# What `to_json` writes.
KIND = {
  'root': str,
  'mark': str,
  'module': str,
  'argv': [str],
  'tasks': [list],
}


def to_json(work: Work) -> dict[str, Any]:
  """Returns the work for a file, from which `from_json` makes it again."""
  tasks = [
    [task.name, str(task.folder), task.result and str(task.result)]
    for task in work.tasks
  ]
  return {
    **work._asdict(),
    'root': str(work.root),
    'argv': [*work.argv],
    'tasks': tasks,
  }


def from_json(found: Mapping[str, Any]) -> Work:
  tasks = tuple(
    Task(name, Path(folder), None if result is None else Path(result))
    for name, folder, result in found['tasks']
  )
  root, argv = Path(found['root']), tuple(found['argv'])
  return Work(root, found['mark'], found['module'], argv, tasks)


def attempt(
  work: Work,
  task: Task,
  *,
  environment: Mapping[str, str] | None = None,
  cores: Sequence[int] = (),
  stop: threading.Event | None = None,
  started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Ended:
  """Runs a task's process on this machine, until it ends.

  Where another process is at the task's folder, it waits for that one's end.

  Args:
    work: the task is one of its.
    task: what to do.
    environment: variables that the process has besides.
    cores: the cores that it may use; none: all.
    stop: once set, the process is not started again.
    started: hears of the process.

  Raises Died where something killed the process.
  """
  stop = stop or threading.Event()
  if problem := unseen(work):
    return Ended(task, 'failed', f'error: {problem}')
  while not task.finished:
    if stop.is_set():
      return Ended(task, 'stopped')
    try:
      code, line = _run(work, task, environment or {}, cores, started)
    except errors.Damaged as error:
      # Nothing is written where a link may lead out of the root.
      return Ended(task, 'failed', f'error: {error}')
    if code in (errors.STOPPED, errors.INTERRUPTED):
      return Ended(task, 'stopped')
    if code == BUSY:
      stop.wait(BUSY_S)
      continue
    if code < 0:
      raise Died(f'killed by {signal.Signals(-code).name}')
    if code:
      fail(task.folder, line, code)
      return Ended(task, 'failed', line)
    break
  return Ended(task, 'finished')


def fail(folder: Path, line: str, code: int) -> None:
  """Writes down why the task of a folder failed, where its disk takes it."""
  try:
    places.make(folder)
    why = {'line': line, 'host': socket.gethostname(), 'code': code}
    files.write_json(folder / FAILED, why)
  except (OSError, errors.Damaged) as error:
    print(f'warning: {error}', file=sys.stderr)


def unseen(work: Work) -> str | None:
  """Returns what is wrong where this machine does not see the root."""
  try:
    mark = files.read_json(work.root / MARK, {'mark': str})['mark']
  except (OSError, ValueError):
    mark = None
  if mark == work.mark:
    return None
  return not_shared(work.root)


def not_shared(path: Path) -> str:
  """Says that this machine does not see what the command sees."""
  return (
    f'{path} of the command is not that of {socket.gethostname()}: give a '
    'folder that all machines share.'
  )


def state(task: Task) -> tuple[str, str]:
  """Returns the state of a task, read from its folder, and a word on it.

  The states are finished, running, failed and waiting.
  """
  if task.finished:
    return 'finished', ''
  if (holder := lock.holder(task.folder)) is not None:
    return 'running', holder
  file = task.folder / FAILED
  if file.exists():
    try:
      why = files.read_json(file, {'line': str, 'host': str})
      return 'failed', f'{why["line"]} (on {why["host"]})'
    except errors.Damaged as error:
      return 'failed', str(error)
  return 'waiting', ''


def _run(
  work: Work,
  task: Task,
  environment: Mapping[str, str],
  cores: Sequence[int],
  started: Callable[[subprocess.Popen[bytes]], None],
) -> tuple[int, str]:
  """Runs the process once; returns its exit code and its last line."""
  try:
    places.check(task.folder, work.root)
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / FAILED).unlink(missing_ok=True)
    stream = _log(task.folder / LOG)
  except OSError as error:
    return 1, f'error: {task.folder}: {error.strerror}'
  with stream:
    size = os.fstat(stream.fileno()).st_size
    process = subprocess.Popen(
      [
        sys.executable, '-m', 'jaxnas.many.child',
        str(os.getpid()), ','.join(map(str, cores)),
        work.module, *work.argv, '--only', task.name,
      ],
      env={**os.environ, **environment},
      stdin=subprocess.DEVNULL,
      stdout=stream.fileno(),
      stderr=stream.fileno(),
      # Ctrl-C in a terminal reaches the command, which passes it on once.
      start_new_session=True,
    )  # fmt: skip
    started(process)
    try:
      code = _waited_for(process)
    except BaseException:
      # Whoever called is told to stop, as by Ray: the process may save.
      process.send_signal(signal.SIGTERM)
      process.wait()
      raise
    stream.seek(size)
    lines = stream.read().decode(errors='replace').split('\n')
  said = [line.strip() for line in lines if line.strip()]
  wrong = [line for line in said if line.startswith('error: ')]
  last = (wrong or said or [f'it ended with code {code} and said nothing'])[-1]
  return code, last[: errors.LONGEST]


def _log(file: Path) -> IO[bytes]:
  """Opens a file for what a process prints. Raises OSError or Damaged."""
  flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
  stream = os.fdopen(os.open(file, flags | files.SAFELY, 0o666), 'rb')
  if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
    stream.close()
    raise errors.Damaged(f'{file} is no regular file: take it away.')
  return stream


def _waited_for(process: subprocess.Popen[bytes]) -> int:
  """Returns the exit code of a process once it has ended.

  Ray interrupts Python, and not a call that waits in the kernel.
  """
  while True:
    with contextlib.suppress(subprocess.TimeoutExpired):
      return process.wait(1.0)
