"""The density of every architecture of a space, as one call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import progress, runs
from jaxnas.density.distances import mean_cosine_distance
from jaxnas.density.estimators import inverse_of
from jaxnas.density.features import gradients, select


class Density(NamedTuple):
  """Densities of a space's architectures, in the order of its enumeration."""

  archs_AxE: Int[np.ndarray, 'A E']
  alpha_A: Float[np.ndarray, ' A']


def gradient_density(
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  images: Sequence[Float[Array, 'B H W C']],
  labels: Sequence[Int[Array, ' B']],
  *,
  tensors: str | None = None,
  combine: str = 'mean',
  absent: str = 'zero',
  memory_gb: float = 2.0,
  poll: Callable[[], None] = lambda: None,
) -> Density:
  """Inverse mean cosine distance between gradients (eq. 5 and 6).

  Args:
    net: a supernet.
    params: its shared weights.
    archs_AxE: every architecture of the space.
    images: prepared held-out batches, the same for all architectures.
    labels: theirs.
    tensors: as in `features.select`.
    combine: as in `mean_cosine_distance`.
    absent: as in `mean_cosine_distance`.
    memory_gb: gradients beyond this are computed twice.
    poll: called before each architecture; may raise.

  Raises:
    ValueError: `tensors` matches nothing, or `absent` 'skip' lacks memory.
    FloatingPointError: a gradient is not finite.
  """
  names = select(net, params, archs_AxE, tensors)
  distance_A = mean_cosine_distance(
    lambda: progress.track(
      gradients(net, params, archs_AxE, images, labels, names),
      'density',
      len(archs_AxE),
      poll,
    ),
    len(archs_AxE),
    combine=combine,
    absent=absent,
    memory_bytes=memory_gb * 1e9,
  )
  return Density(archs_AxE, inverse_of(distance_A))


def save(density: Density, file: Path) -> None:
  runs.write_npz(file, density._asdict())


def load(file: Path, archs_AxE: Int[np.ndarray, 'A E']) -> Density:
  """Raises ValueError where it is not a density of just these archs."""
  arrays = runs.read_npz(file)
  if missing := {*Density._fields} - {*arrays}:
    raise ValueError(f'{file} is no saved density: it lacks {min(missing)}.')
  density = Density(*(arrays[name] for name in Density._fields))
  if not np.array_equal(density.archs_AxE, archs_AxE):
    raise ValueError(
      f'{file} holds densities of {len(density.archs_AxE)} architectures of '
      f'another space or order; {len(archs_AxE)} are needed.'
    )
  alpha_A = density.alpha_A
  if alpha_A.shape != (len(archs_AxE),) or not np.isfinite(alpha_A).all():
    raise ValueError(f'{file}: alpha_A must be one finite number an arch.')
  return density
