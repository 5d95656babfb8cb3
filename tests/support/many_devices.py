"""Runs a module of this package where there are several devices."""

import os
import subprocess
import sys

import numpy as np


def environment(count, *flags):
  """The environment of a child process with so many CPU devices."""
  flags = f'--xla_force_host_platform_device_count={count}', *flags
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': ' '.join([os.environ.get('XLA_FLAGS', ''), *flags]),
  }


def found_by(count, module, file, *words, flags=()):
  """Runs `python -m MODULE FILE WORDS`; returns the arrays that it saved."""
  subprocess.run(
    [sys.executable, '-m', module, file, *words],
    check=True,
    env=environment(count, *flags),
  )
  found = dict(np.load(file))
  assert found.pop('devices') == count
  return found
