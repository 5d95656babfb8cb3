"""How fast a step can be at most: by arithmetic, by memory, by links."""

from typing import NamedTuple

from jaxnas.plan.program import Traffic
from jaxnas.plan.topologies import Topology

# A backward pass costs two forward ones, and a multiply-add is two FLOP.
PASSES = 3
FLOP_A_MAC = 2


class Roofline(NamedTuple):
  """Seconds a step takes at least, were each of these all that it waits for.

  They overlap at best, so that the step takes as long as the longest.
  """

  compute_s: float
  memory_s: float
  interconnect_s: float

  @property
  def step_s(self) -> float:
    return max(self)

  @property
  def bound(self) -> str:
    """What the step waits for."""
    names = ('compute', 'memory', 'interconnect')
    return names[self.index(self.step_s)]


def step_flops(macs: float, images: int, paths: int) -> float:
  """FLOP of a training step on all devices together.

  Args:
    macs: multiply-adds of an architecture on an image, forward.
    images: in the step's batch.
    paths: architectures that the batch is passed through.
  """
  return FLOP_A_MAC * PASSES * macs * images * paths


def roofline(topology: Topology, flops: float, traffic: Traffic) -> Roofline:
  """Of a step.

  Args:
    topology: what runs it.
    flops: of the whole step, spread evenly.
    traffic: of one device.
  """
  chip = topology.chip
  return Roofline(
    flops / topology.devices / chip.flops_per_s,
    traffic.memory / chip.memory_bytes_per_s,
    # One device sends nothing, and has nowhere to.
    traffic.sent / topology.bytes_per_s if traffic.sent else 0.0,
  )
