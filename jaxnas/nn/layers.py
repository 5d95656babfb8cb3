"""Layers with PyTorch's default initialisation, float32 parameters."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.nn import convolutions, maps, normalising, pooling, target
from jaxnas.nn.cpu.native import normalising as native
from jaxnas.nn.initial import constant, torch_uniform
from jaxnas.nn.maps import Layout, Map
from jaxnas.nn.residuals import keep

# Name of the weights of convolutions and linear layers; other parameters are
# biases, or the scales of normalisation.
WEIGHT = 'kernel'

# PyTorch's default share of a batch in running statistics.
MOMENTUM = 0.1


class Conv(nn.Module):
  """KxK convolution without bias, padding K // 2, in NHWC.

  `kept`: a gradient in a switch keeps the result, else computes it again.
  """

  features: int
  kernel: int = 3
  stride: int = 1
  dtype: Any = jnp.float32
  kept: bool = True

  @nn.compact
  def __call__(self, x: Map) -> Map:
    inputs = x.shape[-1]
    kernel = self.param(
      'kernel',
      torch_uniform(self.kernel**2 * inputs),
      (self.kernel, self.kernel, inputs, self.features),
    )
    y = convolutions.dense(
      x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride
    )
    return keep(y) if self.kept else y


class Pointwise(nn.Module):
  """1x1 convolution without bias, `kept` as in Conv."""

  features: int
  stride: int = 1
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32
  kept: bool = True

  @nn.compact
  def weights(self, inputs: int) -> Float[Array, 'I O']:
    shape = inputs, self.features
    return self.param('kernel', torch_uniform(inputs), shape)

  def __call__(self, x: Map, dtype: Any = None) -> Map:
    """`dtype`: of the computation, in place of the layer's."""
    dtype = self.dtype if dtype is None else dtype
    kernel = self.weights(x.shape[self.layout.index('C')])
    y = convolutions.pointwise(
      x.astype(dtype),
      kernel.astype(dtype),
      stride=self.stride,
      layout=self.layout,
    )
    # Rather made anew than padded: a step of NAS-Bench-Macro takes 187 ms, not
    # 195 (by XLA alone 233, not 225).
    return keep(y, padded=False) if self.kept else y


class Depthwise(nn.Module):
  """KxK convolution of each channel alone, without bias."""

  kernel: int
  stride: int = 1
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def weights(self, channels: int) -> Float[Array, 'K K C']:
    shape = self.kernel, self.kernel, channels
    return self.param('kernel', torch_uniform(self.kernel**2), shape)

  def __call__(self, x: Map) -> Map:
    kernel = self.weights(x.shape[self.layout.index('C')])
    return keep(
      convolutions.depthwise(
        x.astype(self.dtype),
        kernel.astype(self.dtype),
        stride=self.stride,
        layout=self.layout,
      )
    )


class Linear(nn.Module):
  """Linear layer with a bias."""

  features: int

  @nn.compact
  def __call__(self, x_BxD: Float[Array, 'B D']) -> Float[Array, 'B K']:
    init = torch_uniform(x_BxD.shape[-1])
    kernel = self.param('kernel', init, (x_BxD.shape[-1], self.features))
    return x_BxD @ kernel + self.param('bias', init, (self.features,))


@dataclasses.dataclass(frozen=True)
class Groups:
  """Equal parts of a batch, one after the other, each normalised alone."""

  count: int = 1
  """Number of parts of the images at hand."""
  axis: str | None = None
  """Axis of a mesh along which a part lies on all devices. They exchange
  statistics, and so all must run the same layers."""


class Terms(NamedTuple):
  """Parameters and variables of a normalisation; None where it has none."""

  affine: tuple[Float[Array, ' C'], Float[Array, ' C']] | None
  """A gain and a bias a channel."""
  running: Any
  """Variables of mean and variance."""


