"""Layers that only GPUs run, in Pallas, where the machine asks for them."""

import os

from jaxnas.nn import target

# The variable that turns them on, by 1: no GPU has run them yet.
SWITCH = 'JAXNAS_KERNELS'
# What they compute, by the name that C++ for CPUs has, too.
KERNEL = 'middle'


def serves() -> bool:
  """Returns True where programs are for a GPU, and its machine asks for it."""
  return target.backend() == 'gpu' and os.environ.get(SWITCH) == '1'
