"""Lists the vendors' peak figures of accelerators; none is measured here.

No run can beat a plan that is made from them. FLOP/s are those of dense
bfloat16, where a multiply-add counts as two; link speeds are one way.
"""

from typing import Literal, NamedTuple

GB = 1e9
GIB = 2**30


class Chip(NamedTuple):
  """One accelerator: a TPU chip or a GPU."""

  platform: Literal['tpu', 'cuda']
  flops_per_s: float
  memory_bytes: float
  """Memory that a program can use."""
  memory_bytes_per_s: float
  link_bytes_per_s: float
  """Speed to a neighbour in the torus; all NVLinks together on a GPU."""
  source: str
  axes: int = 0
  """Axes of the torus; 0 where the chips of a host reach each other alike."""
  host_bytes_per_s: float = 0.0
  """A GPU's share of what leaves a host of eight."""


# The memory of TPUs is what their compiler (libtpu 0.0.42) says is available
# when a program does not fit. On GPUs JAX takes three quarters of 80 GiB,
# unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
CHIPS: dict[str, Chip] = {
  'v4': Chip(
    'tpu',
    flops_per_s=275e12,
    memory_bytes=30.75 * GIB,
    memory_bytes_per_s=1200 * GB,
    link_bytes_per_s=50 * GB,
    axes=3,
    source='cloud.google.com/tpu/docs/v4; links: Jouppi et al., ISCA 2023',
  ),
  'v5e': Chip(
    'tpu',
    flops_per_s=197e12,
    memory_bytes=15.75 * GIB,
    memory_bytes_per_s=819 * GB,
    link_bytes_per_s=400 * GB / 4 / 2,  # of four links, both ways
    axes=2,
    source='cloud.google.com/tpu/docs/v5e',
  ),
  'v5p': Chip(
    'tpu',
    flops_per_s=459e12,
    memory_bytes=95.74 * GIB,
    memory_bytes_per_s=2765 * GB,
    link_bytes_per_s=1200 * GB / 6 / 2,  # of six links, both ways
    axes=3,
    source='cloud.google.com/tpu/docs/v5p',
  ),
  'v6e': Chip(
    'tpu',
    flops_per_s=918e12,
    memory_bytes=31.25 * GIB,
    memory_bytes_per_s=1638 * GB,
    link_bytes_per_s=800 * GB / 4 / 2,  # of four links, both ways
    axes=2,
    source='cloud.google.com/tpu/docs/v6e',
  ),
  'a100': Chip(
    'cuda',
    flops_per_s=312e12,
    memory_bytes=0.75 * 80 * GIB,
    memory_bytes_per_s=2039 * GB,
    link_bytes_per_s=600 * GB / 2,  # both ways
    host_bytes_per_s=200e9 / 8,  # an adapter of 200 Gbit/s a GPU
    source='NVIDIA A100 80GB SXM data sheet; between hosts: DGX A100',
  ),
  'h100': Chip(
    'cuda',
    flops_per_s=989e12,
    memory_bytes=0.75 * 80 * GIB,
    memory_bytes_per_s=3350 * GB,
    link_bytes_per_s=900 * GB / 2,  # both ways
    host_bytes_per_s=400e9 / 8,  # an adapter of 400 Gbit/s a GPU
    source='NVIDIA H100 SXM data sheet; between hosts: DGX H100',
  ),
}
