"""Seconds from a command to its first step, each time in a new process."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

from jaxnas import spaces
from jaxnas.bench import inputs, step
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.runtime import startup

SPACE = 'nas_bench_macro'
BATCH_SIZE = 64
# JAX's events: a program is needed, and is in its cache.
NEEDED = '/jax/compilation_cache/compile_requests_use_cache'
FOUND = '/jax/compilation_cache/cache_hits'

OURS = f'from {__name__}'
# The allocator first, as in ours: libraries start threads.
THEIRS = (
  'from jaxnas.runtime import allocator; allocator.tune(); '
  'from jaxnas.bench.torch_startup'
)


def cases(options: Options) -> list[Case]:
  """Seconds of wall time, and what a warm cache leaves to compile."""
  given = {
    'space': SPACE,
    'batch_size': options.batch_size or BATCH_SIZE,
    'seed': options.seed,
  }
  cold, warm = (
    Side(f'{__name__}:ours', {**given, 'warm': warm}) for warm in (False, True)
  )
  torch = Side(f'{__name__}:baseline', given)
  return [
    Case('startup', '--help', 's', Side(f'{__name__}:help', {}), None),
    Case(
      'startup',
      f'{SPACE}, first step, cold cache, against PyTorch eager',
      's',
      cold,
      torch,
      rounds=3,
    ),
    Case(
      'startup',
      f'{SPACE}, first step, warm cache, against PyTorch eager',
      's',
      warm,
      torch,
    ),
    Case(
      'startup',
      f'{SPACE}, compiled with a warm cache',
      'programs',
      Side(f'{__name__}:compiled', given),
      None,
      rounds=1,
    ),
  ]


def help() -> Callable[[], float]:
  """Measures `python -m jaxnas.train --help`."""
  return _timed([sys.executable, '-m', 'jaxnas.train', '--help'])


def ours(
  *, space: str, batch_size: int, seed: int, warm: bool
) -> Callable[[], float]:
  """Measures `first_step`, with a cache of its own.

  Args:
    space: by name.
    batch_size: of images.
    seed: of weights, images and the arch.
    warm: the cache has been filled; else each time it is empty.
  """
  command = _calling(OURS, space, batch_size, seed)
  kept = tempfile.TemporaryDirectory(prefix='jaxnas-compiled-')
  if warm:
    _run(command, kept.name)

  def measure() -> float:
    # Gone with `measure`.
    folder = kept.name if warm else tempfile.mkdtemp(dir=kept.name)
    return _timed(command, folder)()

  return measure


def compiled(*, space: str, batch_size: int, seed: int) -> Callable[[], float]:
  """Counts programs of `first_step` that a cache filled by it does not have."""
  command = _calling(OURS, space, batch_size, seed)
  folder = tempfile.TemporaryDirectory(prefix='jaxnas-compiled-')
  if not int(_run(command, folder.name)):
    raise RuntimeError(f'JAX does not report {NEEDED} any more.')
  return lambda: float(_run(command, folder.name))


def baseline(*, space: str, batch_size: int, seed: int) -> Callable[[], float]:
  """Measures PyTorch's `first_step`, in `torch_startup`."""
  return _timed(_calling(THEIRS, space, batch_size, seed))


def first_step(space: str, batch_size: int, seed: int) -> None:
  """Runs a step here; prints how many programs were not in the cache."""
  events = Counter()
  jax.monitoring.register_event_listener(
    lambda event, **_: events.update([event])
  )
  startup.prepare_process()
  of = spaces.get(space)
  state, step_fn, batch = step.training_step(
    of, inputs.archs(of, 1, seed), batch_size=batch_size, seed=seed
  )
  jax.block_until_ready(step_fn(state, batch))
  print(events[NEEDED] - events[FOUND])


def _calling(imports: str, *args: Any) -> list[str]:
  script = f'{imports} import first_step; first_step(*{args!r})'
  return [sys.executable, '-c', script]


def _timed(command: list[str], cache: str | None = None) -> Callable[[], float]:
  def measure() -> float:
    start = time.perf_counter()
    _run(command, cache)
    return time.perf_counter() - start

  return measure


def _run(command: list[str], cache: str | None = None) -> str:
  """Returns what a command prints; `cache` is for compiled programs."""
  env = dict(os.environ)
  if cache is not None:
    env['JAX_COMPILATION_CACHE_DIR'] = cache
  return subprocess.run(
    command, env=env, stdout=subprocess.PIPE, text=True, check=True
  ).stdout
