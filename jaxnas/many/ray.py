"""Tasks on a Ray cluster, or on one that this starts on this machine.

Ray finds a machine that has what a task needs, sets its GPUs, and starts it
again where its worker dies. A worker starts the same process as elsewhere, in
the folder that all machines share; only a word on its end comes back.
"""

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxnas.many import tasks
from jaxnas.many.flags import NEEDS, Needs
from jaxnas.many.tasks import Ended, Task, Work
from jaxnas.runtime import errors

# Tasks that Ray knows at a time: it need not hold 100,000 of them.
IN_FLIGHT = 1000

# How often the driver looks whether a signal has come.
LOOKS_S = 0.5

# Seconds that processes have to save when a signal stops them.
SAVED_S = 120.0

# Seconds in which a cluster must answer.
ANSWERS_S = 10.0

# Variables that processes of tasks need as this one has them.
PASSED = ('PYTHONPATH', 'JAX_PLATFORMS', 'XLA_FLAGS')


def run(
  work: Work,
  tell: Callable[[Ended], None],
  stopped: Callable[[], bool],
  workers: int | None,
  address: str,
  needs: Needs,
) -> None:
  """Does the tasks; a signal has those that run save and stop.

  Args:
    work: the tasks.
    tell: called with each that has ended.
    stopped: returns True once a signal has asked to stop.
    workers: tasks at once; None: as many as the cluster has room for.
    address: of the cluster; '': one of this machine, for as long.
    needs: the share of a machine that a task takes.

  Raises OSError where the cluster cannot be used.
  """
  ray = _installed()
  with connected(ray, address):
    cpus, gpus = _share(ray, needs)
    remote = ray.remote(
      num_cpus=cpus,
      num_gpus=gpus,
      max_retries=tasks.RESTARTS,
      retry_exceptions=[tasks.Died],
    )(attempt)
    waiting, running = [*reversed(work.tasks)], {}
    at_once = workers or IN_FLIGHT
    one = work._replace(tasks=())
    while (waiting or running) and not stopped():
      while waiting and len(running) < at_once:
        task = waiting.pop()
        running[remote.remote(one, task)] = task
      ended, _ = ray.wait([*running], timeout=LOOKS_S)
      for reference in ended:
        tell(_end(ray, reference, running.pop(reference)))
    # It interrupts the wait for a process, which is then told to save.
    for reference in running:
      ray.cancel(reference, force=False)
    if running:
      ray.wait([*running], num_returns=len(running), timeout=SAVED_S)
    for task in running.values():
      tell(Ended(task, 'stopped'))


def attempt(work: Work, task: Task) -> Ended:
  """Does a task on a machine of the cluster."""
  return tasks.attempt(work, task)


def _end(ray: Any, reference: Any, task: Task) -> Ended:
  """Returns the end of a task that Ray is done with."""
  try:
    return Ended(*ray.get(reference))
  except ray.exceptions.RayError as error:
    # The last line of a trace is the error itself.
    cause = getattr(error, 'cause', None)
    said = [line for line in str(cause or error).splitlines() if line.strip()]
    line = f'error: {said[-1].strip() if said else type(error).__name__}'
    if isinstance(cause, tasks.Died):
      line += f', {1 + tasks.RESTARTS} times'
    if 'No module named' in line:
      line += ': install jaxnas on all machines of the cluster, or share it'
    line = line[: errors.LONGEST]
    tasks.fail(task.folder, line, 1)
    return Ended(task, 'failed', line)


def check(address: str, needs: Needs) -> None:
  """Checks that Ray is installed, that a cluster can be joined, and that a
  machine of it has what a task needs.

  Raises ValueError or OSError where it is not so.
  """
  ray = _installed()
  if address:
    # Ray itself takes minutes to give up on a machine that is not there.
    at = os.environ.get('RAY_ADDRESS', '') if address == 'auto' else address
    _answers(at)
  if address or needs != NEEDS:
    # Only Ray knows whether the address is one: auto is, where a cluster runs.
    with connected(ray, address):
      _share(ray, needs)


def _share(ray: Any, needs: Needs) -> tuple[float, float]:
  """Returns the cores and GPUs of a task.

  Raises OSError where no machine of the cluster has so many.
  """
  machines = [
    node['Resources'] for node in ray.nodes() if node.get('Alive', True)
  ]
  most = {
    name: float(max((machine.get(name, 0) for machine in machines), default=0))
    for name in ('CPU', 'GPU')
  }
  asked = {
    'CPU': float(needs.cpus or 1),
    'GPU': float(most['GPU'] >= 1) if needs.gpus is None else float(needs.gpus),
  }
  fit = (
    all(count <= machine.get(name, 0) for name, count in asked.items())
    for machine in machines
  )
  if not any(fit):
    raise OSError(
      f'a task needs {_in_words(asked)} (--needs), and no machine of the '
      f'cluster has more than {_in_words(most)}: ask for less.'
    )
  return asked['CPU'], asked['GPU']


def _in_words(share: Mapping[str, float]) -> str:
  return ' and '.join(f'{count:g} {name}' for name, count in share.items())


def _installed() -> Any:
  """Returns the module ray; raises ValueError where it is not there."""
  try:
    return importlib.import_module('ray')
  except ImportError as error:
    raise ValueError(
      f"--on ray needs Ray ({error}): pip install 'jaxnas[ray]'."
    ) from error


def _answers(address: str) -> None:
  """Raises ValueError where nobody is at a HOST:PORT."""
  host, colon, port = address.rpartition(':')
  if colon and '/' not in host and port.isdigit():
    try:
      socket.create_connection((host, int(port)), ANSWERS_S).close()
    except (OSError, OverflowError) as error:
      raise ValueError(
        f'no Ray cluster answers at {address} ({error}): start one with ray '
        'start --head, or give --on ray for one of this machine.'
      ) from error


@contextlib.contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
  """Joins the cluster, or starts one that ends with this process."""
  passed = {name: os.environ[name] for name in PASSED if name in os.environ}
  options: dict[str, Any] = {
    'runtime_env': {'env_vars': passed},
    'log_to_driver': False,
    'logging_level': 'error',
  }
  if address:
    options['address'] = address
  else:
    options |= {
      'address': 'local',
      'num_cpus': len(os.sched_getaffinity(0)),
      'include_dashboard': False,
    }
  try:
    ray.init(**options)
  except (OSError, RuntimeError, ValueError) as error:
    why = errors.reason(error)
    if not address:
      raise ConnectionError(
        f'Ray does not start on this machine ({why}): take --on local.'
      ) from error
    raise ConnectionError(
      f'no Ray cluster can be used at {address} ({why}): start one with ray '
      'start --head, or give --on ray for one of this machine; '
      'RAY_AUTH_MODE=token gives the token of one that asks for it, as ray '
      "start's do."
    ) from error
  try:
    yield
  finally:
    ray.shutdown()
