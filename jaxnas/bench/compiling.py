"""Seconds to compile a training step for all architectures, or for one alone.

PyTorch runs eagerly and has nothing to compare.
"""

import time
from collections.abc import Callable

import jax

from jaxnas import spaces
from jaxnas.bench import inputs, step
from jaxnas.bench.cases import Case, Options, Side


def cases(options: Options) -> list[Case]:
  """Seconds of every space, without JAX's cache."""
  return [
    Case(
      'compile',
      f'{space}, {what}',
      's',
      Side(
        f'{__name__}:ours',
        {
          'space': space,
          'batch_size': options.batch_size or batch_size,
          'seed': options.seed,
          'static': static,
        },
      ),
      None,
      # Minutes.
      rounds=1 if space == 'mobilenet' else 3,
    )
    for space, batch_size in step.BATCH_SIZES.items()
    for what, static in (('all architectures', False), ('one alone', True))
  ]


def ours(
  *, space: str, batch_size: int, seed: int, static: bool
) -> Callable[[], float]:
  """Compiles from Python to a program, traced anew each time.

  Args:
    space: by name.
    batch_size: of images.
    seed: of the arch, where there is one alone.
    static: compile the step of one architecture alone.
  """
  jax.config.update('jax_enable_compilation_cache', False)
  of = spaces.get(space)
  archs_AxE = inputs.archs(of, 1, seed)

  def measure() -> float:
    state, step_fn, batch = step.training_step(
      of, archs_AxE, batch_size=batch_size, seed=seed, static=static
    )
    jax.clear_caches()
    start = time.perf_counter()
    step_fn.lower(state, batch).compile()
    return time.perf_counter() - start

  return measure
