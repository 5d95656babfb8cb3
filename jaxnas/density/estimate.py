"""The density of every architecture of a space, as one call."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import processes, progress, runs, spread, strict_json
from jaxnas.density import estimators, pairs
from jaxnas.density.features import Readout, read
from jaxnas.density.measures import Measure
from jaxnas.density.streaming import check_finite, mean_cosine_distance


class Density(NamedTuple):
  """Densities of architectures, in the order of a space's enumeration."""

  archs_AxE: Int[np.ndarray, 'A E']
  alpha_A: Float[np.ndarray, ' A']


class Subject(NamedTuple):
  """A supernet at some weights, and the images that it is looked at with."""

  net: Any
  params: Any
  archs_AxE: Int[np.ndarray, 'A E']
  """Every architecture that counts, as the net takes it."""
  images: Sequence[Float[Array, 'B H W C']]
  """Prepared held-out batches of equal size, the same for all."""
  labels: Sequence[Int[Array, ' B']]


def estimate(
  subject: Subject,
  measure: Measure,
  estimator: str = 'inverse_mean_distance',
  *,
  bandwidth: float | None = None,
  memory_gb: float = 2.0,
  poll: Callable[[], None] = lambda: None,
  features: pairs.Features | None = None,
) -> Density:
  """Densities of the subject's architectures.

  Cosine distances under 'inverse_mean_distance' take O(A D) time, and O(D)
  memory where features are computed twice; all else compares pairs, in
  O(A^2 D).

  Args:
    subject: what is compared.
    measure: how, from `measures`.
    estimator: 'inverse_mean_distance' or 'kde'.
    bandwidth: of 'kde'; None: the median rule.
    memory_gb: features beyond this are computed twice, or refused where pairs
      are compared.
    poll: called before each block; may raise.
    features: from `gather`, where they are at hand; then pairs are compared.

  Raises:
    ValueError: features of all architectures exceed the memory and are needed.
    FloatingPointError: a feature is not finite.
  """
  archs_AxE, readout = subject.archs_AxE, measure.read
  if readout and streams(measure, estimator) and features is None:
    distance_A = mean_cosine_distance(
      lambda: blocks(subject, readout, memory_gb, poll),
      len(archs_AxE),
      memory_bytes=memory_gb * 1e9,
    )
    return Density(
      archs_AxE, estimators.level(estimators.inverse_of(distance_A))
    )
  if features is None:
    features = gather(subject, measure, memory_gb=memory_gb, poll=poll)
  if estimator == 'kde':
    alpha_A = estimators.kernel_density(
      measure.distance, measure.squared, features, bandwidth, poll=poll
    )
  else:
    alpha_A = estimators.inverse_mean_of_pairs(
      measure.distance, features, poll=poll
    )
  return Density(archs_AxE, estimators.level(alpha_A))


def blocks(
  subject: Subject,
  readout: Readout,
  memory_gb: float,
  poll: Callable[[], None] = lambda: None,
) -> Any:
  """Features of the subject, block by block, with a bar."""
  return progress.track(
    # A small part: blocks follow each other, and must not add up to memory
    # that one architecture's gradient would not need.
    read(*subject, readout, block_bytes=memory_gb * 1e9 / 32),
    'density',
    len(subject.archs_AxE),
    poll,
    size=lambda block: int(block.real_C.sum()),
  )


def gather(
  subject: Subject,
  measure: Measure,
  *,
  memory_gb: float = 2.0,
  poll: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
  """All features by name, architectures along the first axis.

  Raises ValueError where they exceed the memory.
  """
  archs_AxE = subject.archs_AxE
  if measure.read is None:
    return {'arch': archs_AxE[:, : subject.net.space.positions]}
  count = len(archs_AxE)
  check_memory(
    feature_bytes(
      measure,
      subject.net,
      subject.params,
      count,
      len(subject.images),
      len(subject.images[0]),
    ),
    memory_gb,
  )
  out: dict[str, np.ndarray] = {}
  for block in spread.one_late(blocks(subject, measure.read, memory_gb, poll)):
    check_finite(block)
    values = processes.fetch(block.values)
    for name, f_Cx in values.items():
      if name not in out:
        out[name] = np.empty((count, *f_Cx.shape[1:]), f_Cx.dtype)
      out[name][block.indices_C[block.real_C]] = f_Cx[block.real_C]
  return out


def feature_bytes(
  measure: Measure, net: Any, params: Any, archs: int, batches: int, batch: int
) -> int:
  """Of all architectures' features together."""
  if measure.read is None:
    return 0
  floats = measure.read.floats(params, batches, batch, net.space.classes)
  return 4 * floats * archs


def streams(measure: Measure, estimator: str) -> bool:
  """Whether mean distances take linear time, without pairs."""
  return measure.linear and estimator == 'inverse_mean_distance'


def check_memory(size: int, memory_gb: float) -> None:
  """Raises ValueError where pairs of features do not fit."""
  if size > memory_gb * 1e9:
    raise ValueError(
      f'comparing architectures in pairs keeps {size / 1e9:.3g} GB of '
      f'features, more than density.memory_gb {memory_gb:g}: raise that, '
      'compare fewer density.tensors or images, or use density.estimator '
      'inverse_mean_distance of gradients with density.absent zero, which '
      'needs no pairs.'
    )


def save(
  density: Density, file: Path, facts: Mapping[str, Any] | None = None
) -> None:
  """With `facts`, JSON values that say where it comes from."""
  text = json.dumps(facts or {})
  runs.write_npz(file, {**density._asdict(), 'facts': np.array(text)})


def load(file: Path, archs_AxE: Int[np.ndarray, 'A E']) -> Density:
  """Raises ValueError where it is not a density of just these archs."""
  density, _ = read_file(file)
  if not np.array_equal(density.archs_AxE, archs_AxE):
    raise ValueError(
      f'{file} holds densities of {len(density.archs_AxE)} architectures of '
      f'another space or order; {len(archs_AxE)} are needed.'
    )
  return density


def read_file(file: Path) -> tuple[Density, dict[str, Any]]:
  """A density and its facts.

  Raises Damaged where it is no density of any architectures.
  """
  arrays = runs.read_npz(file)
  if missing := {*Density._fields} - {*arrays}:
    raise runs.Damaged(f'{file} is no saved density: it lacks {min(missing)}.')
  density = Density(*(arrays[name] for name in Density._fields))
  archs_AxE, alpha_A = density
  if archs_AxE.ndim != 2 or archs_AxE.dtype.kind not in 'iu':
    raise runs.Damaged(
      f'{file}: archs_AxE is {archs_AxE.dtype} of shape {archs_AxE.shape}; it '
      'must be integers of shape (A, E).'
    )
  if (
    alpha_A.shape != archs_AxE.shape[:1]
    or alpha_A.dtype.kind != 'f'
    or not np.isfinite(alpha_A).all()
  ):
    raise runs.Damaged(f'{file}: alpha_A must be one finite number an arch.')
  try:
    facts = strict_json.loads(str(arrays.get('facts', '{}')))
  except ValueError as error:
    raise runs.Damaged(f'{file}: facts are no JSON: {error}') from error
  if not isinstance(facts, dict):
    raise runs.Damaged(f'{file}: facts are {facts!r:.40}, no object.')
  return density, facts
