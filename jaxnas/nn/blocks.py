"""Blocks that the search spaces share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.nn import middle, pooling
from jaxnas.nn.layers import Conv, Depthwise, Linear, Norm, Pointwise
from jaxnas.nn.maps import Layout, Map

MakeNorm = Callable[..., Norm]


class Identity(nn.Module):
  """Nothing where the shape stays; a strided 1x1 convolution where not."""

  features: int
  stride: int
  norm: MakeNorm
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    if self.stride == 1 and x.shape[self.layout.index('C')] == self.features:
      return x
    x = Pointwise(
      self.features, self.stride, self.layout, self.dtype, name='project'
    )(x)
    return self.norm(name='project_norm')(x, train)


class InvertedResidual(nn.Module):
  """MB block: expand, depthwise, project; a shortcut where the shape stays.

  Expansion 1 has no expanding convolution. `squeeze` is the width of
  squeeze-and-excitation after the depthwise activation, None for none.
  """

  features: int
  expansion: int
  kernel: int
  stride: int
  norm: MakeNorm
  squeeze: int | None = None
  activation: str = 'relu'
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    inputs = x.shape[self.layout.index('C')]
    place: dict[str, Any] = {'layout': self.layout, 'dtype': self.dtype}
    expanding = None
    if self.expansion > 1:
      expand = Pointwise(inputs * self.expansion, name='expand', **place)
      expanding = expand, self.norm(name='expand_norm')
    layers = middle.Middle(
      expanding,
      Depthwise(self.kernel, self.stride, name='depthwise', **place),
      self.norm(name='depthwise_norm'),
      self.activation,
    )
    project = Pointwise(self.features, name='project', **place)
    if self.squeeze is None:
      y = middle.projected(layers, project, x, train)
    else:
      y = middle.run(layers, x, train)
      y = SqueezeExcite(self.squeeze, self.layout, name='squeeze')(y)
      y = project(y)
    y = self.norm(name='project_norm')(y, train)
    if self.stride == 1 and inputs == self.features:
      y = y + x
    return y


class SqueezeExcite(nn.Module):
  """Scales channels by a hard-sigmoid gate of their averages."""

  width: int
  layout: Layout = 'NHWC'

  @nn.compact
  def __call__(self, x: Map) -> Map:
    axis = self.layout.index('C')
    mean_BxC = pooling.mean_of_map(x, self.layout)
    narrow = jax.nn.relu(Linear(self.width, name='reduce')(mean_BxC))
    gate_BxC = jax.nn.hard_sigmoid(Linear(x.shape[axis], name='expand')(narrow))
    if self.layout == 'NHWC':
      gate = gate_BxC[:, None, None, :]
    else:
      gate = gate_BxC.T[:, None, None, :]
    # The gate is as wide: its gradient is a sum over the map.
    return (x.astype(gate.dtype) * gate).astype(x.dtype)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions of ResNet and a shortcut.

  Args:
    features: channels that come out.
    shortcut: makes the module that the input passes beside them.
    norm: makes a normalisation.
    stride: of the first convolution.
    preactivate: ReLU stands before both convolutions; else after the first
      one and after the sum.
    dtype: of the computation.
  """

  features: int
  shortcut: Callable[..., nn.Module]
  norm: MakeNorm
  stride: int = 1
  preactivate: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    y = jax.nn.relu(x) if self.preactivate else x
    y = Conv(self.features, stride=self.stride, dtype=self.dtype, name='conv1')(
      y
    )
    y = self.norm(name='norm1')(y, train, 'relu')
    y = Conv(self.features, dtype=self.dtype, name='conv2')(y)
    y = self.norm(name='norm2')(y, train)
    y = y + self.shortcut(name='shortcut')(x, train)
    return y if self.preactivate else jax.nn.relu(y)


class AveragedProjection(nn.Module):
  """2x2 average pool, then a 1x1 convolution without normalisation."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    del train
    return Pointwise(self.features, dtype=self.dtype, name='project')(
      pooling.halved(x)
    )


class ReluConvNorm(nn.Module):
  """ReLU, convolution, batch normalisation.

  Where normalisation has no bias published networks give one to the
  convolution, and subtract it again with the mean: nothing depends on it, so
  there is none here.
  """

  features: int
  kernel: int
  norm: MakeNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    x = jax.nn.relu(x)
    # In a scan over cells all that is kept is copied into its stack, and for
    # candidates that keep nothing too: computing it again takes 8% less of a
    # training step on CPU, and memory falls from 483 to 219 MB.
    given: dict[str, Any] = {'dtype': self.dtype, 'kept': False, 'name': 'conv'}
    if self.kernel == 1:
      x = Pointwise(self.features, **given)(x)
    else:
      x = Conv(self.features, self.kernel, **given)(x)
    return self.norm(name='norm')(x, train)


class AveragePool(nn.Module):
  """3x3 with stride 1; padding does not count."""

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    del train
    return pooling.average_pool(x)


class Zero(nn.Module):
  """Nothing comes out."""

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    del train
    return jnp.zeros_like(x)
