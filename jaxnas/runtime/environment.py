"""Describes the origin of a result: command, machine and versions."""

import importlib.metadata
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

# The process began about then, on the clock of `time.monotonic`.
START_S = time.monotonic()


# Logs keep neither the name and password of an address, nor the value of a
# flag or a variable whose name says that it is secret.
_SECRETS = re.compile(
  r"""(?<=://)[^/@\s'"]+(?=@)"""
  r'|(?:(?<=key)|(?<=token)|(?<=secret)|(?<=password))(?P<sep>[= ])\S+',
  re.IGNORECASE,
)


VERSIONS = ('jaxnas', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def environment(**metadata: Any) -> dict[str, Any]:
  """Returns the command, machine and versions, with `metadata` added."""
  return {
    'command': without_secrets(_command(sys.orig_argv)),
    'python': platform.python_version(),
    'platform': platform.platform(),
    'cpus': os.cpu_count(),
    'versions': {name: importlib.metadata.version(name) for name in VERSIONS},
    **metadata,
  }


def _command(argv: Sequence[str]) -> str:
  """Returns the command line that started this process.

  >>> _command(['/usr/bin/python', '/usr/bin/jaxnas', 'train', '--epochs', '3'])
  'python -m jaxnas train --epochs 3'
  >>> _command(['/usr/bin/python', '-m', 'jaxnas.train', '--workdir', 'a b'])
  "python -m jaxnas.train --workdir 'a b'"
  >>> _command(['/usr/bin/python', 'own_space.py'])
  'python own_space.py'
  """
  words = [*argv[1:]]
  if words and os.path.basename(words[0]) == 'jaxnas':
    words[0:1] = ['-m', 'jaxnas']
  return shlex.join(['python', *words])


def without_secrets(text: str) -> str:
  """Returns the text with passwords and keys replaced, for logs.

  >>> without_secrets('--url https://me:word@host/file WANDB_API_KEY=abc')
  '--url https://***@host/file WANDB_API_KEY=***'
  """
  return _SECRETS.sub(lambda found: f'{found["sep"] or ""}***', text)
