"""Accuracies of many architectures under one set of shared weights."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import progress, spread
from jaxnas.spread import Block
from jaxnas.walk import trunk

# Architectures that a device evaluates in one call.
PER_DEVICE = 8


def accuracies(
  net: Any,
  variables: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  batch: Callable[
    [np.ndarray], tuple[Float[Array, 'B H W C'], Int[Array, ' B']]
  ],
  images: int,
  *,
  batch_size: int,
  label: str | None = 'ranking',
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """Fraction of the images that each architecture classifies correctly.

  Batch normalisation uses each batch's statistics, unless the net keeps
  running ones. Images are split into nearly equal batches of at most
  `batch_size`, the same for every architecture. Architectures are spread over
  this process's devices.

  Args:
    net: a supernet.
    variables: its shared weights, and running statistics where it has any.
    archs_AxE: any set of architectures.
    batch: indices below `images` -> prepared images and labels.
    images: how many images.
    batch_size: at most so many in a batch.
    label: of the progress bar; None shows none.
    poll: called before each evaluation; may raise.
  """
  batches = np.array_split(np.arange(images), -(-images // batch_size))
  correct_A = np.zeros(len(archs_AxE), int)
  for block in progress.track(
    spread.one_late(_correct(net, variables, archs_AxE, map(batch, batches))),
    label,
    len(archs_AxE) * len(batches),
    poll,
    size=lambda block: int(block.real_C.sum()),
  ):
    real_C = block.real_C
    correct_A[block.indices_C[real_C]] += np.asarray(block.values)[real_C]
  return correct_A / images


def _correct(
  net: Any, variables: Any, archs_AxE: Int[np.ndarray, 'A E'], batches: Iterator
) -> Iterator[Block]:
  """Images classified correctly, batch by batch."""
  of_head, of_arch = _programs(net)
  variables = spread.everywhere(variables)
  for images_and_labels in batches:
    x_BxHxWxC, y_B = spread.everywhere(images_and_labels)
    if net.sequential:
      for block in trunk(net)(variables, archs_AxE, x_BxHxWxC):
        yield block._replace(values=of_head((variables, y_B), block.values))
    else:
      shared = variables, x_BxHxWxC, y_B
      for indices_C, real_C in spread.blocks(len(archs_AxE), PER_DEVICE):
        yield Block(indices_C, real_C, of_arch(shared, archs_AxE[indices_C]))


@functools.cache
def _programs(net: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Images classified correctly, from the head's input and from images."""

  def hits(logits_BxK, y_B):
    return jnp.sum(jnp.argmax(logits_BxK, -1) == y_B)

  def of_head(shared, features):
    variables, y_B = shared
    return hits(net.apply(variables, features, method='head'), y_B)

  def of_arch(shared, arch_E):
    variables, x_BxHxWxC, y_B = shared
    return hits(net.apply(variables, x_BxHxWxC, arch_E, train=False), y_B)

  return spread.over_archs(of_head), spread.over_archs(of_arch)
