"""A training step, ours beside PyTorch's.

Images/s over the same architectures on the same batch, which lies on the
device; ours is one program, the step that `jaxnas.train` runs. On CPU the
baseline is eager PyTorch: what it compiles is slower, and takes minutes. In
float32 both are; where ours is bfloat16, it is the better of the two, as it
depends on the machine (with AMX twice as fast on Pooling, half as fast on
NAS-Bench-Macro). On a GPU it is the best of all that `torch_step.ways` lists,
in the precision of ours. Not run: there was no GPU.
"""

import os
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxnas import samplers, spaces, supernets
from jaxnas.bench import inputs, rivals, windows
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.data import Training
from jaxnas.plan import program
from jaxnas.training import optimizer, step

ARCHS = 8
BATCH_SIZES = {
  'nas_bench_macro': 64,
  'pooling': 64,
  'nas_bench_201': 64,
  'mobilenet': 8,
}
# Spaces that C++ speeds up, and that XLA alone compiles within minutes.
NATIVE = ('nas_bench_macro', 'pooling', 'nas_bench_201')
# Batches of the paper, which accelerators are measured with as well.
OF_PAPER = 512


class Peak(NamedTuple):
  """The most that a device can do in a second."""

  tflops: float
  """Dense operations in bfloat16, 1e12 a second."""
  tb_per_s: float
  """Bytes from and to its memory, 1e12 a second."""


# By the device's whole name: a card for a PCIe slot is slower, and an L40 no
# L4. From NVIDIA's data sheets.
PEAKS = {
  'NVIDIA H100 80GB HBM3': Peak(989, 3.35),
  'NVIDIA H100 PCIe': Peak(756, 2.0),
  'NVIDIA H100 NVL': Peak(835, 3.9),
  'NVIDIA H200': Peak(989, 4.8),
  'NVIDIA A100-SXM4-40GB': Peak(312, 1.555),
  'NVIDIA A100-SXM4-80GB': Peak(312, 2.039),
  'NVIDIA A100-PCIE-40GB': Peak(312, 1.555),
  'NVIDIA A100 80GB PCIe': Peak(312, 1.935),
  'NVIDIA L4': Peak(121, 0.3),
  'NVIDIA L40': Peak(181, 0.864),
  'NVIDIA L40S': Peak(362, 0.864),
}


def cases(options: Options) -> list[Case]:
  """Every space in float32 and bfloat16."""
  platform, kind = rivals.device()
  rows = []
  sizes = [
    (space, size)
    for space, size in BATCH_SIZES.items()
    for size in (size, *[OF_PAPER] * (platform == 'gpu'))
    if options.batch_size is None or size == BATCH_SIZES[space]
  ]
  for space, batch_size in sizes:
    for dtype in ('float32', 'bfloat16'):
      given = {
        'space': space,
        'dtype': dtype,
        'archs': options.archs or ARCHS,
        'batch_size': options.batch_size or batch_size,
        'seed': options.seed,
      }
      rows += _of_space(given, platform, kind)
      if platform == 'cpu' and space in NATIVE and dtype == 'float32':
        rows.append(_against_torch(given, platform, native=False))
  return rows


def _against_torch(
  given: dict[str, Any], platform: str, native: bool = True
) -> Case:
  what = f'{given["space"]} {given["dtype"]}' + ', XLA alone' * (not native)
  against = 'PyTorch'
  if platform == 'cpu':
    best = given['dtype'] == 'bfloat16'
    against += ' eager, the better dtype' if best else ' eager float32'
  return Case(
    'step',
    f'{what}, batch {given["batch_size"]}, against {against}',
    'images/s',
    Side(f'{__name__}:ours', {**given, 'native': native}),
    Side('jaxnas.bench.torch_step:theirs', given),
  )


