"""Path importance: ops with larger gradients are drawn more often (PA&DA).

Images with larger errors, its other half, are drawn by `data.importance`.

Lu et al., "PA&DA: Jointly Sampling Path and Data for Consistent NAS", CVPR
2023. Equations and resets are those of the authors' public code, with three
differences. Their code counts epochs from 0, so that its t lags ours by 1/E. It
adds the norms of a convolution's weight and bias; here every parameter of an op
counts, also those of its normalisation. It takes norms cell by cell; here cells
that share one array have one norm, over all of it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Int

from jaxnas.nn.choice import position_and_op
from jaxnas.samplers.base import Feedback, Sampler
from jaxnas.samplers.uniform import uniform
from jaxnas.spaces import Space

# Paths, images or both are drawn by importance.
VARIANTS = ('both', 'path', 'data')


class ImportanceState(NamedTuple):
  """Probabilities of ops, and the norms that this epoch has measured."""

  p_O: Float[Array, ' O']
  """Probability of each op, at every position alike."""
  g_O: Float[Array, ' O']
  """Moving average of the norms of each op's gradients; every epoch starts it
  from 0."""
  trained: Int[Array, '']
  """Number of architectures trained so far, P a step."""


def importance(
  space: Space,
  *,
  paths: int = 1,
  steps_per_epoch: int,
  epochs: int,
  clip_norm: float | None = None,
  variant: str = 'both',
) -> Sampler:
  """Draws the op of every position from p, which follows gradients' norms.

  In an architecture with op o at n positions, s_o is the sum of the norms of
  the gradients of o's parameters, divided by n, and g_o <- (g_o + s_o) / 2.
  Where s_o is 0 (o is not used, or has no parameters there) g_o stays. After
  epoch e of E, p = t g / sum(g) + (1 - t) / O with t = e / E, and g starts from
  0.
  Ops without parameters fade out: after the last epoch they have p = 0. An
  epoch in which no op has a gradient counts as one with equal ones.

  A step costs O(P E), and one norm of each parameter a path; `log_prob` O(A E).

  Args:
    space: a product of positions that offer the same ops in the same order.
    paths: P; each path counts as an architecture of its own (inferred; the
      authors have one).
    steps_per_epoch: steps, of P architectures each.
    epochs: E, warm-up included.
    clip_norm: global norm to which the optimizer clips; a path's gradient
      counts as if it were clipped alone. None where the optimizer does not.
    variant: one of `VARIANTS`; 'data' draws architectures uniformly.

  Raises ValueError where positions offer different ops, an argument is below
  1, or there is no such variant.

  >>> from jaxnas import spaces
  >>> sampler = importance(
  ...   spaces.get('digits'), steps_per_epoch=1, epochs=1
  ... )
  >>> gradient = {
  ...   'position_0': {'op_1': {'kernel': jnp.array([3.0, 4.0])}},
  ...   'position_1': {'op_2': {'kernel': jnp.array([15.0])}},
  ... }
  >>> arch_E, reward = jnp.array([1, 2, 0, 0]), jnp.float32(jnp.nan)
  >>> state = sampler.update(
  ...   sampler.init(), Feedback(arch_E, gradient, reward)
  ... )
  >>> print(state.p_O)
  [0.   0.25 0.75]
  """
  if variant not in VARIANTS:
    raise ValueError(
      f'sampler importance has no variant {variant!r}; there are '
      f'{", ".join(VARIANTS)}.'
    )
  if variant == 'data':
    return uniform(space, paths=paths)
  _check(space, steps_per_epoch, epochs)
  positions, ops = space.positions, space.counts[0]
  all_AxE = jnp.asarray(space.enumerate()) if space.enumerable else None
  epoch_size = steps_per_epoch * paths

  def init():
    return ImportanceState(
      p_O=jnp.full(ops, 1 / ops, jnp.float32),
      g_O=jnp.zeros(ops, jnp.float32),
      trained=jnp.zeros((), jnp.int32),
    )

  def sample(state, key):
    return jax.random.categorical(
      key, jnp.log(state.p_O), shape=(paths, positions)
    ).astype(jnp.int32)

  def log_prob(state):
    return None if all_AxE is None else jnp.log(state.p_O)[all_AxE].sum(axis=1)

  def update(state, feedback: Feedback):
    uses_O = (feedback.arch_E[:, None] == jnp.arange(ops)).sum(axis=0)
    norms_O = _clipped(feedback.gradient, clip_norm) * _norms(
      feedback.gradient, ops
    )
    s_O = norms_O / jnp.maximum(uses_O, 1)
    g_O = jnp.where(s_O > 0, (state.g_O + s_O) / 2, state.g_O)

    trained = state.trained + 1
    ends = trained % epoch_size == 0
    t = jnp.minimum(trained / (epoch_size * epochs), 1)
    total = g_O.sum()
    share_O = jnp.where(total > 0, g_O / total, 1 / ops)
    return ImportanceState(
      p_O=jnp.where(ends, t * share_O + (1 - t) / ops, state.p_O),
      g_O=jnp.where(ends, 0, g_O),
      trained=trained,
    )

  return Sampler(init, sample, log_prob, update, gradients=True)


def _check(space: Space, steps_per_epoch: int, epochs: int) -> None:
  if space.size != math.prod(space.counts):
    raise ValueError(
      'sampler importance draws the op of each position alone; of '
      f"{space.name}'s {math.prod(space.counts)} combinations only "
      f'{space.size} are architectures. Use another sampler.'
    )
  for e, names in enumerate(space.ops):
    if names != space.ops[0]:
      raise ValueError(
        'sampler importance shares its probabilities between positions; '
        f'position {e} of {space.name} offers other ops than position 0. Use '
        'another sampler.'
      )
  for name, value in (('steps_per_epoch', steps_per_epoch), ('epochs', epochs)):
    if value < 1:
      raise ValueError(
        f'{name} of sampler importance is {value}; it must be 1 or more.'
      )


def _norms(gradient: Any, ops: int) -> Float[Array, ' O']:
  """Norms of the gradients of each op's parameters, summed over positions."""
  norms_O = [jnp.zeros((), jnp.float32)] * ops
  flat: dict[tuple[str, ...], Any] = flatten_dict(gradient)
  for names, leaf in flat.items():
    if place := position_and_op(names):
      _, op = place
      square = jnp.square(leaf.astype(jnp.float32)).sum()
      norms_O[op] += jnp.sqrt(square)
  return jnp.stack(norms_O)


def _clipped(gradient: Any, clip_norm: float | None) -> Float[Array, '']:
  """The factor by which clipping multiplies the gradient."""
  if clip_norm is None:
    return jnp.ones((), jnp.float32)
  norm = jnp.asarray(optax.global_norm(gradient))
  return jnp.where(norm > clip_norm, clip_norm / norm, 1.0)
