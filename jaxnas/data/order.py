"""Chooses the training images of a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Order(NamedTuple):
  """An order of images: pure functions over a state that is checkpointed.

  init: () -> state
  draw: (state, inputs, step) -> state, indices_B; in jit. None for indices
    where the inputs are the images themselves
  note: (state, indices_B, logits_BxK, labels_B) -> state, once for every
    architecture trained, in jit; None where nothing is noted
  """

  init: Callable[[], Any] = tuple
  draw: Callable[[Any, Any, Any], tuple[Any, Any]] = (
    lambda state, inputs, step: (state, None)
  )
  note: Callable[[Any, Any, Any, Any], Any] | None = None


def shuffled(steps: int, batch_size: int) -> Order:
  """Goes batch by batch through a permutation of images, `inputs.order_N`.

  Args:
    steps: batches of a permutation; its rest is dropped.
    batch_size: B.
  """

  def draw(state, inputs, step):
    start = step % steps * batch_size
    return state, jax.lax.dynamic_slice(inputs.order_N, (start,), (batch_size,))

  return Order(draw=draw)
