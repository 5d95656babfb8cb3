"""A training step in PyTorch, as fast as PyTorch has it.

On a GPU: autocast to bfloat16 and cuDNN's search for the fastest algorithm.
Not run: there was no GPU.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas.bench import torch_nets

# arch -> loss, on the device and not yet waited for
Step = Callable[[Sequence[int] | Int[np.ndarray, ' E']], Float[Tensor, '']]


def make_step(
  net: nn.Module,
  x_BxHxWxC: Float[np.ndarray, 'B H W C'],
  y_B: Int[np.ndarray, ' B'],
  *,
  lr: float = 0.1,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
  bfloat16: bool = False,
  compiled: bool = False,
  device: str | None = None,
) -> Step:
  """Forward along an arch, backward, one step of SGD: on the same batch.

  What an arch does not use has no gradient and stays as it is.

  Args:
    net: from `torch_nets.build`; it is moved to the device and trained.
    x_BxHxWxC: normalised images.
    y_B: their labels.
    lr: learning rate.
    momentum: of SGD, not Nesterov's.
    weight_decay: added to the gradient.
    clip_norm: of the whole gradient; None: as it is.
    bfloat16: autocast to it.
    compiled: by `torch_nets.compile_parts`; an op compiles when it is first
      run.
    device: None: `best_device`.
  """
  device = device or best_device()
  if device == 'cuda':
    torch.backends.cudnn.benchmark = True
  net.to(device).train()
  if compiled:
    torch_nets.compile_parts(net)
  x, y = torch_nets.images(x_BxHxWxC, device), torch_nets.labels(y_B, device)
  # Not fused: that takes momenta of all parameters or of none yet.
  optimizer = torch.optim.SGD(
    net.parameters(), lr, momentum=momentum, weight_decay=weight_decay
  )

  def step(arch):
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
      loss = F.cross_entropy(net(x, tuple(map(int, arch))), y)
    loss.backward()
    if clip_norm is not None:
      nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()

  return step


def best_device() -> str:
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def use_pinned_cores() -> None:
  """As many threads as there are cores that this process may run on."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
