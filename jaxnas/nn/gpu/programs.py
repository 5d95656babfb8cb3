"""Programs of `depthwise.py`, each of which goes through images row by row.

What a kernel covers at a time is held in registers, so that a value is loaded
once for each column of the kernel and not for all of its taps.
"""

import itertools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from jaxnas.nn import normalising
from jaxnas.nn.gpu.tiles import After, Block, Layer, Line


def _activated(
  block: Block, layer: Layer, ref: Any, line: Line, *at: Any
) -> Any:
  """Loads a tile of what is convolved; around the map that is 0."""
  x, mask = block.tile(ref, *at)
  if not layer.normed:
    return x
  y = normalising.activate(x * line.scale + line.shift, layer.activation)
  return jnp.where(mask, y, 0.0)


def convolve(
  layer, together, channels, x_ref, line_ref, kernel_ref, y_ref, sums_ref
):
  """Writes a map, and sums of it and of its squares."""
  block, group = Block(layer, channels), pl.program_id(0)
  k, stride, pad = layer.kernel, layer.stride, layer.pad
  line = Line(*(block.vector(line_ref, row) for row in range(2)))
  # So many rows of the result are under way: a row of x adds to all of them.
  ring = -(-k // stride)

  def image(i, sums):
    n = group * together + i

    def step(t, carry):
      rows, total, squares = carry
      rows = [block.zeros, *rows]
      for u, j in itertools.product(range(stride), range(k)):
        x = _activated(
          block, layer, x_ref, line,
          n, stride * t + u - pad, stride * block.columns + j - pad,
        )  # fmt: skip
        for a in range(ring):
          if (tap := u + stride * a) < k:
            rows[a] += x * block.vector(kernel_ref, tap, j)
      *rows, done = rows
      done = block.store(y_ref, done, n, t - ring + 1, block.columns)
      total, squares = total + done.sum(0), squares + (done * done).sum(0)
      return tuple(rows), total, squares

    start = (block.zeros,) * (ring - 1), *sums
    steps = layer.result[1] + ring - 1
    _, *sums = lax.fori_loop(0, steps, step, start)
    return tuple(sums)

  nothing = jnp.zeros(channels, jnp.float32)
  sums = lax.fori_loop(0, together, image, (nothing, nothing))
  for row, values in enumerate(sums):
    block.put(sums_ref, values, group, row)


def pull(
  layer, together, channels,
  x_ref, line_ref, kernel_ref, y_ref, after_ref, g_ref, pulled_ref, sums_ref,
):  # fmt: skip
  """Writes the gradient of a map, of the kernel, and two sums of the first."""
  block, group = Block(layer, channels), pl.program_id(0)
  k, stride, pad = layer.kernel, layer.stride, layer.pad
  line = Line(*(block.vector(line_ref, row) for row in range(2)))
  after = After(*(block.vector(after_ref, row) for row in range(4)))
  slope = normalising.SLOPES[layer.activation]
  phases = [stride * block.columns + phase for phase in range(stride)]
  # Column `stride * m + phase` of x meets column `m + shift` of the result at
  # this column of the kernel.
  meetings: dict[int, list[tuple[int, int]]] = {}
  for phase, j in itertools.product(range(stride), range(k)):
    shift, rest = divmod(phase + pad - j, stride)
    if not rest:
      meetings.setdefault(shift, []).append((phase, j))

  def image(i, sums):
    n = group * together + i

    def inputs_of(row):
      return tuple(
        _activated(block, layer, x_ref, line, n, row, columns)
        for columns in phases
      )

    def done(pulled, row, total, product):
      """Stores a row of gradients; returns the sums with it."""
      for gradient, columns in zip(pulled, phases, strict=True):
        if layer.normed:
          x, _ = block.tile(x_ref, n, row, columns)
          gradient = block.store(
            pulled_ref,
            gradient * slope(x * line.scale + line.shift),
            n, row, columns,
          )  # fmt: skip
          total, product = (
            total + gradient.sum(0),
            product + (gradient * x).sum(0),
          )
        else:
          block.store(pulled_ref, gradient, n, row, columns)
      return total, product

    def step(h, carry):
      inputs, pulled, taps, *sums = carry
      # The rows that the kernel covers, from `stride * h - pad` on.
      first = stride * h - pad
      inputs = [
        *inputs,
        *(inputs_of(first + k - stride + u) for u in range(stride)),
      ]
      pulled = [
        *map(list, pulled),
        *([block.zeros] * stride for _ in range(stride)),
      ]
      taps = dict(zip(itertools.product(range(k), repeat=2), taps, strict=True))
      for shift, places in meetings.items():
        at = n, h, block.columns + shift
        g, mask = block.tile(g_ref, *at)
        y, _ = block.tile(y_ref, *at)
        g = g * slope(y * after.scale + after.shift) * after.scale
        g = jnp.where(mask, g + y * after.steep + after.level, 0.0)
        for (phase, j), i in itertools.product(places, range(k)):
          pulled[i][phase] += g * block.vector(kernel_ref, i, j)
          taps[i, j] += (inputs[i][phase] * g).sum(0)
      for u in range(stride):
        sums = done(pulled[u], first + u, *sums)
      rest = tuple(inputs[stride:]), tuple(map(tuple, pulled[stride:]))
      return *rest, tuple(taps.values()), *sums

    start = tuple(inputs_of(row - pad) for row in range(k - stride))
    zeros = ((block.zeros,) * stride,) * (k - stride)
    height = layer.result[1]
    _, pulled, taps, *sums = lax.fori_loop(
      0, height, step, (start, zeros, *sums)
    )
    for u, of_row in enumerate(pulled):
      sums = done(of_row, stride * height + u - pad, *sums)
    return taps, *sums

  nothing = jnp.zeros(channels, jnp.float32)
  taps, *sums = lax.fori_loop(
    0, together, image, ((nothing,) * k**2, nothing, nothing)
  )
  for row, values in enumerate((*taps, *sums)):
    block.put(sums_ref, values, group, row)
