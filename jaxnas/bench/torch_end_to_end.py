"""From images to a full ranking in PyTorch, path by path, piece by piece.

Whole it would take days on a CPU: each piece is timed on a part, long enough
to be typical, and scaled linearly. Only the comparison of all pairs, which is
quadratic, is done whole.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas.bench import (
  inputs,
  torch_density,
  torch_nets,
  torch_rank,
  torch_step,
)
from jaxnas.spaces import Space


class Whole(NamedTuple):
  """The work, of which parts are timed."""

  space: Space
  ranked: int
  """Architectures; densities are of all."""
  steps: int
  batch_size: int
  """Of training."""
  density_images: int
  ranking_images: int
  ranking_batch: int
  seed: int


def seconds(
  whole: Whole, *, steps: int, gradients: int, ranked: int
) -> dict[str, float]:
  """Of training, of the density and of the ranking.

  The data pipeline is left out. On a GPU all but the density is under autocast
  to bfloat16, as ours is.

  Args:
    whole: what there is to do.
    steps: of training, timed.
    gradients: architectures, timed one by one.
    ranked: architectures that are evaluated on one batch, timed.
  """
  device = torch_step.best_device()
  torch.manual_seed(whole.seed)
  net = torch_nets.build(whole.space).to(device)
  count = max(steps, gradients, ranked)
  archs_MxE = inputs.archs(whole.space, count, whole.seed)

  def batch(count):
    return inputs.images(whole.space, count, whole.seed)

  out = {'training': _training(net, batch(whole.batch_size), archs_MxE[:steps])}
  out['training'] *= whole.steps / steps

  held_out = batch(whole.density_images)
  some, gradients_s = _gradients(net, held_out, archs_MxE[:gradients])
  out['gradients'] = gradients_s * whole.space.size / gradients
  out['pairs'] = _pairs(some, whole.space.size)

  images = min(whole.ranking_batch, whole.ranking_images)
  evaluated = _ranking(net, batch(images), archs_MxE[:ranked])
  out['ranking'] = evaluated * (
    whole.ranked / ranked * whole.ranking_images / images
  )
  return out


def head_gradients(
  net: Any, archs_AxE: Int[np.ndarray, 'A E'], batch: torch_rank.Batch
) -> dict[str, Float[Tensor, 'A D']]:
  """Of the mean loss by what stands behind the last choice, path by path.

  Nothing before it is differentiated.

  Args:
    net: a chain from `torch_nets.build`.
    archs_AxE: any architectures.
    batch: held-out images, on the net's device.
  """
  x, y_B = batch
  chosen = {
    'conv': net.head.conv.weight,
    'linear': net.head.linear.weight,
  }
  net.train()
  net.requires_grad_(False)
  net.head.requires_grad_(True)
  rows = {
    name: torch.empty(len(archs_AxE), weight.numel(), device=weight.device)
    for name, weight in chosen.items()
  }
  for a, arch in enumerate(archs_AxE.tolist()):
    loss = F.cross_entropy(net(x, tuple(arch)), y_B)
    found = torch.autograd.grad(loss, list(chosen.values()))
    for row_AxD, gradient in zip(rows.values(), found, strict=True):
      row_AxD[a] = gradient.flatten()
  net.requires_grad_(True)
  return rows


def _training(
  net: nn.Module, batch: tuple[Any, Any], archs_SxE: Int[np.ndarray, 'S E']
) -> float:
  device = torch_step.best_device()
  step = torch_step.make_step(net, *batch, lr=0.02, bfloat16=device == 'cuda')
  for arch_E in archs_SxE[:3]:
    step(arch_E)
  _wait()
  start = time.perf_counter()
  for arch_E in archs_SxE:
    step(arch_E)
  _wait()
  return time.perf_counter() - start


def _gradients(
  net: nn.Module, batch: tuple[Any, Any], archs_AxE: Int[np.ndarray, 'A E']
) -> tuple[dict[str, Float[Tensor, 'A D']], float]:
  on_device = _on_device(batch)
  head_gradients(net, archs_AxE[:3], on_device)
  _wait()
  start = time.perf_counter()
  rows = head_gradients(net, archs_AxE, on_device)
  _wait()
  return rows, time.perf_counter() - start


def _pairs(some: dict[str, Float[Tensor, 'M D']], count: int) -> float:
  """Of `count` rows as wide as these; what they hold takes no longer."""
  out = 0.0
  for rows_MxD in some.values():
    all_AxD = rows_MxD[torch.arange(count) % len(rows_MxD)]
    _wait()
    start = time.perf_counter()
    # Ends on the host, and so needs no waiting.
    torch_density.inverse_mean_distance(all_AxD)
    out += time.perf_counter() - start
  return out


def _ranking(
  net: nn.Module, batch: tuple[Any, Any], archs_AxE: Int[np.ndarray, 'A E']
) -> float:
  device = torch_step.best_device()
  batches = [_on_device(batch)]
  with torch.autocast(device, torch.bfloat16, enabled=device == 'cuda'):
    torch_rank.by_path(net, archs_AxE[:3], batches)
    start = time.perf_counter()
    torch_rank.by_path(net, archs_AxE, batches)
    return time.perf_counter() - start


def _on_device(batch: tuple[Any, Any]) -> torch_rank.Batch:
  x_BxHxWxC, y_B = batch
  device = torch_step.best_device()
  return torch_nets.images(x_BxHxWxC, device), torch_nets.labels(y_B, device)


def _wait() -> None:
  if torch.cuda.is_available():
    torch.cuda.synchronize()
