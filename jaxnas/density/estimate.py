"""Densities of all architectures in one call, and the files that hold them."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.config import run_files
from jaxnas.density import estimators, pairs
from jaxnas.density.features import Readout, read
from jaxnas.density.measures import Measure
from jaxnas.density.streaming import (
  NotFinite,
  check_finite,
  in_memory,
  mean_cosine_distance,
)
from jaxnas.runtime import devices, files, processes, progress, words
from jaxnas.runtime.devices import Chunk


class Density(NamedTuple):
  """Densities of architectures, in the order of a space's enumeration."""

  archs_AxE: Int[np.ndarray, 'A E']
  alpha_A: Float[np.ndarray, ' A']
  distance_P: Float[np.ndarray, ' P'] | None = None
  """Distances of every two architectures, in scipy's condensed form; None where
  they were not all compared."""


class Snapshot(NamedTuple):
  """A supernet at some weights, and the held-out images that it sees."""

  net: Any
  params: Any
  archs_AxE: Int[np.ndarray, 'A E']
  """Every architecture that counts, as the net takes it."""
  images: Sequence[Float[Array, 'B H W C']]
  """Prepared held-out batches of equal size, the same for every arch."""
  labels: Sequence[Int[Array, ' B']]


def estimate(
  snapshot: Snapshot,
  measure: Measure,
  estimator: str = 'inverse_mean_distance',
  *,
  bandwidth: float | None = None,
  memory_gb: float = 2.0,
  poll: Callable[[], None] = lambda: None,
  features: pairs.Features | None = None,
) -> Density:
  """Returns the density of every architecture of a snapshot.

  Cosine distances under 'inverse_mean_distance' take O(A D) time, and O(D)
  memory where features are computed twice; all else compares pairs, in
  O(A^2 D).

  Args:
    snapshot: the supernet, its architectures and held-out images.
    measure: compares two architectures; from `measures`.
    estimator: 'inverse_mean_distance' or 'kde'.
    bandwidth: of 'kde'; None: the median rule.
    memory_gb: features beyond this are computed twice, or refused where pairs
      are compared.
    poll: called before each chunk or block of pairs; may raise.
    features: from `gather`, where they are at hand.

  Raises:
    ValueError: features of all architectures exceed the memory and are needed.
    FloatingPointError: a feature is not finite; names its architecture.
  """
  archs_AxE, readout = snapshot.archs_AxE, measure.read
  if readout and streams(measure, estimator):
    with naming(snapshot):
      if features is None:
        distance_A = mean_cosine_distance(
          lambda: chunks(snapshot, readout, memory_gb, poll),
          len(archs_AxE),
          memory_bytes=memory_gb * 1e9,
        )
      else:
        distance_A = mean_cosine_distance(
          lambda: polled(in_memory(features), poll),
          len(archs_AxE),
          memory_bytes=0.0,
        )
    return Density(
      archs_AxE, estimators.level(estimators.inverse_of(distance_A))
    )
  if features is None:
    features = gather(snapshot, measure, memory_gb=memory_gb, poll=poll)
  if estimator == 'kde':
    alpha_A = estimators.kernel_density(
      measure.distance, measure.squared, features, bandwidth, poll=poll
    )
  else:
    alpha_A = estimators.inverse_mean_of_pairs(
      measure.distance, features, poll=poll
    )
  return Density(archs_AxE, estimators.level(alpha_A))


def chunks(
  snapshot: Snapshot,
  readout: Readout,
  memory_gb: float,
  poll: Callable[[], None] = lambda: None,
) -> Any:
  """Yields the snapshot's features chunk by chunk, and shows a bar."""
  return progress.track(
    # A small part: chunks follow each other, and must not add up to memory
    # that one architecture's gradient would not need.
    read(*snapshot, readout, chunk_bytes=memory_gb * 1e9 / 32),
    'density',
    len(snapshot.archs_AxE),
    poll,
    size=lambda chunk: int(chunk.real_C.sum()),
  )


def polled(items: Iterable[Chunk], poll: Callable[[], None]) -> Iterator[Chunk]:
  """Yields the items, and calls `poll` before each; it may raise."""
  for item in items:
    poll()
    yield item


