"""Ranking every architecture: by a walk of the prefix tree, or path by path.

Ways on one side of a row see the same weights, and all sides the same images.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxnas import spaces, streams
from jaxnas.bench import inputs
from jaxnas.bench.cases import Case, Options, Side

if TYPE_CHECKING:
  from jaxnas.bench.torch_rank import Batch

SPACE = 'nas_bench_macro'
IMAGES = 64
EVERY = 10
"""Path by path one architecture of so many is evaluated, and its seconds
counted as often: none shares anything with another."""

# archs_AxE -> hits_A: images that each classifies correctly.
Way = Callable[[Int[np.ndarray, 'A E']], Int[np.ndarray, ' A']]


def cases(options: Options) -> list[Case]:
  """Seconds to rank all, or `options.archs` drawn ones, in one batch.

  Path by path they are scaled from every tenth.
  """
  count = options.archs or spaces.get(SPACE).size
  given = {
    'space': SPACE,
    'archs': options.archs,
    'images': options.images or IMAGES,
    'seed': options.seed,
  }
  what = f'{count} of {SPACE} on {given["images"]} images'
  walk = Side(f'{__name__}:ours', given)
  return [
    Case(
      'rank',
      f'{what}, walk against {name}',
      's',
      walk,
      Side(f'{__name__}:{function}', {**given, **more}),
      rounds=1,
    )
    for name, function, more in (
      ('PyTorch path by path, scaled', 'torch_by_path', {'every': EVERY}),
      ('PyTorch walk', 'torch_by_walk', {}),
      ('jaxnas path by path, scaled', 'ours_by_path', {'every': EVERY}),
    )
  ]


def ours(**given: Any) -> Callable[[], float]:
  """As `jaxnas.train` ranks a chain: the walk."""
  subject = _subject(**given)
  return _timed(walk(subject), subject.archs_AxE)


def ours_by_path(*, every: int, **given: Any) -> Callable[[], float]:
  """A call of one compiled program an architecture."""
  subject = _subject(**given)
  return _timed(by_path(subject), subject.archs_AxE, every)


def torch_by_path(*, every: int, **given: Any) -> Callable[[], float]:
  """Eager, a forward pass an architecture."""
  from jaxnas.bench import torch_rank

  return _torch(torch_rank.by_path, every, **given)


def torch_by_walk(**given: Any) -> Callable[[], float]:
  """Eager, by the same tree."""
  from jaxnas.bench import torch_rank

  return _torch(torch_rank.by_walk, 1, **given)


class Subject(NamedTuple):
  """What is ranked."""

  space: spaces.Space
  archs_AxE: Int[np.ndarray, 'A E']
  x_BxHxWxC: Float[np.ndarray, 'B H W C']
  y_B: Int[np.ndarray, ' B']
  seed: int


def walk(subject: Subject) -> Way:
  """Ours, from `evaluation`, at first weights."""
  import jax.numpy as jnp

  from jaxnas import evaluation, supernets

  net: Any = supernets.build(subject.space)
  variables = supernets.init(net, subject.archs_AxE[0], subject.seed)
  x_BxHxWxC, y_B = jnp.asarray(subject.x_BxHxWxC), jnp.asarray(subject.y_B)

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


def by_path(subject: Subject) -> Way:
  """The same weights and counts, nothing shared."""
  import jax
  import jax.numpy as jnp

  from jaxnas import progress, supernets

  net: Any = supernets.build(subject.space)
  variables = supernets.init(net, subject.archs_AxE[0], subject.seed)
  x_BxHxWxC, y_B = jnp.asarray(subject.x_BxHxWxC), jnp.asarray(subject.y_B)

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


def _subject(
  *, space: str, archs: int | None, images: int, seed: int
) -> Subject:
  of = spaces.get(space)
  archs_AxE = (
    of.enumerate()
    if archs is None
    else of.some(streams.rng(seed, 'archs'), archs)
  )
  return Subject(of, archs_AxE, *inputs.images(of, images, seed), seed)


def _torch(
  rank: Callable[[Any, Any, 'list[Batch]'], Any], every: int, **given: Any
) -> Callable[[], float]:
  from jaxnas.bench import torch_nets, torch_step

  torch_step.use_pinned_cores()
  subject, device = _subject(**given), torch_step.best_device()
  net = torch_nets.build(subject.space).to(device)
  batch = (
    torch_nets.images(subject.x_BxHxWxC, device),
    torch_nets.labels(subject.y_B, device),
  )
  return _timed(
    lambda archs_AxE: rank(net, archs_AxE, [batch])[:, 0],
    subject.archs_AxE,
    every,
  )


def _timed(
  way: Way, archs_AxE: Int[np.ndarray, 'A E'], every: int = 1
) -> Callable[[], float]:
  from jaxnas.density import tensors

  way(tensors.extremes(archs_AxE))
  some_SxE = archs_AxE[::every]

  def measure() -> float:
    start = time.perf_counter()
    way(some_SxE)
    return (time.perf_counter() - start) * len(archs_AxE) / len(some_SxE)

  return measure
