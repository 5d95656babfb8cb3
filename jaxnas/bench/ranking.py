"""Ranking by a walk of the prefix tree against ranking path by path."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import evaluation, progress, spaces, streams, supernets
from jaxnas.bench import inputs
from jaxnas.validation import at_least_one, at_most


def ranking(
  space: str, *, images: int, archs: int | None, seed: int
) -> dict[str, Any]:
  """Evaluates the same architectures on the same images in three ways.

  By a walk; path by path, a call of one program each, as one would write it;
  and path by path in blocks of a loop on the device, which is how spaces
  without shared prefixes are ranked.

  Args:
    space: one whose positions form a chain.
    images: random ones, in one batch.
    archs: how many, drawn with the seed; None: all.
    seed: of weights, images and architectures.

  Returns:
    Seconds of each, compilation left out; how often their counts differ; and
    by how many multiply-adds a walk differs by the cost table.

  Raises ValueError where the space's architectures share no prefixes, are too
  many to list or not so many.
  """
  of = spaces.get(space)
  net: Any = supernets.build(of)
  if not net.sequential:
    raise ValueError(
      f'{space} is no chain of positions: its ranking shares nothing.'
    )
  for name, value in (('images', images), ('archs', archs)):
    if value is not None:
      at_least_one(name, value)
  if archs is None:
    archs_AxE = of.enumerate()
  else:
    at_most('archs', archs, of.size, 'architectures')
    archs_AxE = of.some(streams.rng(seed, 'archs'), archs)
  x_BxHxWxC, y_B = map(jnp.asarray, inputs.images(of, images, seed))
  variables = supernets.init(net, archs_AxE[0], seed)

  def in_blocks(net, archs_AxE):
    return evaluation.accuracies(
      net,
      variables,
      archs_AxE,
      lambda indices_B: (x_BxHxWxC[indices_B], y_B[indices_B]),
      images,
      batch_size=images,
      label=type(net).__name__,
    )

  @jax.jit
  def hits(variables, x_BxHxWxC, y_B, arch_E):
    logits_BxK = net.apply(variables, x_BxHxWxC, arch_E, train=False)
    return (logits_BxK.argmax(-1) == y_B).sum()

  def one_by_one(archs_AxE):
    return np.array(
      [
        int(hits(variables, x_BxHxWxC, y_B, arch_E))
        for arch_E in progress.track(archs_AxE, 'one by one', len(archs_AxE))
      ]
    )

  def timed(way, archs_AxE):
    way(archs_AxE[: evaluation.PER_DEVICE])
    start = time.perf_counter()
    found_A = way(archs_AxE)
    return time.perf_counter() - start, found_A

  walk_s, of_walk_A = timed(functools.partial(in_blocks, net), archs_AxE)
  # Never read through its parts.
  whole = supernets.StandAlone(net)
  blocks_s, of_blocks_A = timed(functools.partial(in_blocks, whole), archs_AxE)
  paths_s, hits_A = timed(one_by_one, archs_AxE)
  others_2xA = np.stack([of_blocks_A, hits_A / images])
  differing_A = np.round(abs(of_walk_A - others_2xA).max(axis=0) * images)
  return {
    'space': space,
    'archs': len(archs_AxE),
    'images': images,
    'walk_s': walk_s,
    'path_by_path_s': paths_s,
    'path_by_path_in_blocks_s': blocks_s,
    'times_faster': paths_s / walk_s,
    'times_faster_than_blocks': blocks_s / walk_s,
    'times_fewer_macs': float(
      of.costs(archs_AxE).macs_A.sum(dtype=float) / of.shared_macs(archs_AxE)
    ),
    'counts_differing': int((differing_A != 0).sum()),
    'most_images_differing': int(differing_A.max()),
  }
