"""Memory that is freed stays with the process, in large pages."""

import subprocess
import sys
from pathlib import Path

import pytest

TOUCHED = """
import ctypes, resource, sys, threading

# As `jaxnas` is started, which begins with a thread.
if sys.argv[1] == 'command':
  sys.argv[0] = 'jaxnas'
from jaxnas.runtime import allocator

def pages():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def touched():
  before = pages()
  thread = threading.Thread(target=lambda: b'x' * (64 << 20))
  thread.start()
  thread.join()
  return pages() - before

if sys.argv[1] == 'limited':
  resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
if sys.argv[1] != 'untuned':
  assert allocator.tune()
if sys.argv[1] == 'trimmed':
  ctypes.CDLL(None).malloc_trim(0)
print(touched(), touched(), touched())
"""
LARGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')
STRICT = Path('/proc/sys/vm/overcommit_memory')

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='glibc')


def touched(how):
  """Pages of three threads one after the other, each with 64 MB."""
  command = [sys.executable, '-c', TOUCHED, how]
  done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
  return [*map(int, done.stdout.split())]


# Addresses for all memory are more than the limit.
@pytest.mark.parametrize('how', ['tuned', 'limited', 'trimmed', 'command'])
def test_what_is_freed_is_not_cleared_by_the_system_again(how):
  (_, *tuned), (_, *untuned) = touched(how), touched('untuned')
  # Of 4 KB, or 2 MB.
  assert max(tuned) < min(untuned) / 10 and min(untuned) > 20


@pytest.mark.skipif(
  not LARGE_PAGES.exists()
  or '[never]' in LARGE_PAGES.read_text()
  or STRICT.read_text().strip() == '2',
  reason='the system gives none',
)
@pytest.mark.parametrize('how', ['tuned', 'trimmed', 'command'])
def test_pages_are_large(how):
  first, *_ = touched(how)
  assert first < (64 << 20) / (4 << 10) / 10
