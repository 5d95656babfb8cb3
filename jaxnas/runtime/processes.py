"""Runs several processes together, on one machine or many.

All of them run the same program in step, and the first one writes its files.
They share the folders that are read and written.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxnas.runtime import cluster, errors, files, lock

# Functions import JAX late, so that `--help` is quick.

# Processes agree upon JSON of at most this many bytes.
LONGEST = 4096


@dataclasses.dataclass(frozen=True)
class Distributed:
  """Processes of a run. Under Slurm, Open MPI 4, Cloud TPU and Kubernetes (with
  the extra k8s) they find each other without these flags."""

  coordinator: str | None = None
  """HOST:PORT of the first process, a free port that the others reach."""
  num_processes: int | None = None
  """Number of processes. 1, without the other flags: this one runs alone, as in
  a shell within a step of several tasks."""
  process_id: int | None = None
  """Number of this process, counted from 0."""
  heartbeat_s: int = 100
  """Seconds without a sign of life after which a process counts as dead."""


def start(given: Distributed) -> None:
  """Joins the other processes; call it before any use of a device.

  Raises ValueError where the flags, or a cluster's variables, don't describe
  the processes.
  """
  host, number, own = given.coordinator, given.num_processes, given.process_id
  if given.heartbeat_s < 1:
    raise ValueError(
      f'--distributed.heartbeat_s is {given.heartbeat_s}; it must be at least '
      '1.'
    )
  found = cluster.Found(number, own)
  if host is None or number is None or own is None:
    if (host, number, own) == (None, 1, None):
      return
    if (host, number, own) != (None, None, None):
      raise ValueError(
        '--distributed.coordinator, --distributed.num_processes and '
        '--distributed.process_id belong together: give all three, none, or '
        '--distributed.num_processes 1.'
      )
    if (found := cluster.find()) is None:
      return
  elif ':' not in host:
    raise ValueError(f'--distributed.coordinator {host} must be HOST:PORT.')
  elif not 0 <= own < number:
    raise ValueError(
      f'--distributed.process_id is {own}; of {number} processes it must be in '
      f'[0, {number - 1}].'
    )
  import jax

  # Its notices of signals came minutes late on a busy machine: 2 of 15.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    with cluster.waiting(found):
      jax.distributed.initialize(
        host,
        number,
        own,
        heartbeat_timeout_seconds=given.heartbeat_s,
        # JAX would end with the stack of its C++; `waiting` ends before.
        initialization_timeout=2 * cluster.JOINED_WITHIN_S,
      )
  except (RuntimeError, ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'the processes of the run cannot be joined ({errors.reason(error)}): '
      f'give --distributed.*, with a free port; {cluster.ALONE}.'
    ) from error
  if jax.process_index():
    files.leave_writing()
    # The first process prints for all.
    sys.stdout = open(os.devnull, 'w', errors='replace')  # noqa: SIM115


def first() -> bool:
  """Returns True in the process that writes files."""
  import jax

  return jax.process_index() == 0


def agreed(value: Any) -> Any:
  """Returns the first process's value, a JSON value, in all of them."""
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return value
  text = json.dumps(value).encode()
  if len(text) > LONGEST:
    raise ValueError(f'{value!r:.100} is too long to agree upon.')
  padded = np.frombuffer(text.ljust(LONGEST), np.uint8)
  said = multihost_utils.broadcast_one_to_all(padded)
  return json.loads(np.asarray(said, np.uint8).tobytes())


def by_first(act: Callable[[], str]) -> str:
  """Lets the first process act before any other goes on.

  Returns in all of them what `act` returns, and raises ValueError where it
  raises that.
  """
  problem, value = None, None
  if first():
    try:
      value = act()
    except ValueError as error:
      problem = error
  why, value = agreed([str(problem) if problem else None, value])
  if why is not None:
    raise problem or ValueError(why)
  return value


def fetch(tree: Any) -> Any:
  """Returns whole numpy arrays, though their parts lie on several devices.

  An array of which this process has all parts is whole already: the others have
  the same one, and a gather would put one copy behind the other.
  """
  import jax
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return jax.device_get(tree)

  def whole(leaf):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      return multihost_utils.process_allgather(leaf, tiled=True)
    return jax.device_get(leaf)

  return jax.tree.map(whole, tree)


def lost(error: BaseException) -> BaseException | None:
  """Returns JAX's error about another process, where that has led to `error`.

  None where one process runs alone. Libraries raise errors of their own when
  they wait for a process that has ended, and name JAX's as the cause.
  """
  import jax

  if jax.process_count() == 1:
    return None
  link: BaseException | None = error
  while link is not None:
    if isinstance(link, jax.errors.JaxRuntimeError):
      return link
    link = link.__cause__ or link.__context__
  return None


@contextlib.contextmanager
def together(workdir: Path) -> Iterator[None]:
  """Ends this process where it can't go on, or another one has ended.

  An orderly end would wait for the others, which may be gone.
  """
  import jax

  own = ArithmeticError, OSError, errors.OutOfMemory
  try:
    with errors.memory_of(*errors.TAKE_MEMORY):
      yield
  except Exception as error:
    # Memory that ran out here is an error of JAX too.
    short = isinstance(error, errors.OutOfMemory)
    gone = None if short else lost(error)
    if jax.process_count() == 1 or not (gone or isinstance(error, own)):
      raise
    text = (str(gone or error).splitlines() or [''])[0]
    if gone:
      text = (
        f'another process of the run has ended or is out of reach ({text}): '
        f'start all again with --workdir {workdir} --resume'
      )
    print(f'error: {text}', file=sys.stderr, flush=True)
    lock.release()
    os._exit(1)
