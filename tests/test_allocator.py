"""Memory that is freed stays with the process, whichever thread had it."""

import subprocess
import sys

import pytest

TOUCHED = """
import resource, sys, threading
from jaxnas import allocator

def pages():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def touched():
  # 64 MB twice, the first time to have them.
  counts = []
  for _ in range(2):
    before = pages()
    thread = threading.Thread(target=lambda: b'x' * (64 << 20))
    thread.start()
    thread.join()
    counts.append(pages() - before)
  return counts[1]

if sys.argv[1] == 'keep':
  assert allocator.keep_freed()
print(touched())
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_what_is_freed_is_not_cleared_by_the_system_again():
  counts = [
    int(
      subprocess.run(
        [sys.executable, '-c', TOUCHED, how],
        stdout=subprocess.PIPE,
        check=True,
      ).stdout
    )
    for how in ('keep', 'return')
  ]
  # Of 4 KB, or 2 MB.
  assert counts[0] < counts[1] / 10 and counts[1] > 20, counts
