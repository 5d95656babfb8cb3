"""Trains an ensemble to which something happens.

`python -m support.member_runs SIGKILL 3 FLAGS...` is support.small_run, which
gets that signal when it has written so many rows of metrics, of any member; and
`nan 1 FLAGS...` begins that member with parameters that are not finite.
"""

import os
import signal
import sys

import jax
import jax.numpy as jnp

from jaxnas import supernets, train
from jaxnas.config import Config
from jaxnas.experiment import ensembles
from jaxnas.runtime import streams
from jaxnas.training.metrics import MetricsFile
from support import small_run


def signalled(number, count):
  write, written = MetricsFile.write, []

  def counted(self, step, values):
    write(self, step, values)
    written.append(step)
    if len(written) == count:
      os.kill(os.getpid(), number)

  MetricsFile.write = counted


def poisoned(number):
  init = supernets.init
  seed = ensembles.member(Config(), number).seed

  def spoilt(net, archs, of_seed):
    variables = init(net, archs, of_seed)
    if of_seed != seed:
      return variables
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), variables)

  supernets.init = spoilt


if __name__ == '__main__':
  what, count, *flags = sys.argv[1:]
  if what == 'nan':
    poisoned(int(count))
  else:
    signalled(signal.Signals[what], int(count))
  with small_run.registered():
    streams.run(lambda: train.main(flags))
