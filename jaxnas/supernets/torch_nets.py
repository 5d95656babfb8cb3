"""The supernets in PyTorch, as one would write them there.

Only the ops of an arch run. Convolutions are in channels-last memory. They are
what speed is compared with, and what a network is handed over as. This module
and the others named torch_* need the extra `torch`; nothing else of the
package imports it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas.spaces import CellSpace, ChainSpace, PoolingSpace, Space
from jaxnas.spaces.chain import Layer
from jaxnas.supernets.torch_blocks import (
  BasicBlock,
  Cell,
  Choice,
  InvertedResidual,
  MakeNorm,
  Map,
  conv,
  identity,
  mean_of_map,
  named,
  relu_,
)

Arch = tuple[int, ...]


class ChainNet(nn.Module):
  """stem -> positions -> head."""

  def __init__(self, space: ChainSpace, norm: MakeNorm):
    super().__init__()
    block = functools.partial(
      InvertedResidual, activation=space.activation, norm=norm
    )
    self.stem = named(
      conv=conv(space.image_shape[-1], space.stem, 3, space.stem_stride),
      norm=norm(space.stem),
      relu=nn.ReLU(inplace=True),
    )
    self.first: nn.Module = nn.Identity()
    if space.first is not None:
      of_first, channels = space.first
      self.first = block(Layer(space.stem, channels, 1), of_first)
    self.position = nn.ModuleList(
      Choice(
        *(
          identity(layer, norm)
          if candidate is None
          else block(layer, candidate)
          for candidate in candidates
        )
      )
      for layer, candidates in zip(space.layers, space.candidates, strict=True)
    )
    self.head = named(
      conv=conv(space.stages[-1].channels, space.head),
      norm=norm(space.head),
      relu=nn.ReLU(inplace=True),
      pool=nn.AdaptiveAvgPool2d(1),
      flatten=nn.Flatten(),
      linear=nn.Linear(space.head, space.classes),
    )

  def forward(self, x: Map, arch: Arch) -> Float[Tensor, 'B K']:
    x = self.first(self.stem(x))
    for choice, op in zip(self.position, arch, strict=True):
      x = choice(x, op)
    return self.head(x)


class PoolingNet(nn.Module):
  """ResNet20 whose pools move."""

  def __init__(self, space: PoolingSpace, norm: MakeNorm):
    super().__init__()
    self.stem = conv(space.image_shape[-1], space.stem, 3)
    self.stem_norm = norm(space.stem)
    blocks, inputs = {}, space.stem
    for e, outputs in enumerate(space.channels):
      layer = Layer(inputs, outputs, 1)
      blocks[str(e + 1)] = BasicBlock(layer, identity(layer, norm), norm)
      inputs = outputs
    self.block = nn.ModuleDict(blocks)
    self.linear = nn.Linear(inputs, space.classes)

  def forward(self, x: Map, arch: Arch) -> Float[Tensor, 'B K']:
    x = relu_(self.stem_norm(self.stem(x)))
    for block, pools in zip(self.block.values(), arch, strict=True):
      x = block(F.max_pool2d(x, 2) if pools else x)
    return self.linear(mean_of_map(x))


class CellNet(nn.Module):
  """Three stages of cells, residual blocks of stride 2 between them."""

  def __init__(self, space: CellSpace, norm: MakeNorm):
    super().__init__()
    self.stem = conv(space.image_shape[-1], space.channels, 3)
    self.stem_norm = norm(space.channels)
    self.cells = nn.ModuleList(
      nn.ModuleList(Cell(channels, norm) for _ in range(space.cells))
      for channels in space.widths
    )
    self.reduce = nn.ModuleDict()
    for stage in (1, 2):
      inputs, outputs = space.widths[stage - 1 : stage + 1]
      shortcut = named(pool=nn.AvgPool2d(2), project=conv(inputs, outputs))
      self.reduce[str(stage)] = BasicBlock(
        Layer(inputs, outputs, 2), shortcut, norm, preactivate=True
      )
    self.last_norm = norm(space.widths[-1])
    self.linear = nn.Linear(space.widths[-1], space.classes)

  def forward(self, x: Map, arch: Arch) -> Float[Tensor, 'B K']:
    x = self.stem_norm(self.stem(x))
    cells: Any  # a ModuleList that holds ModuleLists
    for stage, cells in enumerate(self.cells):
      if stage:
        x = self.reduce[str(stage)](x)
      for cell in cells:
        x = cell(x, arch)
    return self.linear(mean_of_map(relu_(self.last_norm(x))))


NETS: dict[type[Space], Any] = {
  ChainSpace: ChainNet,
  CellSpace: CellNet,
  PoolingSpace: PoolingNet,
}


def build(
  space: Space, *, affine: bool = False, running: bool = False
) -> nn.Module:
  """The supernet of a space, PyTorch's initialisation; call it as net(x, arch).

  Args:
    space: any.
    affine: batch normalisation learns a scale and a bias.
    running: it keeps running statistics, which serve in evaluation; else the
      batch's own always do.
  """
  norm = functools.partial(
    nn.BatchNorm2d, affine=affine, track_running_stats=running
  )
  net = NETS[type(space)](space, norm)
  return net.to(memory_format=torch.channels_last)


class StandAlone(nn.Module):
  """One architecture with parameters of its own, from raw NHWC images.

  The weights of `net` have the supernet's names; other ops have none.
  """

  mean_C: Tensor
  std_C: Tensor

  def __init__(
    self,
    space: Space,
    arch_E: Int[np.ndarray, ' E'],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    scale: int = 255,
  ):
    """Makes it, with PyTorch's initialisation.

    Args:
      space: for the images at hand.
      arch_E: the architecture.
      mean: of each channel of the training pixels, divided by `scale`.
      std: their standard deviation.
      scale: 255 where pixels are bytes, and 1 where they are floats.
    """
    super().__init__()
    self.scale = scale
    self.arch = tuple(int(op) for op in arch_E)
    self.net = build(space, affine=True, running=True)
    for name, choice in self.net.named_modules():
      if isinstance(choice, Choice):
        chosen = self.arch[int(name.rpartition('.')[2])]
        for op in range(len(choice.op)):
          if op != chosen:
            choice.op[op] = nn.Identity()
    for name, values in (('mean_C', mean), ('std_C', std)):
      of_channels = torch.tensor(values, dtype=torch.float32)
      self.register_buffer(name, of_channels, persistent=False)

  def forward(self, x_BxHxWxC: Num[Tensor, 'B H W C']) -> Float[Tensor, 'B K']:
    x = (x_BxHxWxC.to(torch.float32) / self.scale - self.mean_C) / self.std_C
    return self.net(x.permute(0, 3, 1, 2), self.arch)


def compile_parts(net: nn.Module) -> None:
  """Compiles each op and what stands between, once a shape.

  Whole paths would be compiled anew for each of thousands of architectures.
  Single layers run as they are. On CPU this needs a C++ compiler.
  """
  # Ops of one kind share code: those of more than 8 shapes, the default,
  # would run uncompiled in silence. MobileNet's blocks have 133.
  torch._dynamo.config.recompile_limit = 256
  for part in _parts(net):
    part.compile(dynamic=False)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
  for child in module.children():
    if isinstance(child, nn.ModuleList | nn.ModuleDict | Choice | Cell):
      yield from _parts(child)
    elif not isinstance(child, nn.Identity):
      yield child


def images(
  x_BxHxWxC: Float[np.ndarray, 'B H W C'], device: str | torch.device
) -> Map:
  """Images as the nets take them: NCHW, in channels-last memory."""
  x = torch.from_numpy(x_BxHxWxC).permute(0, 3, 1, 2).to(device)
  return x.contiguous(memory_format=torch.channels_last)


def labels(
  y_B: Int[np.ndarray, ' B'], device: str | torch.device
) -> Int[Tensor, ' B']:
  return torch.from_numpy(y_B).long().to(device)