def gather(
  snapshot: Snapshot,
  measure: Measure,
  *,
  memory_gb: float = 2.0,
  poll: Callable[[], None] = lambda: None,
  spool: Path | None = None,
) -> dict[str, np.ndarray]:
  """Returns all features by name, architectures along the first axis.

  Args:
    snapshot: the supernet, its architectures and held-out images.
    measure: compares two architectures; from `measures`.
    memory_gb: what they may take.
    poll: called before each chunk; may raise.
    spool: a folder on whose disk they lie where they exceed the memory, until
      nobody reads them any more.

  Raises ValueError where they exceed the memory and there is no such folder,
  FloatingPointError where one is not finite.
  """
  archs_AxE = snapshot.archs_AxE
  if measure.read is None:
    return {'arch': archs_AxE[:, : snapshot.net.space.positions]}
  count = len(archs_AxE)
  size = feature_bytes(
    measure,
    snapshot.net,
    snapshot.params,
    count,
    len(snapshot.images),
    len(snapshot.images[0]),
  )
  if spool is None:
    check_memory(size, memory_gb)

  def empty(shape, dtype) -> np.ndarray:
    if size <= memory_gb * 1e9:
      return np.empty(shape, dtype)
    # Without a name, its space is free again as soon as the array is.
    with tempfile.TemporaryFile(dir=spool) as file:
      return np.memmap(file, dtype, 'w+', shape=shape)

  out: dict[str, np.ndarray] = {}
  for chunk in devices.one_late(
    chunks(snapshot, measure.read, memory_gb, poll)
  ):
    with naming(snapshot):
      check_finite(chunk)
    values = processes.fetch(chunk.values)
    for name, f_Cx in values.items():
      if name not in out:
        out[name] = empty((count, *f_Cx.shape[1:]), f_Cx.dtype)
      out[name][chunk.indices_C[chunk.real_C]] = f_Cx[chunk.real_C]
  return out


@contextlib.contextmanager
def naming(snapshot: Snapshot) -> Iterator[None]:
  """Turns `NotFinite` into an error that names the architecture."""
  try:
    yield
  except NotFinite as error:
    space = snapshot.net.space
    arch_E = snapshot.archs_AxE[error.index][: space.positions]
    raise FloatingPointError(
      f'the features of architecture {space.format(arch_E)} are not finite.'
    ) from error


def feature_bytes(
  measure: Measure, net: Any, params: Any, archs: int, batches: int, batch: int
) -> int:
  """Returns how many bytes the features of all architectures take."""
  if measure.read is None:
    return 0
  floats = measure.read.floats(params, batches, batch, net.space.classes)
  return 4 * floats * archs


def streams(measure: Measure, estimator: str) -> bool:
  """Returns True where mean distances take linear time, without pairs."""
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
  """Writes a density to a file; `load` and `read_file` read it.

  Args:
    density: of any architectures.
    file: an npz file.
    facts: JSON values that say what the density was made of.
  """
  arrays = {
    name: value
    for name, value in density._asdict().items()
    if value is not None
  }
  files.write_npz(file, arrays, facts or {})


def load(file: Path, archs_AxE: Int[np.ndarray, 'A E']) -> Density:
  """Reads a density. Raises ValueError where it is not of just these archs."""
  density, _ = read_file(file)
  if not np.array_equal(density.archs_AxE, archs_AxE):
    raise ValueError(
      f'{file} holds densities of '
      f'{words.counted(len(density.archs_AxE), "architecture")} of '
      f'another space or order; {len(archs_AxE)} are needed.'
    )
  return density


def read_file(
  file: Path, facts: Mapping[str, Any] | None = None
) -> tuple[Density, dict[str, Any]]:
  """Reads a density, and what it was made of.

  Raises Damaged where the file holds no density, or was made of something else
  than `facts` say.
  """
  arrays, found = files.read_arrays(file, run_files.DENSITY, facts)
  density = Density(**arrays)
  if not np.isfinite(density.alpha_A).all():
    raise files.not_so(file, 'alpha_A is not one finite number an arch')
  count = len(density.alpha_A)
  if density.distance_P is not None and (
    len(density.distance_P) != count * (count - 1) // 2
  ):
    raise files.not_so(file, f'distance_P is not of every two of {count} archs')
  return density, found
