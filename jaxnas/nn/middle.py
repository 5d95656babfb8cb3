"""What stands between the pointwise convolutions of an inverted residual.

Layer by layer, or all in one where there is a library for it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn.layers import ACTIVATIONS, Depthwise, Groups, Norm, Pointwise
from jaxnas.nn.maps import Map
from jaxnas.nn.native import middle as native
from jaxnas.nn.packed import keep


class Middle(NamedTuple):
  """Normalises, activates, convolves each channel, normalises, activates."""

  before: Norm | None
  """None: the convolution comes first."""
  depthwise: Depthwise
  after: Norm
  activation: str


def run(layers: Middle, x: Map, train: bool) -> Map:
  """Of a map in the layout of its layers."""
  if _is_one(layers, x, train):
    out, statistics_4xC = native.middle(*_operands(layers, x))
    _remember(layers, x, out, statistics_4xC)
    return out
  before, depthwise, after, activation = layers
  activate = ACTIVATIONS[activation]
  if before is not None:
    x = activate(before(x, train))
  return activate(after(depthwise(x), train))


def projected(layers: Middle, project: Pointwise, x: Map, train: bool) -> Map:
  """The same, and the convolution behind it."""
  if not _is_one(layers, x, train):
    return project(run(layers, x, train))
  kernel_CxO = project.weights(len(x))
  y, statistics_4xC = native.projected(kernel_CxO, *_operands(layers, x))
  _remember(layers, x, y, statistics_4xC)
  return keep(y, padded=False) if project.kept else y


def _is_one(layers: Middle, x: Map, train: bool) -> bool:
  before, depthwise, after, activation = layers
  return (
    depthwise.layout == 'CHWN'
    and depthwise.dtype == after.dtype == jnp.float32
    and all(
      norm.by_batch(train) and norm.groups == Groups()
      for norm in (before, after)
      if norm is not None
    )
    and native.takes(x, depthwise.weights(len(x)), activation)
  )


def _operands(
  layers: Middle, x_CHWN: Map
) -> tuple[Map, Array, native.Terms, native.Options]:
  before, depthwise, after, activation = layers
  channels = len(x_CHWN)

  def affine(norm: Norm | None) -> tuple[Array, Array]:
    given = None if norm is None else norm.terms(channels).affine
    return given or (jnp.ones(channels), jnp.zeros(channels))

  return (
    x_CHWN,
    depthwise.weights(channels),
    jnp.stack([*affine(before), *affine(after)]),
    native.Options(
      depthwise.stride, activation, before is not None, Norm.EPSILON
    ),
  )


def _remember(layers: Middle, x: Map, out: Map, statistics_4xC: Array) -> None:
  mean_C, var_C, out_mean_C, out_var_C = statistics_4xC
  if layers.before is not None:
    layers.before.remember(mean_C, var_C, x.size // len(x))
  layers.after.remember(out_mean_C, out_var_C, out.size // len(out))
