"""Estimates memory and time of a config on a machine, ready for JSON."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxnas import spaces
from jaxnas.experiment import cost
from jaxnas.experiment.build import Experiment
from jaxnas.plan import compiling
from jaxnas.plan.compiling import Compiled, DoesNotFit
from jaxnas.plan.roofline import roofline, step_flops
from jaxnas.plan.topologies import Topology
from jaxnas.runtime import rng

# Architectures whose costs are averaged where a space cannot be enumerated.
DRAWN = 1000
# Batches that are tried beyond the two that a line goes through.
TRIES = 3

CAVEAT = (
  'These are estimates from the peak figures of vendors: no run is faster, and '
  'most are slower by a factor.'
)


def estimate(
  experiment: Experiment,
  topology: Topology,
  *,
  largest: bool = True,
  quick: bool = False,
) -> dict[str, Any]:
  """Estimates the training step and the whole schedule.

  Args:
    experiment: from `compiling.experiment`.
    topology: the machine.
    largest: also finds the largest batch that fits, which compiles the step
      some more times unless `quick`.
    quick: compiles with little optimization, which the result says; the
      largest batch is then a proportion, and no step is compiled for it.
  """
  config = experiment.config
  batch, paths = config.data.batch_size, experiment.paths
  found = BatchSearch(
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
  epochs = cost.of_run(experiment)['epochs']
  return out | {
    'compile_s': compiled.compile_s,
    'memory_traffic_bytes': moved.memory,
    'traffic_by_kind': dict(compiled.kinds),
    **_of_host(compiled),
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
    # Density and ranking take as long for a pass as training does.
    'hours': training_s / 3600 * sum(epochs.values()) / epochs['training'],
  }


def _of_host(compiled: Compiled) -> dict[str, Any]:
  """Returns what the host does in a step; nothing where that is not known."""
  if compiled.host is None:
    return {}
  plain, in_graphs = compiled.host
  return {
    'host_launches': in_graphs.launches,
    'host_waits': in_graphs.waits,
    'host_launches_without_graphs': plain.launches,
    'host_waits_without_graphs': plain.waits,
  }


def mean_macs(space: spaces.Space) -> float:
  """Multiply-adds of one image, the mean over architectures of the space."""
  archs_AxE = (
    space.enumerate()
    if space.enumerable
    else space.random(rng.generator(0, 'plan'), DRAWN)
  )
  return float(space.costs(archs_AxE).macs_A.mean())


class BatchSearch:
  """Compiles a step for batches, each once, and finds the largest that fits.

  Args:
    compile: from a batch size to the compiled step; raises DoesNotFit.
    memory_bytes: memory of a device.
    multiple: divisor of every batch size.
    most: number of training images.
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
    """Compiles for a batch; None where the compiler says it does not fit."""
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
    """Finds the largest batch that fits, from a first guess.

    Memory grows almost linearly with the batch: the line through two batches
    names a candidate, which counts if a step compiled for it fits. None where
    not even one image a device fits.
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
    """Computes a batch that fits from one step alone.

    All but the state is taken to grow with the batch. Gradients do not, so that
    a larger batch may fit too. None where not even one image a device fits, or
    where the compiler does not say what `batch_size` takes.
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
    """Rounds down to a multiple, at least one, of the images that exist."""
    count = min(batch_size, self._most) // self._multiple
    return max(count, 1) * self._multiple