def _of_space(given: dict[str, Any], platform: str, kind: str) -> list[Case]:
  what = f'{given["space"]} {given["dtype"]}, batch {given["batch_size"]}'
  rows = [_against_torch(given, platform)]
  if platform == 'gpu':
    rates: dict[str, dict[str, float]] = {'TFLOP/s': {'rate': 1e-12}}
    peak = PEAKS.get(kind)
    if peak and given['dtype'] == 'bfloat16':
      rates['of peak'] = {'rate': 1e-12 / peak.tflops}
      rates['of peak bandwidth'] = {'bandwidth': 1e-12 / peak.tb_per_s}
    rows += [
      Case(
        'step',
        f'{what}, {unit}',
        unit,
        Side(f'{__name__}:ours', {**given, **rate}),
        None,
      )
      for unit, rate in rates.items()
    ]
  return rows


def ours(
  *,
  space: str,
  dtype: str,
  archs: int,
  batch_size: int,
  seed: int,
  native: bool = True,
  rate: float | None = None,
  bandwidth: float | None = None,
) -> Callable[[], float]:
  """Runs one program along every arch in turn, and waits at the end.

  On an accelerator again and again, until a second has passed.

  Args:
    space: by name.
    dtype: of the computation.
    archs: how many, drawn.
    batch_size: of images.
    seed: of weights, images and architectures.
    native: with the C++ of jaxnas.nn.cpu, where there is a compiler.
    rate: give operations/s times this, not images/s: two a multiply-add, a
      backward pass for two forward ones.
    bandwidth: give bytes/s times this, those that the compiled step moves to
      and from memory, the mean over branches.
  """
  if not native:
    os.environ['CXX'] = ''
  of = spaces.get(space)
  archs_AxE = inputs.archs(of, archs, seed)
  state, step_fn, batch = training_step(
    of, archs_AxE, dtype=dtype, batch_size=batch_size, seed=seed
  )

  def run() -> None:
    nonlocal state
    for _ in range(archs):
      state, _ = step_fn(state, batch)

  def wait() -> None:
    jax.block_until_ready(state)

  run()
  wait()
  on_cpu = jax.default_backend() == 'cpu'
  at_least_s = 0.0 if on_cpu else windows.ON_ACCELERATORS_S
  work = float(archs * batch_size)
  if rate is not None:
    work = 6 * rate * batch_size * float(of.costs(archs_AxE).macs_A.sum())
  if bandwidth is not None:
    text = step_fn.lower(state, batch).compile().as_text()
    work = archs * bandwidth * program.Program(text).traffic().memory

  return lambda: windows.pace(run, wait, work, at_least_s)


def training_step(
  space: spaces.Space,
  archs_AxE: Int[np.ndarray, 'A E'],
  *,
  batch_size: int,
  seed: int,
  dtype: str = 'float32',
  static: bool = False,
) -> tuple[Any, Any, Any]:
  """(state, step, batch): a step of `jaxnas.train` by plain SGD.

  Each step trains the next arch, after the last one the first again.

  Args:
    space: of the supernet.
    archs_AxE: what is trained, data of the program.
    batch_size: images, which stay the same and lie on the device.
    seed: of weights and images.
    dtype: of the computation.
    static: the network of the only arch, alone.
  """
  net: Any = supernets.build(space, dtype=jnp.dtype(dtype))
  arch: Any = archs_AxE[0]
  if static:
    (only,) = archs_AxE.tolist()
    arch = tuple(only)
    net = supernets.StandAlone(net, arch)
  sampler = samplers.Sampler(
    init=lambda: jnp.asarray(archs_AxE),
    sample=lambda archs_AxE, key: archs_AxE[:1],
    log_prob=lambda archs_AxE: None,
    update=lambda archs_AxE, feedback: jnp.roll(archs_AxE, -1, axis=0),
  )
  updates = optimizer.Sgd(0.1, momentum=0.9)
  count = samplers.counter(space)
  state = step.init_state(
    net, sampler, updates, count, supernets.init(net, arch, seed)
  )
  x_BxHxWxC, y_B = inputs.images(space, batch_size, seed)
  batch = jnp.asarray(x_BxHxWxC, dtype), jnp.asarray(y_B)
  images = Training(_nothing, lambda inputs, *_: inputs, 1, batch_size)
  step_fn = step.make_step(net, sampler, updates, images, count, seed=seed)
  return state, step_fn, batch


def _nothing(seed: int, step: int) -> Generator[Any]:
  """Feeds no inputs: the batch is at hand."""
  yield from ()
