"""Ranking every architecture: by a walk of the prefix tree, or path by path.

All sides of a row see the same images, and both of ours the same weights.
PyTorch's sides are in `torch_rank`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import spaces, supernets
from jaxnas.bench import inputs
from jaxnas.bench.cases import Case, Options, Side
from jaxnas.density import tensors
from jaxnas.runtime import progress, rng
from jaxnas.supernets import evaluation

SPACE = 'nas_bench_macro'
IMAGES = 64
EVERY = 10
"""Path by path one of so many architectures is evaluated, and its seconds are
counted as often: none shares anything with another."""

# archs_AxE -> hits_A: images that each classifies correctly.
Way = Callable[[Int[np.ndarray, 'A E']], Int[np.ndarray, ' A']]


def cases(options: Options) -> list[Case]:
  """Seconds to rank all architectures, or `options.archs` drawn ones.

  Both sides are float32, or bfloat16, which PyTorch computes by autocast.
  Images are one batch. Path by path, seconds are scaled from every tenth.
  """
  return [
    case
    for dtype in ('float32', 'bfloat16')
    for case in _of_dtype(dtype, options)
  ]


def _of_dtype(dtype: str, options: Options) -> list[Case]:
  count = options.archs or spaces.get(SPACE).size
  given = {
    'space': SPACE,
    'dtype': dtype,
    'archs': options.archs,
    'images': options.images or IMAGES,
    'seed': options.seed,
  }
  what = f'{count} of {SPACE} on {given["images"]} images, {dtype}'
  walk, scaled = Side(f'{__name__}:ours', given), {'every': EVERY}
  return [
    Case(
      'rank',
      f'{what}, walk against {name}',
      's',
      walk,
      Side(f'jaxnas.bench.{function}', {**given, **more}),
      rounds=1,
    )
    for name, function, more in (
      ('PyTorch path by path, scaled', 'torch_rank:theirs_by_path', scaled),
      ('PyTorch walk', 'torch_rank:theirs_by_walk', {}),
      ('jaxnas path by path, scaled', 'rank:ours_by_path', scaled),
    )
  ]


def ours(**given: Any) -> Callable[[], float]:
  """Ranks by a walk, as `jaxnas.train` ranks a chain."""
  snapshot = drawn(**given)
  return timed(walk(snapshot), snapshot.archs_AxE)


def ours_by_path(*, every: int, **given: Any) -> Callable[[], float]:
  """Calls one compiled program for each architecture."""
  snapshot = drawn(**given)
  return timed(by_path(snapshot), snapshot.archs_AxE, every)


class Snapshot(NamedTuple):
  """Architectures to rank, and the images to rank them on."""

  space: spaces.Space
  archs_AxE: Int[np.ndarray, 'A E']
  x_BxHxWxC: Float[np.ndarray, 'B H W C']
  y_B: Int[np.ndarray, ' B']
  seed: int
  dtype: str = 'float32'
  """The type of the computation."""


def walk(snapshot: Snapshot) -> Way:
  """Returns the way of `evaluation`, at first weights."""
  net, variables, x_BxHxWxC, y_B = _prepared(snapshot)

  def way(archs_AxE):
    accuracy_A = evaluation.accuracies(
      net,
      variables,
      archs_AxE,
      lambda indices_B: (x_BxHxWxC[indices_B], y_B[indices_B]),
      len(y_B),
      batch_size=len(y_B),
    )
    return np.round(accuracy_A * len(y_B)).astype(int)

  return way


def by_path(snapshot: Snapshot) -> Way:
  """Returns a way with the same weights and counts, and nothing shared."""
  net, variables, x_BxHxWxC, y_B = _prepared(snapshot)

  @jax.jit
  def hits(variables, x_BxHxWxC, y_B, arch_E):
    logits_BxK = net.apply(variables, x_BxHxWxC, arch_E, train=False)
    return (logits_BxK.argmax(-1) == y_B).sum()

  def way(archs_AxE):
    tracked = progress.track(archs_AxE, 'path by path', len(archs_AxE))
    # Read at the end: an accelerator is not waited for in between.
    hits_A = [hits(variables, x_BxHxWxC, y_B, arch_E) for arch_E in tracked]
    return np.array(jax.device_get(hits_A))

  return way


def _prepared(snapshot: Snapshot) -> tuple[Any, Any, Array, Array]:
  """Returns a supernet, its first weights, images and labels."""
  net: Any = supernets.build(snapshot.space, dtype=jnp.dtype(snapshot.dtype))
  variables = supernets.init(net, snapshot.archs_AxE[0], snapshot.seed)
  x_BxHxWxC = jnp.asarray(snapshot.x_BxHxWxC, snapshot.dtype)
  return net, variables, x_BxHxWxC, jnp.asarray(snapshot.y_B)


def drawn(
  *,
  space: str,
  archs: int | None,
  images: int,
  seed: int,
  dtype: str = 'float32',
) -> Snapshot:
  """Draws so many architectures, or takes all of them, and images."""
  of = spaces.get(space)
  archs_AxE = (
    of.enumerate()
    if archs is None
    else of.subset(rng.generator(seed, 'archs'), archs)
  )
  return Snapshot(of, archs_AxE, *inputs.images(of, images, seed), seed, dtype)


def timed(
  way: Way, archs_AxE: Int[np.ndarray, 'A E'], every: int = 1
) -> Callable[[], float]:
  """Warms a way up; returns a function that measures its seconds.

  One of `every` architectures is ranked, and the seconds are scaled to all.
  """
  way(tensors.extremes(archs_AxE))
  some_SxE = archs_AxE[::every]

  def measure() -> float:
    start = time.perf_counter()
    way(some_SxE)
    return (time.perf_counter() - start) * len(archs_AxE) / len(some_SxE)

  return measure
