"""Windows in which work is counted, as long as clock and device need."""

import math
import time
from collections.abc import Callable

# On an accelerator a step takes a millisecond, and clocks settle.
ON_ACCELERATORS_S = 1.0


def pace(
  run: Callable[[], object],
  wait: Callable[[], object],
  work: float,
  at_least_s: float,
) -> float:
  """Returns work a second, over a window of at least so many seconds.

  Args:
    run: starts some work.
    wait: waits until all of it is done.
    work: in one run, in any unit.
    at_least_s: shorter windows are measured again, with more runs; 0: one run.
  """
  times = 1
  while True:
    start = time.perf_counter()
    for _ in range(times):
      run()
    wait()
    wall_s = time.perf_counter() - start
    if wall_s >= at_least_s:
      return times * work / wall_s
    times = max(2 * times, math.ceil(times * at_least_s / max(wall_s, 1e-9)))
