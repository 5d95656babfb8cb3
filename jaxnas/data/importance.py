"""Draws images with larger errors more often (data importance, PA&DA).

Lu et al., "PA&DA: Jointly Sampling Path and Data for Consistent NAS", CVPR
2023. The norm of the loss's gradient by the logits scores an image. Batches
are drawn with replacement, and the loss is not weighted to make up for it, as
in the authors' public code.

Two things differ from that code. It gives images that an epoch did not draw a
score of 0 for the next; here they keep their last score. And it counts an
image that a batch holds twice as two sights, one after the other; here it
counts as one, in any order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxnas.data.order import Order


class Importance(NamedTuple):
  """State of the draws: arrays that a checkpoint holds and a step updates."""

  score_N: Float[Array, ' N']
  """Score h of each training image, in [0, sqrt 2]."""
  seen_N: Bool[Array, ' N']
  """True for images that this epoch has scored."""
  weight_N: Float[Array, ' N']
  """Probability q with which this epoch draws each image."""


def init(count: int) -> Importance:
  """Returns the state in which all of `count` images are alike.

  An image's score is 1 until it is seen. That is about the score of guessing
  among many classes, sqrt(1 - 1/K).
  """
  return Importance(
    score_N=jnp.ones(count, jnp.float32),
    seen_N=jnp.zeros(count, bool),
    weight_N=jnp.full(count, 1 / count, jnp.float32),
  )


def note(
  state: Importance,
  indices_B: Int[Array, ' B'],
  logits_BxK: Float[Array, 'B K'],
  labels_B: Int[Array, ' B'],
) -> Importance:
  """Returns the state after a batch, in O(B^2 + B K + N).

  h = |softmax(logits) - onehot(label)|, or its mean for an image that the batch
  holds several times. An epoch's first sight of an image replaces its
  score, later ones h <- (h + new) / 2.
  """
  p_BxK = jax.nn.softmax(logits_BxK.astype(jnp.float32))
  error_BxK = p_BxK - jax.nn.one_hot(labels_B, logits_BxK.shape[1])
  h_B = jnp.sqrt(jnp.square(error_BxK).sum(axis=1))
  same_BxB = indices_B[:, None] == indices_B
  mean_B = jnp.where(same_BxB, h_B, 0).sum(axis=1) / same_BxB.sum(axis=1)
  # Duplicates must write the same bits, since the last write is undefined.
  mean_B = mean_B[same_BxB.argmax(axis=1)]
  old_B = state.score_N[indices_B]
  new_B = jnp.where(state.seen_N[indices_B], (old_B + mean_B) / 2, mean_B)
  return state._replace(
    score_N=state.score_N.at[indices_B].set(new_B),
    seen_N=state.seen_N.at[indices_B].set(True),
  )


def end_epoch(state: Importance, t: float | Float[Array, '']) -> Importance:
  """Sets q = t h / sum(h) + (1 - t) / N for the next epoch; no image is seen.

  After epoch e of E, t is e / E. Images that the epoch did not see keep their
  last score. Where all scores are 0, q is uniform.
  """
  count, total = len(state.score_N), state.score_N.sum()
  share_N = jnp.where(total > 0, state.score_N / total, 1 / count)
  return state._replace(
    seen_N=jnp.zeros_like(state.seen_N),
    weight_N=t * share_N + (1 - t) / count,
  )


def draw(
  state: Importance, key: PRNGKeyArray, batch_size: int
) -> Int[Array, ' B']:
  """Draws int32 indices of images with replacement, in O(N + B log N).

  Probabilities are q to about 1e-7, the precision of a running sum in float32.
  """
  return jax.random.choice(
    key, len(state.weight_N), (batch_size,), p=state.weight_N
  ).astype(jnp.int32)


def by_importance(
  count: int, batch_size: int, *, steps_per_epoch: int, epochs: int
) -> Order:
  """Returns an order that draws images by importance, anew after every epoch.

  Where a step trains several architectures, each notes the same images: all
  but the first are later sights (inferred; the authors train one).

  Args:
    count: N.
    batch_size: B.
    steps_per_epoch: after so many steps an epoch ends, and its successor's
      first draw looks back on it.
    epochs: E, warm-up included.
  """

  def draw_batch(state, inputs, step):
    state = jax.lax.cond(
      step % steps_per_epoch == 0,
      lambda state: end_epoch(state, step // steps_per_epoch / epochs),
      lambda state: state,
      state,
    )
    key = jax.random.fold_in(inputs.draw_key, step)
    return state, draw(state, key, batch_size)

  return Order(lambda: init(count), draw_batch, note)
