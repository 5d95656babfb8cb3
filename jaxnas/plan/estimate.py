"""What a config would need and take on a machine, ready for JSON."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxnas import compute, spaces, streams
from jaxnas.build import Experiment
from jaxnas.plan import compiling
from jaxnas.plan.compiling import Compiled, DoesNotFit
from jaxnas.plan.roofline import roofline, step_flops
from jaxnas.plan.topologies import Topology

# Architectures whose costs are averaged, where there are too many to list.
DRAWN = 1000
# Batches compiled for beyond the two that a line goes through.
TRIES = 3

CAVEAT = (
  'An estimate, from peak figures of vendors: no run is faster, and most are '
  'slower by a factor.'
)


def estimate(
  experiment: Experiment,
  topology: Topology,
  *,
  largest: bool = True,
  quick: bool = False,
) -> dict[str, Any]:
  """Of the training step and of the whole schedule.

  Args:
    experiment: from `compiling.experiment`.
    topology: the machine.
    largest: also look for the largest batch that fits, which compiles the
      step some more times unless `quick`.
    quick: with little optimization, which the result says; the largest batch
      is then a proportion, and no step is compiled for it.
  """
  config = experiment.config
  batch, paths = config.data.batch_size, experiment.paths
  found = Search(
    lambda size: compiling.compile_step(config, topology, size, quick=quick),
    topology.chip.memory_bytes,
    multiple=math.lcm(config.mesh.data, config.supernet.bn_groups),
    most=experiment.training.images,
  )
  compiled = found(batch)
  out: dict[str, Any] = {
    'topology': topology.name,
    'devices': topology.devices,
    'quick': quick,
    'batch_size': batch,
    'paths': paths,
    'mesh': dataclasses.asdict(config.mesh),
    'bn_groups': config.supernet.bn_groups,
    'memory_available_bytes': topology.chip.memory_bytes,
    'memory_bytes': compiled and compiled.memory_bytes,
    'fits': found.fits(batch),
  }
  if largest:
    out['largest_batch_size'] = (
      found.in_proportion(batch) if quick else found.largest(batch)
    )
  flops = step_flops(mean_macs(experiment.space), batch, paths)
  out['step_flops'] = flops
  if compiled is None:
    return out
  moved, times = compiled.traffic, roofline(topology, flops, compiled.traffic)
  training_s = times.step_s * experiment.steps
  epochs = compute.spent(experiment)['epochs']
  return out | {
    'memory_traffic_bytes': moved.memory,
    'collectives': moved.count,
    'collective_bytes': moved.collectives,
    'sent_bytes': moved.sent,
    'compute_s': times.compute_s,
    'memory_s': times.memory_s,
    'interconnect_s': times.interconnect_s,
    'step_s': times.step_s,
    'bound': times.bound,
    'images_per_s': batch * paths / times.step_s,
    'steps': experiment.steps,
    'training_hours': training_s / 3600,
    # Density and ranking, at the pace of training a pass.
    'hours': training_s / 3600 * sum(epochs.values()) / epochs['training'],
  }


def mean_macs(space: spaces.Space) -> float:
  """Multiply-adds of an image through a network, mean over the space."""
  archs_AxE = (
    space.enumerate()
    if space.enumerable
    else space.random(streams.rng(0, 'plan'), DRAWN)
  )
  return float(space.costs(archs_AxE).macs_A.mean())


class Search:
  """Compiles a step for batches, each once, and finds the largest that fits.

  Args:
    compile: batch size -> what was compiled; raises DoesNotFit.
    memory_bytes: of a device.
    multiple: what a batch size must be divisible by.
    most: images that there are to train on.
  """

  def __init__(
    self,
    compile: Callable[[int], Compiled],
    memory_bytes: float,
    multiple: int,
    most: int,
  ) -> None:
    self._compile = compile
    self._memory_bytes = memory_bytes
    self._multiple = multiple
    self._most = most
    self._done: dict[int, Compiled | None] = {}

  def __call__(self, batch_size: int) -> Compiled | None:
    """None where the compiler says that it does not fit."""
    if batch_size not in self._done:
      try:
        self._done[batch_size] = self._compile(batch_size)
      except DoesNotFit:
        self._done[batch_size] = None
    return self._done[batch_size]

  def fits(self, batch_size: int) -> bool:
    compiled = self(batch_size)
    return compiled is not None and compiled.memory_bytes <= self._memory_bytes

  def largest(self, batch_size: int) -> int | None:
    """From a first guess; None where not even one image a device fits.

    Memory grows linearly with the batch but for what a compiler does
    otherwise: the line through two batches names a candidate, which counts
    when a step compiled for it fits.
    """
    high = self._round(batch_size)
    while not self.fits(high):
      if high == self._multiple:
        return None
      high = self._round(high // 2)
    low = self._round(high // 2)
    if low == high:
      low, high = high, self._round(2 * high)
    if low == high:
      return high
    first, second = self(low), self(high)
    best = high if self.fits(high) else low
    if first is None or second is None:
      return best
    growth = (second.memory_bytes - first.memory_bytes) / (high - low)
    if growth <= 0:
      return best
    room = self._memory_bytes - second.memory_bytes
    candidate = math.floor(high + room / growth)
    for _ in range(TRIES):
      candidate = self._round(candidate)
      if candidate <= best:
        return best
      if self.fits(candidate):
        return candidate
      candidate = (best + candidate) // 2
    return best

  def in_proportion(self, batch_size: int) -> int | None:
    """From one step alone, as if all but its state grew with the batch.

    Gradients don't, so that some more may fit. None where not even one image a
    device does, or where the compiler does not say what `batch_size` takes.
    """
    compiled = self(batch_size)
    if compiled is None:
      return None
    growth = (compiled.memory_bytes - compiled.state_bytes) / batch_size
    room = self._memory_bytes - compiled.state_bytes
    if room < growth * self._multiple:
      return None
    return self._round(math.floor(room / growth))

  def _round(self, batch_size: int) -> int:
    """Down to a multiple, of images that there are, at least one."""
    count = min(batch_size, self._most) // self._multiple
    return max(count, 1) * self._multiple
