"""Bounds the time of a step from below: by arithmetic, memory and links."""

from typing import NamedTuple

from jaxnas.plan.program import Traffic
from jaxnas.plan.topologies import Topology

# A backward pass costs two forward ones, and a multiply-add is two FLOP.
PASSES = 3
FLOP_A_MAC = 2


class Roofline(NamedTuple):
  """Least seconds of a step if it waited for each of these alone.

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
    """The name of the longest of the three, for which the step waits."""
    names = ('compute', 'memory', 'interconnect')
    return names[self.index(self.step_s)]


def step_flops(macs: float, images: int, paths: int) -> float:
  """Counts the FLOP of a training step on all devices together.

  Args:
    macs: multiply-adds of an architecture on an image, forward.
    images: number of images in the step's batch.
    paths: architectures that the batch is passed through.
  """
  return FLOP_A_MAC * PASSES * macs * images * paths


def roofline(topology: Topology, flops: float, traffic: Traffic) -> Roofline:
  """Bounds the seconds of a step.

  Args:
    topology: the machine that runs it.
    flops: FLOP of the whole step, spread evenly over devices.
    traffic: bytes that one device moves.
  """
  chip = topology.chip
  return Roofline(
    flops / topology.devices / chip.flops_per_s,
    traffic.memory / chip.memory_bytes_per_s,
    # One device sends nothing.
    traffic.sent / topology.bytes_per_s if traffic.sent else 0.0,
  )
