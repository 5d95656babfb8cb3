"""Tiles by which programs of a depthwise convolution reach into maps.

A program takes a block of channels of some images. It loads and stores tiles:
all columns of a row, by its channels, each up to a power of 2.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

WARP, WARPS = 32, 4
# Numbers that a thread may hold in tiles. With 128 the compiler moves 1.2 kB a
# thread to memory where gradients are made, with 64 at most 32 bytes.
NUMBERS = 64
# Programs that keep the largest GPU busy. Each writes sums of its own.
PROGRAMS = 1024


class Line(NamedTuple):
  """Numbers a channel: `activation(x * scale + shift)` is convolved."""

  scale: Float[Array, ' C']
  shift: Float[Array, ' C']


class After(NamedTuple):
  """Numbers a channel that tell what comes behind a convolution's result y.

  A gradient g of `activation(y * scale + shift)`, with s the derivative of the
  activation there, is `g * s * scale + y * steep + level` by y.
  """

  scale: Float[Array, ' C']
  shift: Float[Array, ' C']
  steep: Float[Array, ' C']
  level: Float[Array, ' C']


@dataclasses.dataclass(frozen=True)
class Layer:
  """A convolution with padding K // 2 of maps of one shape."""

  shape: tuple[int, ...]
  """Images, height, width, channels of the map."""
  kernel: int
  stride: int
  activation: str
  normed: bool
  """A line and the activation stand before the convolution."""

  @property
  def pad(self) -> int:
    return self.kernel // 2

  @property
  def result(self) -> tuple[int, int, int, int]:
    """Shape of the result."""
    images, height, width, channels = self.shape
    return images, -(-height // self.stride), -(-width // self.stride), channels

  def divided(self, tiles: int) -> tuple[tuple[int, int], int, int]:
    """Divides the work among programs, of which each holds so many tiles.

    Returns the grid (images, channels), and how many images and channels a
    program takes.
    """
    images, _, width, channels = self.result
    values = WARPS * WARP * NUMBERS // tiles
    some = values // pl.next_power_of_2(width)
    some = min(
      max(1 << some.bit_length() >> 1, 1), pl.next_power_of_2(channels)
    )
    blocks = pl.cdiv(channels, some)
    most = max(images * blocks // PROGRAMS, 1)
    together = max(n for n in range(1, most + 1) if images % n == 0)
    return (images // together, blocks), together, some


class Block:
  """Loads and stores what a program works on: some channels, all columns."""

  def __init__(self, layer: Layer, channels: int):
    self.columns = jnp.arange(pl.next_power_of_2(layer.result[2]))
    self._c = pl.program_id(1) * channels + jnp.arange(channels)
    self._inside = self._c < layer.shape[3]
    self.zeros = jnp.zeros((len(self.columns), channels), jnp.float32)

  def vector(self, ref: Any, *at: Any) -> Any:
    """Loads a number a channel."""
    return triton.load(ref.at[(*at, self._c)], mask=self._inside, other=0.0)

  def put(self, ref: Any, values: Any, *at: Any) -> None:
    """Stores a number a channel."""
    triton.store(ref.at[(*at, self._c)], values, mask=self._inside)

  def tile(self, ref: Any, n: Any, row: Any, columns: Any) -> tuple[Any, Any]:
    """Returns a row of a map at these columns, and where that is in the map."""
    at, mask = self._place(ref, n, row, columns)
    return triton.load(at, mask=mask, other=0.0).astype(jnp.float32), mask

  def store(self, ref: Any, tile: Any, n: Any, row: Any, columns: Any) -> Any:
    """Stores a tile where it is in the map; returns what is stored, else 0."""
    at, mask = self._place(ref, n, row, columns)
    tile = tile.astype(ref.dtype)
    triton.store(at, tile, mask=mask)
    return jnp.where(mask, tile.astype(jnp.float32), 0.0)

  def _place(self, ref: Any, n: Any, row: Any, columns: Any) -> tuple[Any, Any]:
    _, height, width, _ = ref.shape
    rows_inside = (row >= 0) & (row < height)
    columns_inside = (columns >= 0) & (columns < width)
    mask = (rows_inside & columns_inside)[:, None] & self._inside[None]
    return ref.at[n, row, columns[:, None], self._c[None]], mask
