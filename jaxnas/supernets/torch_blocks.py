"""Blocks of the PyTorch supernets, with the names that they have in Flax.

Maps are NCHW in channels-last memory.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas.spaces.chain import Block, Layer

# channels -> batch normalisation
MakeNorm = Callable[[int], nn.Module]
Map = Float[Tensor, '_ _ _ _']

# In place behind a normalisation, whose gradient needs its input only.
relu_: Callable[[Tensor], Tensor] = functools.partial(F.relu, inplace=True)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
  'relu': relu_,
  'relu6': functools.partial(F.relu6, inplace=True),
  'hard_swish': F.hardswish,
}


def conv(
  inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
  """Without bias, padding kernel // 2."""
  return nn.Conv2d(
    inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
  )


class Sequence(nn.Sequential):
  """With code of its own: torch.compile skips PyTorch's."""

  def forward(self, input: Map) -> Tensor:
    for module in self:
      input = module(input)
    return input


def named(**modules: nn.Module) -> nn.Sequential:
  """One after the other."""
  return Sequence(OrderedDict(modules))


def mean_of_map(x: Map) -> Float[Tensor, 'B C']:
  return x.mean((2, 3))


class Choice(nn.Module):
  """Runs the candidate that `op` names and no other."""

  def __init__(self, *candidates: nn.Module):
    super().__init__()
    self.op = nn.ModuleList(candidates)

  def forward(self, x: Map, op: int) -> Map:
    return self.op[op](x)


def identity(layer: Layer, norm: MakeNorm) -> nn.Module:
  """Nothing where the shape stays; a strided 1x1 convolution where not."""
  if layer.keeps_shape:
    return nn.Identity()
  return named(
    project=conv(layer.inputs, layer.outputs, stride=layer.stride),
    project_norm=norm(layer.outputs),
  )


class InvertedResidual(nn.Module):
  """MB block: expand, depthwise, project; a shortcut where the shape stays."""

  def __init__(self, layer: Layer, block: Block, activation: str, norm: Any):
    super().__init__()
    wide = layer.inputs * block.expansion
    narrow = block.squeeze_width(layer.inputs)
    self.activation = ACTIVATIONS[activation]
    self.keeps_shape = layer.keeps_shape
    self.expands = block.expansion > 1
    if self.expands:
      self.expand = conv(layer.inputs, wide)
      self.expand_norm = norm(wide)
    self.depthwise = conv(wide, wide, block.kernel, layer.stride, groups=wide)
    self.depthwise_norm = norm(wide)
    self.squeeze = SqueezeExcite(wide, narrow) if narrow else nn.Identity()
    self.project = conv(wide, layer.outputs)
    self.project_norm = norm(layer.outputs)

  def forward(self, x: Map) -> Map:
    y = x
    if self.expands:
      y = self.activation(self.expand_norm(self.expand(y)))
    y = self.activation(self.depthwise_norm(self.depthwise(y)))
    y = self.project_norm(self.project(self.squeeze(y)))
    return x + y if self.keeps_shape else y


class SqueezeExcite(nn.Module):
  """Scales channels by a hard-sigmoid gate of their averages."""

  def __init__(self, wide: int, narrow: int):
    super().__init__()
    self.reduce = nn.Linear(wide, narrow)
    self.expand = nn.Linear(narrow, wide)

  def forward(self, x: Map) -> Map:
    gate_BxC = F.hardsigmoid(self.expand(F.relu(self.reduce(mean_of_map(x)))))
    return x * gate_BxC[:, :, None, None]


class BasicBlock(nn.Module):
  """Two 3x3 convolutions of ResNet and a shortcut.

  ReLU stands before both convolutions where it preactivates; else after the
  first one and after the sum.
  """

  def __init__(
    self,
    layer: Layer,
    shortcut: nn.Module,
    norm: MakeNorm,
    preactivate: bool = False,
  ):
    super().__init__()
    self.conv1 = conv(layer.inputs, layer.outputs, 3, layer.stride)
    self.norm1 = norm(layer.outputs)
    self.conv2 = conv(layer.outputs, layer.outputs, 3)
    self.norm2 = norm(layer.outputs)
    self.shortcut = shortcut
    self.preactivate = preactivate

  def forward(self, x: Map) -> Map:
    y = F.relu(x) if self.preactivate else x
    y = relu_(self.norm1(self.conv1(y)))
    y = self.norm2(self.conv2(y)) + self.shortcut(x)
    return y if self.preactivate else relu_(y)


class Zero(nn.Module):
  """Nothing comes out, and gradients of zero go back.

  They are zero and not absent, so that decay reaches what stands before.
  """

  def forward(self, x: Map) -> Map:
    return x * 0


class Cell(nn.Module):
  """Cell of NAS-Bench-201: four nodes, each the sum of its incoming edges."""

  def __init__(self, features: int, norm: MakeNorm):
    super().__init__()

    def convolution(kernel: int) -> nn.Module:
      return named(
        relu=nn.ReLU(),
        conv=conv(features, features, kernel),
        norm=norm(features),
      )

    self.position = nn.ModuleList(
      Choice(
        Zero(),
        nn.Identity(),
        convolution(1),
        convolution(3),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
      )
      for _ in range(6)
    )

  def forward(self, x: Map, arch: tuple[int, ...]) -> Map:
    def edge(e: int, node: Tensor) -> Tensor:
      return self.position[e](node, arch[e])

    one = edge(0, x)
    two = edge(1, x) + edge(2, one)
    return edge(3, x) + edge(4, one) + edge(5, two)
