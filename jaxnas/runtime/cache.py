"""Keeps what is made once: on disk for all runs of a user, or in memory."""

import atexit
import contextlib
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Decorates a function of a net that compiles programs or traces. A process
# works with few nets at a time, and a longer memory would keep alive every net
# that it has seen, with its programs.
per_net = functools.lru_cache(maxsize=8)


def folder(name: str) -> Path:
  """Returns a folder in the user's own cache.

  It is never a shared one, since it holds code that is run. Where the user has
  no home, or none that can be written to, it is a temporary one.
  """
  return _root() / 'jaxnas' / name


def _root() -> Path:
  given, home = os.environ.get('XDG_CACHE_HOME', ''), os.path.expanduser('~')
  # XDG's rules are to ignore a path that is not absolute, as `~` also is where
  # nobody knows the home that it stands for.
  if os.path.isabs(given):
    root = Path(given)
  elif os.path.isabs(home):
    root = Path(home, '.cache')
  else:
    return _temporary('no home directory')
  own = root / 'jaxnas'
  with contextlib.suppress(OSError):
    # Rights alone do not tell: the system may refuse what they allow.
    own.mkdir(parents=True, exist_ok=True)
    if os.access(own, os.W_OK | os.X_OK):
      return root
  return _temporary(f'{root} cannot be written to')


@functools.cache
def _temporary(why: str) -> Path:
  """Makes a folder that ends with this process, and says so once."""
  made = tempfile.mkdtemp(prefix='jaxnas-cache-')
  atexit.register(shutil.rmtree, made, ignore_errors=True)
  print(
    f'{why}: caches go to {made} and end with this process; set XDG_CACHE_HOME '
    'to a folder that stays',
    file=sys.stderr,
  )
  # Processes that this one starts, and libraries, use the same folder.
  os.environ['XDG_CACHE_HOME'] = made
  os.environ.setdefault('MPLCONFIGDIR', f'{made}/matplotlib')
  return Path(made)
