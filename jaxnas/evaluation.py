"""Accuracies of many architectures under one set of shared weights."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas import progress
from jaxnas.walk import trunk


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
  running ones. Images are split into
  nearly equal batches of at most `batch_size`, the same for every
  architecture.

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
  correct_A = [jnp.zeros((), jnp.int32)] * len(archs_AxE)
  for index, correct in progress.track(
    _correct(net, variables, archs_AxE, map(batch, batches)),
    label,
    len(archs_AxE) * len(batches),
    poll,
  ):
    correct_A[index] += correct
  return np.asarray(jax.device_get(correct_A)) / images


def _correct(
  net: Any, variables: Any, archs_AxE: Int[np.ndarray, 'A E'], batches: Iterator
) -> Iterator[tuple[int, Int[Array, '']]]:
  """(index, images classified correctly), batch by batch."""
  of_head, of_arch = _programs(net)
  visit = trunk(net)
  for x_BxHxWxC, y_B in batches:
    if net.sequential:
      for index, features in visit(variables, archs_AxE, x_BxHxWxC):
        yield index, of_head(variables, features, y_B)
    else:
      for index, arch_E in enumerate(archs_AxE):
        yield index, of_arch(variables, x_BxHxWxC, y_B, arch_E)


@functools.cache
def _programs(net: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Images classified correctly, from the head's input and from images."""

  def hits(logits_BxK, y_B):
    return jnp.sum(jnp.argmax(logits_BxK, -1) == y_B)

  @jax.jit
  def of_head(variables, features, y_B):
    return hits(net.apply(variables, features, method='head'), y_B)

  @jax.jit
  def of_arch(variables, x_BxHxWxC, y_B, arch_E):
    return hits(net.apply(variables, x_BxHxWxC, arch_E, train=False), y_B)

  return of_head, of_arch
