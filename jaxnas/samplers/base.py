"""The contract of a sampler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnas.spaces import Space


class Feedback(NamedTuple):
  """What training one architecture has measured."""

  arch_E: Int[Array, ' E']
  gradient: Any
  """Of the mean loss, a pytree as the parameters; other paths' left out. None
  on a mesh, where the sampler reads none."""
  reward: Float[Array, '']
  """Accuracy on a validation batch; NaN where a step measures none."""


class Measurements(NamedTuple):
  """What can be measured of all architectures of a listed space, on demand."""

  accuracies: Callable[[], Float[np.ndarray, ' A']]
  """On a few validation batches."""
  outputs: Callable[[], Float[np.ndarray, 'A D']]
  """What each says of the same images, as one vector."""


def deaf(state: Any, feedback: Feedback) -> Any:
  """The update of samplers that need no feedback."""
  del feedback
  return state


class Sampler(NamedTuple):
  """Pure functions; the state is a pytree and is checkpointed.

  init: () -> state
  sample: (state, key) -> archs_PxE, the architectures of one step
  log_prob: (state) -> logp_A over the enumerated space, None where it is too
    large to list
  update: (state, feedback) -> state, once for every architecture trained
  rewards: whether `update` reads rewards; else steps measure none
  gradients: whether `update` reads gradients; else a mesh sums those of all
    paths and passes none
  together: whether the architectures of a step belong together, so that no
    other of the space may take the place of one
  rebuild: (state, measurements) -> state, on the host between two epochs after
    the warm-up; None where there is nothing to rebuild
  route: (state, archs_AxE) -> archs_AxF, as the net takes them when they are
    evaluated: a mixture adds the member that serves each best
  """

  init: Callable[[], Any]
  sample: Callable[[Any, PRNGKeyArray], Int[Array, 'P E']]
  log_prob: Callable[[Any], Any]
  update: Callable[[Any, Feedback], Any] = deaf
  rewards: bool = False
  gradients: bool = False
  together: bool = False
  rebuild: Callable[[Any, Measurements], Any] | None = None
  route: Callable[[Any, Any], Any] = lambda state, archs_AxE: archs_AxE


def paths(sampler: Sampler) -> int:
  """Architectures in a step."""
  drawn = jax.eval_shape(
    lambda: sampler.sample(sampler.init(), jax.random.key(0))
  )
  return drawn.shape[0]


def counter(space: Space) -> Callable[[Int[Array, 'P E']], Array]:
  """archs_PxE -> how often each architecture of the space is among them.

  Where the space is too large to list, how often each op at each position.
  A mixture's last column, the member, does not count.
  """
  positions = space.positions
  if not space.enumerable:
    most = max(space.counts)
    return lambda archs_PxE: jax.nn.one_hot(
      archs_PxE[:, :positions], most, dtype=jnp.int32
    ).sum(0)
  all_AxE = jnp.asarray(space.enumerate())
  return lambda archs_PxE: (
    (archs_PxE[:, None, :positions] == all_AxE).all(-1).sum(0)
  )


def index_of(space: Space) -> Callable[[Int[Array, 'P E']], Int[Array, ' P']]:
  """archs_PxE -> row of each in `space.enumerate()`, in jit. O(P A E).

  What is no architecture of the space has row 0. Raises ValueError where the
  space is too large to list.
  """
  all_AxE = jnp.asarray(space.enumerate())
  return lambda archs_PxE: (archs_PxE[:, None] == all_AxE).all(-1).argmax(-1)


def draw(
  key: PRNGKeyArray,
  logp_A: Float[Array, ' A'],
  archs_AxE: Int[Array, 'A E'],
  paths: int,
) -> Int[Array, 'P E']:
  """`paths` independent architectures with probabilities exp(logp_A)."""
  indices_P = jax.random.categorical(key, logp_A, shape=(paths,))
  return jnp.take(archs_AxE, indices_P, axis=0)
