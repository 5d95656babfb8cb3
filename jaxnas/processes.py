"""Processes that run together, on one machine or many.

All of them run the same program in step; the first one writes its files. They
share the folders that are read and written.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxnas import locks, runs

# JAX is imported late, so that `--help` is quick.

# What processes agree upon is no longer than this.
LONGEST = 4096


@dataclasses.dataclass(frozen=True)
class Distributed:
  """Processes of a run, where no cluster says: Slurm, Open MPI, Cloud TPU and
  Kubernetes (with the extra k8s) do."""

  coordinator: str | None = None
  """HOST:PORT of the first process, a free port that the others reach."""
  num_processes: int | None = None
  """How many there are."""
  process_id: int | None = None
  """Which of them this is, from 0."""
  heartbeat_s: int = 100
  """Seconds without a sign of life after which a process is held for dead."""


def start(given: Distributed) -> None:
  """Joins the other processes; before any use of a device.

  Raises ValueError where the flags don't say which processes there are.
  """
  host, number, own = given.coordinator, given.num_processes, given.process_id
  if given.heartbeat_s < 1:
    raise ValueError(
      f'--distributed.heartbeat_s is {given.heartbeat_s}; it must be at least '
      '1.'
    )
  if host is None or number is None or own is None:
    if (host, number, own) != (None, None, None):
      raise ValueError(
        '--distributed.coordinator, --distributed.num_processes and '
        '--distributed.process_id belong together: give all three, or none.'
      )
    if not _several():
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
  jax.distributed.initialize(
    host, number, own, heartbeat_timeout_seconds=given.heartbeat_s
  )
  if jax.process_index():
    runs.leave_writing()
    # The first process says it.
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def _several() -> bool:
  """Whether a cluster has started this as one process of several.

  Not run: Cloud TPU, Kubernetes.
  """
  env = os.environ
  for count in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'):
    if int(env.get(count, 1)) > 1:
      return True
  # A slice of one host detects itself too, which does no harm.
  if importlib.util.find_spec('libtpu') and (
    Path('/dev/accel0').exists() or Path('/dev/vfio/0').exists()
  ):
    return True
  return {
    'KUBERNETES_SERVICE_HOST',
    'JOB_COMPLETION_INDEX',
  } <= env.keys() and importlib.util.find_spec('kubernetes') is not None


def first() -> bool:
  """Whether this is the process that writes."""
  import jax

  return jax.process_index() == 0


def agreed(value: Any) -> Any:
  """What the first process holds it to be, a JSON value."""
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


def by_first(act: Callable[[], None]) -> None:
  """Done by the first process, before any other goes on.

  Raises ValueError in all of them where it does so.
  """
  problem = None
  if first():
    try:
      act()
    except ValueError as error:
      problem = error
  if why := agreed(str(problem) if problem else None):
    raise problem or ValueError(why)


def fetch(tree: Any) -> Any:
  """Arrays as numpy has them, whole, wherever their parts lie."""
  import jax
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def together(workdir: Path) -> Iterator[None]:
  """Ends this process where it can't go on, or another one has ended.

  Leaving in good order would wait for the others, which may not be there.
  """
  import jax

  try:
    yield
  except (ArithmeticError, OSError, jax.errors.JaxRuntimeError) as error:
    if jax.process_count() == 1:
      raise
    text = (str(error).splitlines() or [''])[0]
    if isinstance(error, jax.errors.JaxRuntimeError):
      text = (
        f'another process of the run has ended or is out of reach ({text}): '
        f'start all again with --workdir {workdir} --resume'
      )
    print(f'error: {text}', file=sys.stderr, flush=True)
    locks.release()
    os._exit(1)
