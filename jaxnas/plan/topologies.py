"""Machines by name: `v5e:4x4` is sixteen chips in a square, `h100:8` a host.

Compilers describe them without any of the hardware: libtpu for TPUs, JAX's
CUDA plugin with ptxas for GPUs.
"""

import dataclasses
import functools
import importlib.util
import math
import os
from typing import Any

from jaxnas.plan.peaks import CHIPS, Chip
from jaxnas.runtime import suggestions

# Slices of two axes that Google rents out: v5e and v6e.
FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
# Slices of three axes below a cube of 64; larger axes are multiples of 4.
SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')
# The most chips of a slice; for GPUs, as many as anybody plans for.
LARGEST = {'v4': 4096, 'v5p': 6144, 'a100': 1024, 'h100': 1024}
GPUS_A_HOST = 8
# The compiler has to be told when only one chip of a host is used.
_ONE_CHIP = {'chips_per_host_bounds': (1, 1, 1)}
_EXTRA = "pip install 'jaxnas[plan]'"


@dataclasses.dataclass(frozen=True)
class Topology:
  """Some chips and how they are wired."""

  name: str
  kind: str
  """Kind of the chip, a key of `peaks.CHIPS`."""
  shape: tuple[int, ...]
  """Chips along each axis; the number of GPUs."""

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def devices(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes_per_s(self) -> float:
    """Bytes a second that a device sends at most when all send at once.

    A chip of a torus has two neighbours along an axis, or one where only two
    chips are in it. GPUs of several hosts share their hosts' adapters.
    """
    chip = self.chip
    if chip.axes:
      return chip.link_bytes_per_s * sum(min(n - 1, 2) for n in self.shape)
    if self.devices <= GPUS_A_HOST:
      return chip.link_bytes_per_s
    return min(chip.link_bytes_per_s, GPUS_A_HOST * chip.host_bytes_per_s)


def parse(name: str) -> Topology:
  """Parses the name of a machine.

  Raises ValueError, one line, where no such machine is known.

  >>> parse('v5e:2x4').devices
  8
  >>> parse('h100:0')
  Traceback (most recent call last):
  ValueError: topology h100:0: h100 comes as h100:1 to h100:8, or in whole \
hosts of 8, up to h100:1024.
  """
  kind, _, size = name.partition(':')
  suggestions.check('topology', kind, CHIPS)
  axes = size.split('x')
  if not all(axis.isascii() and axis.isdecimal() for axis in axes):
    axes = ['0']
  shape = tuple(map(int, axes))
  size = 'x'.join(map(str, shape))
  rule = _rule(kind, size, shape)
  if rule is not None:
    raise ValueError(f'topology {name}: {kind} comes as {rule}.')
  return Topology(f'{kind}:{size}', kind, shape)


def _rule(kind: str, size: str, shape: tuple[int, ...]) -> str | None:
  """Says the sizes that a kind comes in, if this is not one of them."""
  axes = CHIPS[kind].axes
  if axes == 0:
    (count, *more), whole = shape, GPUS_A_HOST
    hosts = count % whole == 0 and count <= LARGEST[kind]
    if count and not more and (count <= whole or hosts):
      return None
    return (
      f'{kind}:1 to {kind}:{whole}, or in whole hosts of {whole}, up to '
      f'{kind}:{LARGEST[kind]}'
    )
  if axes == 2:
    return None if size in FLAT else f'{kind}:' + ', '.join(FLAT)
  cube = (
    len(shape) == axes
    and all(n and n % 4 == 0 for n in shape)
    and list(shape) == sorted(shape)
    and math.prod(shape) <= LARGEST[kind]
  )
  if size in SOLID or cube:
    return None
  return (
    f'{kind}:{", ".join(SOLID)}, or AxBxC with A <= B <= C multiples of 4 and '
    f'at most {LARGEST[kind]} chips'
  )


def check_compiler(topology: Topology) -> None:
  """Raises ValueError where the compiler for a machine is not installed."""
  needed = (
    ('libtpu',)
    if topology.chip.platform == 'tpu'
    else ('jax_cuda12_plugin', 'jax_plugins.xla_cuda12')
  )
  if not all(map(_installed, needed)):
    raise ValueError(
      f'topology {topology.name} needs the compiler of {topology.kind}: '
      f'{_EXTRA}.'
    )


def _installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # its package is missing
    return False


# Devices that are described twice are not the same ones.
@functools.cache
def devices(topology: Topology) -> tuple[Any, ...]:
  """Returns JAX devices to compile for; nothing can run on them."""
  from jax.experimental import topologies

  if topology.chip.platform == 'tpu':
    # Otherwise libtpu asks the cloud where it is and waits for an answer, and
    # keeps other processes out, as if this one used a TPU.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    options: dict[str, Any] = _ONE_CHIP if topology.devices == 1 else {}
    if topology.kind == 'v4':
      # Both cores of a chip are one device, as JAX runs them.
      options = {**options, 'chip_config_name': 'megacore'}
    described = topologies.get_topology_desc(
      topology.name, platform='tpu', **options
    )
  else:
    hosts = -(-topology.devices // GPUS_A_HOST)
    described = topologies.get_topology_desc(
      platform='cuda',
      target_config=gpu(topology.kind),
      topology=f'1x{hosts}x{topology.devices // hosts}',
    )
  return tuple(described.devices)


# Facts about a GPU that a compiler needs beyond its peaks, from the vendor's
# architecture white papers; limits that all share are in `gpu`.
_GPUS: dict[str, dict[str, Any]] = {
  'a100': {
    'name': 'NVIDIA A100-SXM4-80GB',
    'capability': 8,
    'cores': 108,
    'fpus': 64,
    'clock_ghz': 1.41,
    'l2_bytes': 40 * 2**20,
    'shared_bytes': 164 * 2**10,
  },
  'h100': {
    'name': 'NVIDIA H100 80GB HBM3',
    'capability': 9,
    'cores': 132,
    'fpus': 128,
    'clock_ghz': 1.98,
    'l2_bytes': 50 * 2**20,
    'shared_bytes': 228 * 2**10,
  },
}


def gpu(kind: str) -> str:
  """Describes a GPU for XLA's compiler: GpuTargetConfigProto, as text."""
  gpu = _GPUS[kind]
  # A block can opt in to all of a core's shared memory but 1 KiB.
  return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu['capability']} minor: 0 }}
  core_count: {gpu['cores']}
  fpus_per_core: {gpu['fpus']}
  clock_rate_ghz: {gpu['clock_ghz']}
  device_memory_size: {80 * 2**30}
  memory_bandwidth: {CHIPS[kind].memory_bytes_per_s:.0f}
  l2_cache_size: {gpu['l2_bytes']}
  shared_memory_per_block: {48 * 2**10}
  shared_memory_per_block_optin: {gpu['shared_bytes'] - 2**10}
  shared_memory_per_core: {gpu['shared_bytes']}
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  threads_per_warp: 32
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  driver_version: "12.8.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "{gpu['name']}"
"""