class Norm(nn.Module):
  """Batch normalisation, statistics in float32.

  Args:
    affine: learn a scale and a bias a channel.
    momentum: of running statistics (MOMENTUM is PyTorch's default, 1 keeps
      the last batch's), which serve when not training; the variance is
      unbiased. None: the batch's own statistics serve training and evaluation,
      and the layer is a pure function.
    layout: of the map.
    dtype: of the result.
    groups: of images; running statistics average over them.
  """

  affine: bool = False
  momentum: float | None = None
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32
  groups: Groups = Groups()

  EPSILON = 1e-5

  @nn.compact
  def terms(self, channels: int) -> Terms:
    """Returns its parameters and variables, for code that normalises itself."""
    affine = running = None
    if self.affine:
      affine = (
        self.param('scale', constant(1.0), (channels,)),
        self.param('bias', constant(0.0), (channels,)),
      )
    if self.momentum is not None:
      running = (
        self.variable('batch_stats', 'mean', constant(0.0), (channels,)),
        self.variable('batch_stats', 'var', constant(1.0), (channels,)),
      )
    return Terms(affine, running)

  def by_batch(self, train: bool) -> bool:
    """Returns True where statistics are the batch's own, not running ones."""
    return train or self.momentum is None

  def remember(
    self, mean_C: Float[Array, ' C'], var_C: Float[Array, ' C'], count: int
  ) -> None:
    """Moves running statistics, if any, towards a batch's.

    Args:
      mean_C: the batch's mean.
      var_C: the batch's variance, biased.
      count: number of values that each is computed from.
    """
    _, running = self.terms(len(mean_C))
    if running is None or self.is_initializing():
      return
    means, variances = running
    unbiased_C = var_C * (count / max(count - 1, 1))
    means.value += self.momentum * (mean_C - means.value)
    variances.value += self.momentum * (unbiased_C - variances.value)

  def __call__(self, x: Map, train: bool, activation: str | None = None) -> Map:
    """Normalises; `activation` names what follows, None for nothing."""
    if self._takes_native(x, train, activation):
      return self._native(x, activation)
    shape = x.shape
    x, scale, shift = self._scaling(x, train)
    if target.backend() != 'cpu':
      y = normalising.scaled(x, scale, shift, activation)
      return y.reshape(shape).astype(self.dtype)
    y = (x * scale + shift).reshape(shape).astype(self.dtype)
    return normalising.activate(y, activation)

  def averaged(self, x: Map, train: bool) -> Float[Array, 'B C']:
    """Normalises, applies ReLU, and averages over height and width."""
    if target.backend() == 'cpu' or self.layout != 'NHWC':
      return pooling.mean_of_map(self(x, train, 'relu'), self.layout)
    batch, *_, channels = x.shape
    return normalising.averaged(*self._scaling(x, train)).reshape(
      batch, channels
    )

  def _takes_native(self, x: Map, train: bool, activation: str | None) -> bool:
    return (
      self.groups == Groups()
      and self.by_batch(train)
      and x.dtype == self.dtype
      and native.takes(x, activation)
    )

  def _native(self, x: Map, activation: str | None) -> Map:
    channels = x.shape[self.layout.index('C')]
    affine, _ = self.terms(channels)
    terms = affine or (jnp.ones(channels), jnp.zeros(channels))
    statistics_2xC = keep(native.moments(x, self.layout))
    mean_C, var_C = statistics_2xC
    self.remember(mean_C, var_C, x.size // channels)
    return native.normalise(
      x,
      self.layout,
      jnp.stack(terms),
      statistics_2xC,
      activation,
      self.EPSILON,
    )

  def _scaling(self, x: Map, train: bool) -> tuple[Array, Array, Array]:
    """Returns a map, at least in float32, and its scale and shift.

    The batch has an axis before it for groups, if there are several.
    """
    shape, axis = x.shape, self.layout.index('C')
    channels, groups = shape[axis], self.groups.count
    x = x.astype(maps.at_least_float32(x.dtype))
    affine, running = self.terms(channels)
    frozen = None if self.by_batch(train) else running
    batch, apart = self.layout.index('N'), {axis}
    if groups > 1 and not frozen:
      x = x.reshape(*shape[:batch], groups, -1, *shape[batch + 1 :])
      axis += axis > batch
      apart = {axis, batch}
    averaged = [i for i in range(x.ndim) if i not in apart]
    others = [i for i in range(x.ndim) if i != axis]
    if frozen:
      mean, var = (jnp.expand_dims(each.value, others) for each in frozen)
    else:
      if target.backend() != 'cpu':
        mean, square = normalising.moments(x, tuple(averaged))
      else:
        mean = jnp.mean(x, averaged, keepdims=True)
        square = jnp.mean(x * x, averaged, keepdims=True)
      count = x.size // channels // groups
      if self.groups.axis is not None:
        mean, square = jax.lax.pmean((mean, square), self.groups.axis)
        count *= jax.lax.axis_size(self.groups.axis)
      mean, square = keep(mean), keep(square)
      var = jnp.maximum(square - mean * mean, 0)
      self.remember(mean.mean(others), var.mean(others), count)
    scale = jax.lax.rsqrt(var + self.EPSILON)
    shift = -mean * scale
    if affine is not None:
      gain, bias = (jnp.expand_dims(each, others) for each in affine)
      scale, shift = scale * gain, shift * gain + bias
    return x, scale, shift
