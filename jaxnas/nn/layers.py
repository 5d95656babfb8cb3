"""Layers with PyTorch's default initialisation, float32 parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.nn import convolutions
from jaxnas.nn.convolutions import Layout, Map
from jaxnas.nn.initial import constant, torch_uniform
from jaxnas.nn.packed import keep

# What convolutions and linear layers multiply by; other parameters are
# biases, or the scales of normalisation.
WEIGHT = 'kernel'

# PyTorch's default share of a batch in running statistics.
MOMENTUM = 0.1

ACTIVATIONS = {
  'relu': jax.nn.relu,
  'relu6': jax.nn.relu6,
  'hard_swish': jax.nn.hard_swish,
}


class Conv(nn.Module):
  """KxK convolution without bias, padding K // 2, in NHWC."""

  features: int
  kernel: int = 3
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map) -> Map:
    inputs = x.shape[-1]
    kernel = self.param(
      'kernel',
      torch_uniform(self.kernel**2 * inputs),
      (self.kernel, self.kernel, inputs, self.features),
    )
    return keep(
      convolutions.dense(
        x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride
      )
    )


class Pointwise(nn.Module):
  """1x1 convolution without bias."""

  features: int
  stride: int = 1
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map) -> Map:
    inputs = x.shape[self.layout.index('C')]
    kernel = self.param(
      'kernel', torch_uniform(inputs), (inputs, self.features)
    )
    return keep(
      convolutions.pointwise(
        x.astype(self.dtype),
        kernel.astype(self.dtype),
        stride=self.stride,
        layout=self.layout,
      )
    )


class Depthwise(nn.Module):
  """KxK convolution of each channel alone, without bias."""

  kernel: int
  stride: int = 1
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map) -> Map:
    channels = x.shape[self.layout.index('C')]
    kernel = self.param(
      'kernel',
      torch_uniform(self.kernel**2),
      (self.kernel, self.kernel, channels),
    )
    return keep(
      convolutions.depthwise(
        x.astype(self.dtype),
        kernel.astype(self.dtype),
        stride=self.stride,
        layout=self.layout,
      )
    )


class Linear(nn.Module):
  """With bias."""

  features: int

  @nn.compact
  def __call__(self, x_BxD: Float[Array, 'B D']) -> Float[Array, 'B K']:
    init = torch_uniform(x_BxD.shape[-1])
    kernel = self.param('kernel', init, (x_BxD.shape[-1], self.features))
    return x_BxD @ kernel + self.param('bias', init, (self.features,))


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
  """

  affine: bool = False
  momentum: float | None = None
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  EPSILON = 1e-5

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    axis = self.layout.index('C')
    others = tuple(i for i in range(4) if i != axis)
    channels = x.shape[axis]
    broadcast = [channels if i == axis else 1 for i in range(4)]
    x = x.astype(convolutions.at_least_float32(x.dtype))
    running = None
    if self.momentum is not None:
      means = self.variable('batch_stats', 'mean', constant(0.0), (channels,))
      variances = self.variable(
        'batch_stats', 'var', constant(1.0), (channels,)
      )
      running = means, variances
    if running and not train:
      mean_C, var_C = (statistic.value for statistic in running)
    else:
      mean_C = keep(jnp.mean(x, others))
      var_C = keep(jnp.mean(x * x, others)) - mean_C * mean_C
      var_C = jnp.maximum(var_C, 0)
      if running and not self.is_initializing():
        means, variances = running
        count = x.size // channels
        means.value += self.momentum * (mean_C - means.value)
        unbiased_C = var_C * (count / max(count - 1, 1))
        variances.value += self.momentum * (unbiased_C - variances.value)
    scale_C = jax.lax.rsqrt(var_C + self.EPSILON)
    shift_C = -mean_C * scale_C
    if self.affine:
      gain_C = self.param('scale', constant(1.0), (channels,))
      bias_C = self.param('bias', constant(0.0), (channels,))
      scale_C, shift_C = scale_C * gain_C, shift_C * gain_C + bias_C
    out = x * scale_C.reshape(broadcast) + shift_C.reshape(broadcast)
    return out.astype(self.dtype)
