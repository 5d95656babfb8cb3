"""Clocks and power of a GPU while something is measured on it.

A GPU that is warm, or shares its power, computes more slowly: numbers of two
days can be compared where these are alike.
"""

import contextlib
import shutil
import statistics
import subprocess
from collections.abc import Iterator

# What nvidia-smi is asked for, by the names it is noted under.
QUERIES = {
  'sm_mhz': 'clocks.sm',
  'memory_mhz': 'clocks.mem',
  'power_w': 'power.draw',
  'temperature_c': 'temperature.gpu',
}
EVERY_MS = 200


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float]]:
  """Fills a dict with medians when it ends; without a GPU it stays empty."""
  seen: dict[str, float] = {}
  if shutil.which('nvidia-smi') is None:
    yield seen
    return
  process = subprocess.Popen(
    ['nvidia-smi', f'--query-gpu={",".join(QUERIES.values())}',
     '--format=csv,noheader,nounits', f'--loop-ms={EVERY_MS}'],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )  # fmt: skip
  try:
    yield seen
  finally:
    process.terminate()
    said, _ = process.communicate()
    seen |= medians(said)


def medians(said: str) -> dict[str, float]:
  """Returns medians of nvidia-smi's lines; what it does not know is left out.

  >>> medians('1980, 2619, 500.5, [N/A]\\n1755, 2619, 600.5, [N/A]\\n')
  {'sm_mhz': 1867.5, 'memory_mhz': 2619.0, 'power_w': 550.5}
  """
  lines = [line.split(', ') for line in said.splitlines()]
  whole = [line for line in lines if len(line) == len(QUERIES)]
  out = {}
  for name, values in zip(QUERIES, zip(*whole, strict=True), strict=False):
    with contextlib.suppress(ValueError):
      out[name] = statistics.median(map(float, values))
  return out
