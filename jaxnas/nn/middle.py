"""The layers of an inverted residual up to its last pointwise convolution.

They run one by one, or together in C++ or kernels of ours where those serve.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxnas.nn import gpu
from jaxnas.nn.cpu.native import middle as native
from jaxnas.nn.cpu.native import onednn
from jaxnas.nn.gpu import middle as kernels
from jaxnas.nn.layers import Depthwise, Groups, Norm, Pointwise
from jaxnas.nn.maps import Map
from jaxnas.nn.residuals import keep


class Middle(NamedTuple):
  """Expands, normalises, activates; convolves each channel, and so again."""

  expanding: tuple[Pointwise, Norm] | None
  """None: the convolution of each channel comes first."""
  depthwise: Depthwise
  after: Norm
  activation: str

  @property
  def before(self) -> Norm | None:
    """Normalises in front of the convolution of each channel."""
    return None if self.expanding is None else self.expanding[1]


def run(layers: Middle, x: Map, train: bool) -> Map:
  """Runs the layers on a map, which has their layout."""
  if _normalises_whole_batches(layers, train):
    if _takes_kernels(layers):
      return _by_kernels(layers, x)
    if _takes_native(layers, x):
      x = _expanded(layers, x, _in_memory(x))
      out, statistics_4xC = native.middle(x, *_operands(layers, len(x)))
      _remember(layers, x, out, statistics_4xC)
      return out.astype(layers.after.dtype)
  x = _expanded(layers, x)
  if layers.before is not None:
    x = layers.before(x, train, layers.activation)
  return layers.after(layers.depthwise(x), train, layers.activation)


def projected(layers: Middle, project: Pointwise, x: Map, train: bool) -> Map:
  """Runs the layers and the pointwise convolution behind them."""
  if not (
    _normalises_whole_batches(layers, train) and _takes_native(layers, x)
  ):
    return project(run(layers, x, train))
  x = _expanded(layers, x, _in_memory(x))
  kernel_CxO = project.weights(len(x)).astype(x.dtype)
  y, statistics_4xC = native.projected(
    kernel_CxO, x, *_operands(layers, len(x))
  )
  _remember(layers, x, y, statistics_4xC)
  y = y.astype(project.dtype)
  return keep(y, padded=False) if project.kept else y


def _by_kernels(layers: Middle, x: Map) -> Map:
  expand_IxC, channels = None, x.shape[3]
  if layers.expanding is not None:
    expand, _ = layers.expanding
    expand_IxC, channels = expand.weights(channels), expand.features
    x = x.astype(expand.dtype)
  out, statistics_4xC = kernels.middle(
    x, expand_IxC, *_operands(layers, channels)
  )
  _remember(layers, x, out, statistics_4xC)
  return out


def _expanded(layers: Middle, x: Map, dtype: Any = None) -> Map:
  if layers.expanding is None:
    return x if dtype is None else x.astype(dtype)
  return layers.expanding[0](x, dtype)


def _in_memory(x: Map) -> Any:
  """Returns the type of an expanded map on a CPU.

  It is float32 where XLA multiplies: its products before and behind are, which
  would be rounded only to be widened again.
  """
  return x.dtype if onednn.takes(x) else jnp.float32


def _normalises_whole_batches(layers: Middle, train: bool) -> bool:
  return all(
    norm.by_batch(train) and norm.groups == Groups()
    for norm in (layers.before, layers.after)
    if norm is not None
  )


def _takes_native(layers: Middle, x: Map) -> bool:
  _, depthwise, after, activation = layers
  return (
    depthwise.layout == 'CHWN'
    and x.dtype == depthwise.dtype == after.dtype
    and native.takes(x, depthwise.kernel, activation)
  )


def _takes_kernels(layers: Middle) -> bool:
  return layers.depthwise.layout == 'NHWC' and gpu.serves()


def _operands(
  layers: Middle, channels: int
) -> tuple[Array, native.Terms, native.Options]:
  _, depthwise, after, activation = layers

  def affine(norm: Norm | None) -> tuple[Array, Array]:
    given = None if norm is None else norm.terms(channels).affine
    return given or (jnp.ones(channels), jnp.zeros(channels))

  return (
    depthwise.weights(channels),
    jnp.stack([*affine(layers.before), *affine(after)]),
    native.Options(
      depthwise.stride, activation, layers.before is not None, Norm.EPSILON
    ),
  )


def _remember(layers: Middle, x: Map, out: Map, statistics_4xC: Array) -> None:
  """Has the layers remember statistics of a map and of what comes out of it.

  The map before it is expanded and a projected one have as many pixels.
  """
  mean_C, var_C, out_mean_C, out_var_C = statistics_4xC
  axis = layers.depthwise.layout.index('C')
  if layers.before is not None:
    layers.before.remember(mean_C, var_C, x.size // x.shape[axis])
  layers.after.remember(out_mean_C, out_var_C, out.size // out.shape[axis])
