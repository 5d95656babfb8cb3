"""Ranking in PyTorch: path by path, and by a walk of the prefix tree."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from jaxnas.bench import rank, torch_step
from jaxnas.nn import walk
from jaxnas.supernets import torch_nets
from jaxnas.supernets.torch_nets import ChainNet, Map

# Images from `torch_nets.images`, and labels from `torch_nets.labels`.
Batch = tuple[Map, Int[Tensor, ' B']]
# hits_AxN: images that architecture a classifies correctly in batch n.
Hits = Int[np.ndarray, 'A N']


def theirs_by_path(*, every: int, **given: Any) -> Callable[[], float]:
  """Ranks eagerly, with a forward pass for each architecture."""
  return _side(by_path, every, **given)


def theirs_by_walk(**given: Any) -> Callable[[], float]:
  """Ranks eagerly, by the same prefix tree as ours."""
  return _side(by_walk, 1, **given)


def _side(
  way: Callable[[Any, Any, list[Batch]], Any], every: int, **given: Any
) -> Callable[[], float]:
  torch_step.use_pinned_cores()
  snapshot, device = rank.drawn(**given), torch_step.best_device()
  net = torch_nets.build(snapshot.space).to(device)
  batch = (
    torch_nets.images(snapshot.x_BxHxWxC, device),
    torch_nets.labels(snapshot.y_B, device),
  )

  def hits(archs_AxE):
    narrow = snapshot.dtype == 'bfloat16'
    with torch.autocast(device, torch.bfloat16, enabled=narrow):
      return way(net, archs_AxE, [batch])[:, 0]

  return rank.timed(hits, snapshot.archs_AxE, every)


@torch.inference_mode()
def by_path(
  net: nn.Module, archs_AxE: Int[np.ndarray, 'A E'], batches: Sequence[Batch]
) -> Hits:
  """Each architecture alone, normalised by each batch's statistics.

  Args:
    net: from `torch_nets.build`; it is set to evaluation.
    archs_AxE: any set of architectures.
    batches: on the net's device.
  """
  net.eval()
  # Does nothing on a CPU.
  torch.backends.cudnn.benchmark = True
  archs = [tuple(arch) for arch in archs_AxE.tolist()]
  return _stacked(
    [_hits(net(x, arch), y_B) for arch in archs] for x, y_B in batches
  )


@torch.inference_mode()
def by_walk(
  net: ChainNet, archs_AxE: Int[np.ndarray, 'A E'], batches: Sequence[Batch]
) -> Hits:
  """Counts the same; architectures that start alike share that start.

  Depth first: at most E + 1 feature maps are alive.
  """
  net.eval()
  # Does nothing on a CPU.
  torch.backends.cudnn.benchmark = True
  indices_Ax1, _ = walk.columns(archs_AxE, 1)
  visited_Ax1xE = archs_AxE[indices_Ax1]

  def step(e, x, ops_1):
    return net.position[e](x, int(ops_1[0]))

  hits_AxN = _stacked(
    [
      _hits(net.head(x), y_B)
      for x in walk.walk(visited_Ax1xE, net.first(net.stem(images)), step)
    ]
    for images, y_B in batches
  )
  in_order_AxN = np.empty_like(hits_AxN)
  in_order_AxN[indices_Ax1[:, 0]] = hits_AxN
  return in_order_AxN


def _hits(logits_BxK: Tensor, y_B: Tensor) -> Tensor:
  return (logits_BxK.argmax(1) == y_B).sum()


def _stacked(of_batches: Iterable[list[Tensor]]) -> Hits:
  """Waits for the device once a batch, not once an architecture."""
  return np.stack(
    [torch.stack(hits_A).cpu().numpy() for hits_A in of_batches], axis=1
  )
