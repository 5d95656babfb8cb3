"""A training step in PyTorch, as fast as PyTorch has it.

On a GPU the fastest of eager, compiled and CUDA graphs, each with channels last
and first, by cuDNN's search for the fastest algorithm; where ours is bfloat16,
by autocast. Not run: there was no GPU.
"""

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jaxnas import spaces
from jaxnas.bench import inputs, windows
from jaxnas.supernets import torch_nets

# arch -> loss, on the device and not yet waited for
Step = Callable[[Sequence[int] | Int[np.ndarray, ' E']], Float[Tensor, '']]


# Steps that allocate what a captured one uses again.
WARM_UPS = 3


class Way(NamedTuple):
  """A way to run a step, by options of `make_step`."""

  bfloat16: bool = False
  compiled: bool = False
  graphs: bool = False
  channels_last: bool = True


def ways(device: str, dtype: str) -> list[Way]:
  """Returns the ways that may be the fastest on a device."""
  narrow = dtype == 'bfloat16'
  if device == 'cpu':
    return [Way(), Way(bfloat16=True)][: 1 + narrow]
  return [
    Way(narrow, channels_last=last, **how)
    for last, how in itertools.product(
      (True, False), ({}, {'compiled': True}, {'graphs': True})
    )
  ]


def theirs(
  *, space: str, dtype: str, archs: int, batch_size: int, seed: int
) -> Callable[[], float]:
  """Measures the best of PyTorch's ways; one that fails is left out.

  Raises RuntimeError where all of them fail.
  """
  use_pinned_cores()
  of, device = spaces.get(space), best_device()
  x_BxHxWxC, y_B = inputs.images(of, batch_size, seed)
  archs_AxE = inputs.archs(of, archs, seed)
  at_least_s = 0.0 if device == 'cpu' else windows.ON_ACCELERATORS_S

  def prepared(way: Way) -> Callable[[], float]:
    step_fn = make_step(torch_nets.build(of), x_BxHxWxC, y_B, **way._asdict())

    def run() -> None:
      for arch_E in archs_AxE:
        step_fn(arch_E)

    def measure() -> float:
      work = archs * batch_size
      return windows.pace(run, wait, work, at_least_s)

    measure()
    return measure

  paces = []
  for way in ways(device, dtype):
    try:
      measure = prepared(way)
      paces.append((measure(), measure))
    except RuntimeError as error:
      why = (str(error).splitlines() or [''])[0]
      print(f'PyTorch cannot, {way}: {why}', file=sys.stderr)
  if not paces:
    raise RuntimeError(f'PyTorch has no way to train {space}.')
  return max(paces, key=lambda each: each[0])[1]


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
  graphs: bool = False,
  channels_last: bool = True,
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
    graphs: capture the step of each arch as a CUDA graph, and replay it.
    channels_last: of the memory of maps and weights; else channels first.
    device: None: `best_device`.
  """
  device = device or best_device()
  if device == 'cuda':
    torch.backends.cudnn.benchmark = True
  net.to(device).train()
  if compiled:
    torch_nets.compile_parts(net)
  x, y = torch_nets.images(x_BxHxWxC, device), torch_nets.labels(y_B, device)
  if not channels_last:
    anew: Any = net  # its type knows no `to` of a memory format alone
    anew.to(memory_format=torch.contiguous_format)
    x = x.contiguous()
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

  return _captured(step) if graphs else step


def _captured(step: Step) -> Step:
  """Captures the step of an arch when it is first run, and replays it."""
  of_arch = {}

  def run(arch):
    key = tuple(map(int, arch))
    if key not in of_arch:
      aside = torch.cuda.Stream()
      aside.wait_stream(torch.cuda.current_stream())
      with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
          step(arch)
      torch.cuda.current_stream().wait_stream(aside)
      graph = torch.cuda.CUDAGraph()
      with torch.cuda.graph(graph):
        loss = step(arch)
      of_arch[key] = graph, loss
    graph, loss = of_arch[key]
    graph.replay()
    return loss

  return run


def best_device() -> str:
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def use_pinned_cores() -> None:
  """Takes as many threads as there are cores that this process may run on."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))


def wait() -> None:
  """Waits until the device has done its work."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()
