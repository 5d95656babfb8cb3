"""Blocks that the search spaces share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.nn.convolutions import Layout, Map
from jaxnas.nn.layers import Conv, Depthwise, Norm, Pointwise

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
  """MB block: expand, depthwise, project; a shortcut where the shape stays."""

  features: int
  expansion: int
  kernel: int
  stride: int
  norm: MakeNorm
  layout: Layout = 'NHWC'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    inputs = x.shape[self.layout.index('C')]
    place: dict[str, Any] = {'layout': self.layout, 'dtype': self.dtype}
    y = Pointwise(inputs * self.expansion, name='expand', **place)(x)
    y = jax.nn.relu(self.norm(name='expand_norm')(y, train))
    y = Depthwise(self.kernel, self.stride, name='depthwise', **place)(y)
    y = jax.nn.relu(self.norm(name='depthwise_norm')(y, train))
    y = Pointwise(self.features, name='project', **place)(y)
    y = self.norm(name='project_norm')(y, train)
    if self.stride == 1 and inputs == self.features:
      y = y + x
    return y


class BasicBlock(nn.Module):
  """Two 3x3 convolutions of ResNet, stride 1; 1x1 shortcut on new channels."""

  features: int
  norm: MakeNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Map, train: bool) -> Map:
    y = Conv(self.features, dtype=self.dtype, name='conv1')(x)
    y = jax.nn.relu(self.norm(name='norm1')(y, train))
    y = Conv(self.features, dtype=self.dtype, name='conv2')(y)
    y = self.norm(name='norm2')(y, train)
    shortcut = Identity(
      self.features, 1, self.norm, dtype=self.dtype, name='shortcut'
    )
    return jax.nn.relu(y + shortcut(x, train))
