"""Initial values as laws: what a parameter is drawn from, not yet a number.

Initialisers give boxes (Flax's `AxisMetadata`) that know their law, so that
`draw` needs the shapes of a network and no program. A compiled initialisation
would hold one random generator a parameter: minutes of compilation where a
supernet has a thousand.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxnas.runtime.rng import generator


@struct.dataclass
class Uniform(nn.meta.AxisMetadata):
  """A value from the uniform distribution over [low, high]."""

  value: Any
  low: float = struct.field(pytree_node=False)
  high: float = struct.field(pytree_node=False)

  def unbox(self) -> Any:
    return self.value

  def replace_boxed(self, val: Any) -> 'Uniform':
    return self.replace(value=val)  # pyright: ignore

  def add_axis(self, index: int, params: Any) -> 'Uniform':
    del index, params
    return self

  def remove_axis(self, index: int, params: Any) -> 'Uniform':
    del index, params
    return self


def torch_uniform(fan_in: int) -> Callable[..., Any]:
  """PyTorch's default for weights and biases: within +-1/sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape):
    value = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
    return Uniform(value, -bound, bound)

  return init


def constant(number: float) -> Callable[..., Any]:
  """(..., shape) -> all of it `number`; a key before the shape is not used."""

  def init(*key_and_shape):
    value = jnp.full(key_and_shape[-1], number, jnp.float32)
    return Uniform(value, number, number)

  return init


def draw(laws: Any, seed: int) -> dict[str, Any]:
  """Variables, float32; each is a function of its path, stream 'init'.

  Args:
    laws: `jax.eval_shape` of a network's init, with this module's
      initialisers.
    seed: of the experiment.
  """

  def value(path: Any, law: Any) -> Float[Array, '...']:
    if not isinstance(law, Uniform):
      name = '/'.join(key.key for key in path)
      raise ValueError(
        f'{name} has an initialiser of Flax; its layer needs one of '
        'jaxnas.nn.initial, as the layers of jaxnas.nn.layers have.'
      )
    where = zlib.crc32('/'.join(key.key for key in path).encode())
    rng = generator(seed, 'init', where)
    numbers = rng.uniform(law.low, law.high, law.value.shape)
    return jnp.asarray(numbers, jnp.float32)

  return jax.tree_util.tree_map_with_path(
    value, laws, is_leaf=lambda leaf: isinstance(leaf, Uniform)
  )
