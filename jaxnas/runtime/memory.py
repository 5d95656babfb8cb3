"""The memory that is left, asked before something large is taken."""

import resource
from pathlib import Path

# Where Linux tells what it can give, and what a container may take and takes.
MEMORY = Path('/proc/meminfo')
GROUP = Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory.current')


class TooLarge(ValueError):
  """A file takes more memory than is left; the message says how much."""


def check(size: int) -> None:
  """Raises TooLarge where there are not so many bytes left.

  >>> try: check(2**60)
  ... except TooLarge as error: print(error)
  it takes 1.15e+09 GB of memory, more than is left
  """
  if any(size > left for left in (_of_machine(), _of_group(), of_process())):
    raise TooLarge(f'it takes {size / 1e9:.3g} GB of memory, more than is left')


# More than any machine has: nothing is known of a limit.
UNKNOWN = 2**50


def _of_machine() -> int:
  try:
    for line in MEMORY.read_text().splitlines():
      if line.startswith('MemAvailable:'):
        return 1024 * int(line.split()[1])
  except (OSError, ValueError):
    pass
  return UNKNOWN


def _of_group() -> int:
  try:
    most, taken = (int(file.read_text()) for file in GROUP)
  except (OSError, ValueError):
    return UNKNOWN
  return most - taken


def of_process() -> int:
  """Returns the bytes of address space that this process may still take."""
  soft, _ = resource.getrlimit(resource.RLIMIT_AS)
  try:
    pages = int(Path('/proc/self/statm').read_text().split()[0])
  except (OSError, ValueError):
    return UNKNOWN
  if soft == resource.RLIM_INFINITY:
    return UNKNOWN
  return soft - pages * resource.getpagesize()
