"""From images to a full ranking in PyTorch, path by path, piece by piece.

Whole it would take days on a CPU: each piece is timed on a part, long enough
to be typical, and scaled linearly. Only the comparison of all pairs, which is
quadratic, is done whole.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas import spaces
from jaxnas.bench import (
  end_to_end,
  inputs,
  torch_density,
  torch_rank,
  torch_step,
)
from jaxnas.spaces import Space
from jaxnas.supernets import torch_nets


class Whole(NamedTuple):
  """The work, of which parts are timed."""

  space: Space
  ranked: int
  """Architectures; densities are of all."""
  steps: int
  batch_size: int
  """Images of a training step."""
  density_images: int
  ranking_images: int
  ranking_batch: int
  seed: int


def theirs(
  *,
  space: str,
  archs: int | None,
  images: int,
  ranked_on: int,
  epochs: int,
  batch_size: int,
  seed: int,
  steps: int,
  gradients: int,
  ranked: int,
) -> Callable[[], float]:
  """Measures scaled seconds of the same run.

  The last three arguments are how much of it is timed; others are as in
  `end_to_end.ours`.
  """
  torch_step.use_pinned_cores()
  of = spaces.get(space)
  whole = Whole(
    of,
    archs or of.size,
    steps=epochs * (images // batch_size),
    batch_size=batch_size,
    density_images=min(end_to_end.DENSITY_IMAGES, images),
    ranking_images=ranked_on,
    ranking_batch=end_to_end.RANKING_BATCH,
    seed=seed,
  )

  def measure() -> float:
    taken = seconds(whole, steps=steps, gradients=gradients, ranked=ranked)
    end_to_end.show('PyTorch, scaled', taken)
    return sum(taken.values())

  return measure


def seconds(
  whole: Whole, *, steps: int, gradients: int, ranked: int
) -> dict[str, float]:
  """Returns the seconds of training, of the density and of the ranking.

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
  subset, gradients_s = _gradients(net, held_out, archs_MxE[:gradients])
  out['gradients'] = gradients_s * whole.space.size / gradients
  out['pairs'] = _pairs(subset, whole.space.size)

  images = min(whole.ranking_batch, whole.ranking_images)
  evaluated = _ranking(net, batch(images), archs_MxE[:ranked])
  out['ranking'] = evaluated * (
    whole.ranked / ranked * whole.ranking_images / images
  )
  return out


def head_gradients(
  net: Any, archs_AxE: Int[np.ndarray, 'A E'], batch: torch_rank.Batch
) -> dict[str, Float[Tensor, 'A D']]:
  """Gradients of the mean loss by the head's weights, path by path.

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
  torch_step.wait()
  start = time.perf_counter()
  for arch_E in archs_SxE:
    step(arch_E)
  torch_step.wait()
  return time.perf_counter() - start


def _gradients(
  net: nn.Module, batch: tuple[Any, Any], archs_AxE: Int[np.ndarray, 'A E']
) -> tuple[dict[str, Float[Tensor, 'A D']], float]:
  on_device = _on_device(batch)
  head_gradients(net, archs_AxE[:3], on_device)
  torch_step.wait()
  start = time.perf_counter()
  rows = head_gradients(net, archs_AxE, on_device)
  torch_step.wait()
  return rows, time.perf_counter() - start


def _pairs(subset: dict[str, Float[Tensor, 'M D']], count: int) -> float:
  """Seconds to compare all pairs of `count` rows as wide as these.

  Their values do not matter.
  """
  out = 0.0
  for rows_MxD in subset.values():
    all_AxD = rows_MxD[torch.arange(count) % len(rows_MxD)]
    torch_step.wait()
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
