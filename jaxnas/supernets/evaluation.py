"""Accuracies of many architectures under one set of shared weights."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8

from jaxnas.nn.walk import leaves
from jaxnas.runtime import devices, processes, progress
from jaxnas.runtime.cache import per_net
from jaxnas.runtime.devices import Chunk
from jaxnas.supernets import recalibration

# Architectures that a device evaluates in one call.
PER_DEVICE = 8

# Chunks whose statistics are kept, so that a batch is read once for all of
# them: it may have to be decoded.
CHUNKS = 32

# The most chunks that processes exchange at once; between two exchanges a run
# may be asked to stop.
AT_ONCE = 64

# Not evaluated yet.
MISSING = -1

# right_AxI: 1 where architecture a classifies image i correctly, 0 where it
# does not, or `MISSING`.
Right = Int8[np.ndarray, 'A I']
Batch = Callable[[np.ndarray], tuple[Float[Array, 'B H W C'], Int[Array, ' B']]]
Batches = list[np.ndarray]


def accuracies(*args: Any, **options: Any) -> Float[np.ndarray, ' A']:
  """Returns the fraction of images that each architecture has right.

  Arguments are those of `right`.
  """
  right_AxI = right(*args, **options)
  return right_AxI.sum(axis=1) / right_AxI.shape[1]


def right(
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  batch: Batch,
  images: int,
  *,
  batch_size: int,
  calibration: Float[Array, 'T B H W C'] | None = None,
  known: Right | None = None,
  keep: Callable[[Right], None] = lambda right_AxI: None,
  label: str | None = 'ranking',
  poll: Callable[[], None] = lambda: None,
) -> Right:
  """Says of each architecture which images it classifies correctly.

  Batch normalisation uses each batch's statistics, running ones where the net
  keeps them, or those that each architecture has on calibration batches.
  Images are split into nearly equal batches of at most `batch_size`, the same
  for every architecture. Architectures are spread over all devices;
  those of a sequential net that start alike share their forward pass, but for
  calibrated ones.

  Args:
    net: a supernet.
    variables: its shared weights, and running statistics where it has any.
    archs_AxE: any set of architectures.
    batch: indices below `images` -> prepared images and labels.
    images: how many images.
    batch_size: at most so many in a batch.
    calibration: T training batches; the net keeps no running statistics then.
    known: what `keep` was given, of the same call: it is not repeated.
    keep: receives what is evaluated so far, after every chunk; the array
      changes afterwards.
    label: of the progress bar; None shows none.
    poll: called before each evaluation; may raise.
  """
  batches = split(images, batch_size)
  right_AxI = np.full((len(archs_AxE), images), MISSING, np.int8)
  if known is not None:
    right_AxI[:] = known

  def missing(n):
    # An architecture has seen a batch whole or not at all.
    return right_AxI[:, batches[n][0]] == MISSING

  def read(n):
    return devices.everywhere(batch(batches[n]))

  left_AxN = np.column_stack([missing(n) for n in range(len(batches))])
  evaluate = _by_batch
  if calibration is not None:
    evaluate = functools.partial(_by_arch, calibration)
  for n, chunk in progress.track(
    devices.one_late(
      _at_once(evaluate(net, variables, archs_AxE, left_AxN, read))
    ),
    label,
    left_AxN.size,
    poll,
    size=lambda item: int(item[1].real_C.sum()),
    done=left_AxN.size - int(left_AxN.sum()),
  ):
    real_C = chunk.real_C
    rows_R = chunk.indices_C[real_C]
    right_AxI[np.ix_(rows_R, batches[n])] = processes.fetch(chunk.values)[
      real_C
    ]
    keep(right_AxI)
  return right_AxI


def _at_once(
  items: Iterator[tuple[int, Chunk]],
) -> Iterator[tuple[int, Chunk]]:
  """Joins chunks of a batch, so that several processes exchange them at once.

  Each exchange waits for the slowest of all hosts. Where all devices are this
  process's there is none, and chunks stay as they are.
  """
  if jax.process_count() == 1:
    yield from items
    return
  for n, of_batch in itertools.groupby(items, key=lambda item: item[0]):
    while chunks := [chunk for _, chunk in itertools.islice(of_batch, AT_ONCE)]:
      indices_CxM, real_CxM = (
        np.stack(each, 1) for each in ([*zip(*chunks, strict=True)][:2])
      )
      # Devices keep their architectures, which lie along the first axis.
      right_CxMxB = _stacked([chunk.values for chunk in chunks])
      yield n, Chunk(indices_CxM, real_CxM, right_CxMxB)


@jax.jit
def _stacked(arrays: list[Array]) -> Array:
  return jnp.stack(arrays, 1)


def split(images: int, batch_size: int) -> Batches:
  """Splits the indices of images into nearly equal batches."""
  return np.array_split(np.arange(images), -(-images // batch_size))


def _by_batch(
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  left_AxN: Bool[np.ndarray, 'A N'],
  read: Callable[[int], Any],
) -> Iterator[tuple[int, Chunk]]:
  """Yields (batch, right_CxB), all architectures that are left on a batch."""
  of_leaf, of_arch = _programs(net)
  variables = devices.everywhere(variables)
  for n, left_A in enumerate(left_AxN.T):
    missing_M = np.flatnonzero(left_A)
    if not len(missing_M):
      continue
    x_BxHxWxC, y_B = read(n)
    archs_MxE = archs_AxE[missing_M]
    if net.sequential:
      chunks = leaves(net, of_leaf)(variables, y_B, archs_MxE, x_BxHxWxC)
    else:
      shared = variables, x_BxHxWxC, y_B
      chunks = (
        Chunk(indices_C, real_C, of_arch(shared, archs_MxE[indices_C]))
        for indices_C, real_C in devices.chunks(len(archs_MxE), PER_DEVICE)
      )
    for chunk in chunks:
      yield n, chunk._replace(indices_C=missing_M[chunk.indices_C])


def _by_arch(
  calibration_TxBxHxWxC: Float[Array, 'T B H W C'],
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  left_AxN: Bool[np.ndarray, 'A N'],
  read: Callable[[int], Any],
) -> Iterator[tuple[int, Chunk]]:
  """Yields (batch, right_CxB), a few architectures on all batches."""
  measure, of_frozen = _calibrated_programs(net)
  params = devices.everywhere(variables['params'])
  images = devices.everywhere(calibration_TxBxHxWxC)
  missing_M = np.flatnonzero(left_AxN.any(axis=1))
  chunks = list(devices.chunks(len(missing_M), PER_DEVICE))
  for start in range(0, len(chunks), CHUNKS):
    some = [
      (missing_M[indices_C], real_C)
      for indices_C, real_C in chunks[start : start + CHUNKS]
    ]
    frozen = [measure((params, images), archs_AxE[rows]) for rows, _ in some]
    for n in range(left_AxN.shape[1]):
      x_BxHxWxC, y_B = read(n)
      for (rows_C, real_C), of_chunk in zip(some, frozen, strict=True):
        missing_C = real_C & left_AxN[rows_C, n]
        if missing_C.any():
          right_CxB = of_frozen(
            (params, x_BxHxWxC, y_B), (archs_AxE[rows_C], of_chunk)
          )
          yield n, Chunk(rows_C, missing_C, right_CxB)


def _right(logits_BxK: Array, y_B: Array) -> Bool[Array, ' B']:
  return jnp.argmax(logits_BxK, -1) == y_B


@per_net
def _programs(net: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Says which images are right, from the head's input and from images."""

  def of_leaf(variables, y_B, features):
    return _right(net.apply(variables, features, method='head'), y_B)

  def of_arch(shared, arch_E):
    variables, x_BxHxWxC, y_B = shared
    return _right(net.apply(variables, x_BxHxWxC, arch_E, train=False), y_B)

  return of_leaf, devices.over_archs(of_arch)


@per_net
def _calibrated_programs(
  net: Any,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns statistics, and which images are right with them."""

  def measure(shared, arch_E):
    params, images_NxBxHxWxC = shared
    return recalibration.statistics(net, params, arch_E, images_NxBxHxWxC)

  def of_frozen(shared, each):
    params, x_BxHxWxC, y_B = shared
    arch_E, frozen = each
    logits_BxK = recalibration.logits(net, params, frozen, x_BxHxWxC, arch_E)
    return _right(logits_BxK, y_B)

  return devices.over_archs(measure), devices.over_archs(of_frozen)
