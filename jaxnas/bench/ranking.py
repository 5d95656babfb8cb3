"""Ranking by a walk of the prefix tree against ranking path by path."""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnas import evaluation, spaces, streams, supernets
from jaxnas.bench import inputs
from jaxnas.validation import at_most


def ranking(
  space: str, *, images: int, archs: int | None, seed: int
) -> dict[str, Any]:
  """Evaluates the same architectures on the same images both ways.

  Args:
    space: one whose positions form a chain.
    images: random ones, in one batch.
    archs: how many, drawn with the seed; None: all.
    seed: of weights, images and architectures.

  Returns:
    Seconds of each, compilation left out; how often their counts differ; and
    by how many multiply-adds the ways differ by the cost table.

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
    if value is not None and value < 1:
      raise ValueError(f'{name} is {value}; it must be at least 1.')
  if archs is None:
    archs_AxE = of.enumerate()
  else:
    at_most('archs', archs, of.size, 'architectures')
    archs_AxE = of.some(streams.rng(seed, 'archs'), archs)
  x_BxHxWxC, y_B = map(jnp.asarray, inputs.images(of, images, seed))
  variables = supernets.init(net, archs_AxE[0], seed)

  def timed(net, archs_AxE):
    start = time.perf_counter()
    accuracy_A = evaluation.accuracies(
      net,
      variables,
      archs_AxE,
      lambda indices_B: (x_BxHxWxC[indices_B], y_B[indices_B]),
      images,
      batch_size=images,
      label=type(net).__name__,
    )
    return time.perf_counter() - start, accuracy_A

  # Never read through its parts.
  whole = supernets.StandAlone(net)
  for warm in (net, whole):
    timed(warm, archs_AxE[: evaluation.PER_DEVICE])
  walk_s, of_walk_A = timed(net, archs_AxE)
  paths_s, of_paths_A = timed(whole, archs_AxE)
  return {
    'space': space,
    'archs': len(archs_AxE),
    'images': images,
    'walk_s': walk_s,
    'path_by_path_s': paths_s,
    'times_faster': paths_s / walk_s,
    'times_fewer_macs': float(
      of.costs(archs_AxE).macs_A.sum(dtype=float) / of.shared_macs(archs_AxE)
    ),
    'counts_differing': int(
      (np.round((of_walk_A - of_paths_A) * images) != 0).sum()
    ),
    'most_images_differing': int(
      np.abs(np.round((of_walk_A - of_paths_A) * images)).max()
    ),
  }
