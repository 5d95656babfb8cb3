"""Random numbers as a function of (seed, stream name, steps), never of order.

Two streams never share numbers, a new stream shifts no old one, and a resumed
run needs no saved generator.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Integer, PRNGKeyArray


def generator(seed: int, name: str, *steps: int) -> np.random.Generator:
  """Returns a numpy generator, for work on the host."""
  return np.random.default_rng([seed, zlib.crc32(name.encode()), *steps])


def child_seed(seed: int, name: str, *steps: int) -> int:
  """Returns a seed for an experiment within the experiment."""
  return int(generator(seed, name, *steps).integers(2**32))


def key(seed: int, name: str, *steps: int | Integer[Array, '']) -> PRNGKeyArray:
  """Returns a JAX key; `steps` may be traced, for use in a jitted step."""
  out = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
  for step in steps:
    out = jax.random.fold_in(out, step)
  return out
