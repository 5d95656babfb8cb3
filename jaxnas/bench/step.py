"""A training step, ours beside PyTorch's.

Images/s over the same architectures on the same batch, which lies on the
device; ours is one program, the step that `jaxnas.train` runs. On CPU the
baseline is eager PyTorch: what it compiles is slower, and takes minutes. In
float32 both are; where ours is bfloat16, it is the better of the two, as it
depends on the machine (with AMX twice as fast on Pooling, half as fast on
NAS-Bench-Macro). On a GPU it is the better of eager and compiled, in the
precision of ours. Not run: there was no GPU.
"""

import os
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas import spaces
from jaxnas.bench import inputs, rivals
from jaxnas.bench.cases import Case, Options, Side

ARCHS = 8
BATCH_SIZES = {
  'nas_bench_macro': 64,
  'pooling': 64,
  'nas_bench_201': 64,
  'mobilenet': 8,
}
# What jaxnas.nn.native speeds up, where XLA alone takes no minutes to compile.
NATIVE = ('nas_bench_macro', 'pooling', 'nas_bench_201')
# In bfloat16, dense: 1e12 a second.
PEAK_TFLOPS = {'H100': 989, 'H200': 989, 'A100': 312, 'V100': 125, 'L4': 121}


def cases(options: Options) -> list[Case]:
  """Every space in float32 and bfloat16."""
  platform, kind = rivals.device()
  rows = []
  for space, batch_size in BATCH_SIZES.items():
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
    Side(f'{__name__}:baseline', given),
  )


def _of_space(given: dict[str, Any], platform: str, kind: str) -> list[Case]:
  what = f'{given["space"]} {given["dtype"]}'
  rows = [_against_torch(given, platform)]
  if platform == 'gpu':
    rates = {'TFLOP/s': 1e-12}
    peak = peak_tflops(kind)
    if peak and given['dtype'] == 'bfloat16':
      rates['of peak'] = 1e-12 / peak
    rows += [
      Case(
        'step',
        f'{what}, {unit}',
        unit,
        Side(f'{__name__}:ours', {**given, 'rate': rate}),
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
) -> Callable[[], float]:
  """One program along every arch in turn, read at the end.

  Args:
    space: by name.
    dtype: of the computation.
    archs: how many, drawn.
    batch_size: of images.
    seed: of weights, images and architectures.
    native: with what jaxnas.nn.native has, where there is a compiler.
    rate: give operations/s times this, not images/s: two a multiply-add, a
      backward pass for two forward ones.
  """
  import jax

  if not native:
    os.environ['CXX'] = ''
  of = spaces.get(space)
  archs_AxE = inputs.archs(of, archs, seed)
  state, step_fn, batch = training_step(
    of, archs_AxE, dtype=dtype, batch_size=batch_size, seed=seed
  )

  def once(state):
    for _ in range(archs):
      state, _ = step_fn(state, batch)
    return jax.block_until_ready(state)

  state = once(state)
  work = float(archs * batch_size)
  if rate is not None:
    work = 6 * rate * batch_size * float(of.costs(archs_AxE).macs_A.sum())

  def measure() -> float:
    nonlocal state
    start = time.perf_counter()
    state = once(state)
    return work / (time.perf_counter() - start)

  return measure


def baseline(
  *, space: str, dtype: str, archs: int, batch_size: int, seed: int
) -> Callable[[], float]:
  """The best of PyTorch's ways: see the module."""
  from jaxnas.bench import torch_data, torch_nets, torch_step

  torch_step.use_pinned_cores()
  of, device = spaces.get(space), torch_step.best_device()
  x_BxHxWxC, y_B = inputs.images(of, batch_size, seed)
  archs_AxE = inputs.archs(of, archs, seed)

  def way(bfloat16: bool, compiled: bool) -> Callable[[], float]:
    step_fn = torch_step.make_step(
      torch_nets.build(of),
      x_BxHxWxC,
      y_B,
      bfloat16=bfloat16,
      compiled=compiled,
    )

    def measure() -> float:
      start = time.perf_counter()
      for arch_E in archs_AxE:
        step_fn(arch_E)
      torch_data.wait()
      return archs * batch_size / (time.perf_counter() - start)

    measure()
    return measure

  narrow = dtype == 'bfloat16'
  if device == 'cpu':
    ways = [way(False, False)] + ([way(True, False)] if narrow else [])
  else:
    ways = [way(narrow, False), way(narrow, True)]
  return max(ways, key=lambda measure: measure())


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
  import jax.numpy as jnp

  from jaxnas import samplers, supernets
  from jaxnas.data import Training
  from jaxnas.training import optimizer, step

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
  updates = optimizer.sgd(lambda step: 0.1, momentum=0.9)
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
  """The batch is at hand."""
  yield from ()


def peak_tflops(kind: str) -> int | None:
  """Of a kind of device as JAX names it; None where it is not known."""
  return next(
    (peak for name, peak in PEAK_TFLOPS.items() if name in kind), None
  )
