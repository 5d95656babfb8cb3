"""Where what is made once, for all runs of this user, is kept."""

import os
from pathlib import Path


def folder(name: str) -> Path:
  """In the user's own cache, never a shared one: it holds code that is run."""
  home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(home) / 'jaxnas' / name
