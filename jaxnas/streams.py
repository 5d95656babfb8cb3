"""Random numbers as a function of (seed, stream name, steps), never of order.

Two streams never share numbers, a new stream shifts no old one, and a resumed
run needs no saved generator.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Integer, PRNGKeyArray


def rng(seed: int, name: str, *steps: int) -> np.random.Generator:
  """A numpy generator, for work on the host."""
  return np.random.default_rng([seed, zlib.crc32(name.encode()), *steps])


def child(seed: int, name: str, *steps: int) -> int:
  """A seed for an experiment within the experiment."""
  return int(rng(seed, name, *steps).integers(2**32))


def key(seed: int, name: str, *steps: int | Integer[Array, '']) -> PRNGKeyArray:
  """A JAX key; `steps` may be traced, so a jitted step can call this."""
  out = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
  for step in steps:
    out = jax.random.fold_in(out, step)
  return out
