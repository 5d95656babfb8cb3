"""Accuracies of many architectures under one set of shared weights."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import processes, progress, recalibration, spread
from jaxnas.spread import Block
from jaxnas.walk import leaves

# Architectures that a device evaluates in one call.
PER_DEVICE = 8

# Blocks whose statistics are kept, so that a batch is read once for all of
# them: it may have to be decoded.
BLOCKS = 32

# Not evaluated yet.
MISSING = -1

# hits_AxN: images that architecture a classifies correctly in batch n, or
# `MISSING`.
Hits = Int[np.ndarray, 'A N']
Batch = Callable[[np.ndarray], tuple[Float[Array, 'B H W C'], Int[Array, ' B']]]


def accuracies(
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  batch: Batch,
  images: int,
  *,
  batch_size: int,
  calibration: Float[Array, 'T B H W C'] | None = None,
  known: Hits | None = None,
  keep: Callable[[Hits], None] = lambda hits_AxN: None,
  label: str | None = 'ranking',
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """Fraction of the images that each architecture classifies correctly.

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
    keep: receives what is evaluated so far, after every block; the array
      changes afterwards.
    label: of the progress bar; None shows none.
    poll: called before each evaluation; may raise.
  """
  batches = np.array_split(np.arange(images), -(-images // batch_size))
  hits_AxN = np.full((len(archs_AxE), len(batches)), MISSING, np.int32)
  if known is not None:
    hits_AxN[:] = known

  def read(n):
    return spread.everywhere(batch(batches[n]))

  done, evaluate = int((hits_AxN != MISSING).sum()), _by_batch
  if calibration is not None:
    evaluate = functools.partial(_by_arch, calibration)
  for n, block in progress.track(
    spread.one_late(evaluate(net, variables, archs_AxE, hits_AxN, read)),
    label,
    hits_AxN.size,
    poll,
    size=lambda item: int(item[1].real_C.sum()),
    done=done,
  ):
    real_C = block.real_C
    hits_AxN[block.indices_C[real_C], n] = processes.fetch(block.values)[real_C]
    keep(hits_AxN)
  return hits_AxN.sum(axis=1) / images


def _by_batch(
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  hits_AxN: Hits,
  read: Callable[[int], Any],
) -> Iterator[tuple[int, Block]]:
  """(batch, images classified correctly), all architectures on one batch."""
  of_leaf, of_arch = _programs(net)
  variables = spread.everywhere(variables)
  for n in range(hits_AxN.shape[1]):
    missing_M = np.flatnonzero(hits_AxN[:, n] == MISSING)
    if not len(missing_M):
      continue
    x_BxHxWxC, y_B = read(n)
    archs_MxE = archs_AxE[missing_M]
    if net.sequential:
      blocks = leaves(net, of_leaf)(variables, y_B, archs_MxE, x_BxHxWxC)
    else:
      shared = variables, x_BxHxWxC, y_B
      blocks = (
        Block(indices_C, real_C, of_arch(shared, archs_MxE[indices_C]))
        for indices_C, real_C in spread.blocks(len(archs_MxE), PER_DEVICE)
      )
    for block in blocks:
      yield n, block._replace(indices_C=missing_M[block.indices_C])


def _by_arch(
  calibration_TxBxHxWxC: Float[Array, 'T B H W C'],
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  hits_AxN: Hits,
  read: Callable[[int], Any],
) -> Iterator[tuple[int, Block]]:
  """(batch, images classified correctly), a few architectures on all."""
  measure, of_frozen = _calibrated_programs(net)
  params = spread.everywhere(variables['params'])
  images = spread.everywhere(calibration_TxBxHxWxC)
  missing_M = np.flatnonzero((hits_AxN == MISSING).any(axis=1))
  blocks = list(spread.blocks(len(missing_M), PER_DEVICE))
  for start in range(0, len(blocks), BLOCKS):
    chunk = [
      (missing_M[indices_C], real_C)
      for indices_C, real_C in blocks[start : start + BLOCKS]
    ]
    frozen = [measure((params, images), archs_AxE[rows]) for rows, _ in chunk]
    for n in range(hits_AxN.shape[1]):
      x_BxHxWxC, y_B = read(n)
      for (rows_C, real_C), of_block in zip(chunk, frozen, strict=True):
        missing_C = real_C & (hits_AxN[rows_C, n] == MISSING)
        if missing_C.any():
          hits_C = of_frozen(
            (params, x_BxHxWxC, y_B), (archs_AxE[rows_C], of_block)
          )
          yield n, Block(rows_C, missing_C, hits_C)


def _hits(logits_BxK: Array, y_B: Array) -> Array:
  return jnp.sum(jnp.argmax(logits_BxK, -1) == y_B)


@functools.cache
def _programs(net: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Images classified correctly, from the head's input and from images."""

  def of_leaf(variables, y_B, features):
    return _hits(net.apply(variables, features, method='head'), y_B)

  def of_arch(shared, arch_E):
    variables, x_BxHxWxC, y_B = shared
    return _hits(net.apply(variables, x_BxHxWxC, arch_E, train=False), y_B)

  return of_leaf, spread.over_archs(of_arch)


@functools.cache
def _calibrated_programs(
  net: Any,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Statistics, and images classified correctly with them."""

  def measure(shared, arch_E):
    params, images_NxBxHxWxC = shared
    return recalibration.statistics(net, params, arch_E, images_NxBxHxWxC)

  def of_frozen(shared, each):
    params, x_BxHxWxC, y_B = shared
    arch_E, frozen = each
    logits_BxK = recalibration.logits(net, params, frozen, x_BxHxWxC, arch_E)
    return _hits(logits_BxK, y_B)

  return spread.over_archs(measure), spread.over_archs(of_frozen)
