"""The contract of a sampler: a tuple of pure functions over a state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnas.samplers.rules.base import Factor
from jaxnas.spaces import Space


class Feedback(NamedTuple):
  """Measurements of one architecture in a training step."""

  arch_E: Int[Array, ' E']
  gradient: Any
  """Gradient of this path's mean loss, a pytree as the parameters. None on a
  mesh, where the sampler reads no gradients."""
  reward: Float[Array, '']
  """Accuracy on a validation batch, a fraction; NaN in steps that measure
  none."""


class Measurements(NamedTuple):
  """Measurements of all architectures of a listed space, made on demand."""

  accuracies: Callable[[], Float[np.ndarray, ' A']]
  """Accuracies on a few validation batches, fractions."""
  outputs: Callable[[], Float[np.ndarray, 'A D']]
  """Outputs of each architecture on the same images, as one vector."""


class Debiasing(NamedTuple):
  """Outcome of `Sampler.apply_density`."""

  state: Any
  """The sampler's state, debiased from the next step on."""
  factor: Factor
  proposal_logp_A: Float[np.ndarray, ' A']
  """Log-probabilities before debiasing."""
  logp_A: Float[np.ndarray, ' A']
  """Log-probabilities of the debiased architectures."""


def ignore_feedback(state: Any, feedback: Feedback) -> Any:
  """Returns the state unchanged: the update of samplers that do not learn."""
  del feedback
  return state


class Sampler(NamedTuple):
  """Pure functions; their state is a pytree, which checkpoints hold.

  init: () -> state
  sample: (state, key) -> archs_PxE, the architectures of one step
  log_prob: (state) -> logp_A over the enumerated space; None where that is too
    large to list
  update: (state, feedback) -> state, once for every architecture trained
  rewards: True where `update` reads rewards; else steps measure none
  gradients: True where `update` reads gradients; else a mesh sums those of all
    paths and passes none
  together: True where the architectures of a step belong together, so that no
    other may take the place of one
  rebuild: (state, measurements) -> state, called on the host between epochs
    after the warm-up; None where there is nothing to rebuild
  apply_density: (state, evidence, weigh) -> Debiasing, on the host before an
    epoch; None where a sampler cannot be debiased. `weigh(logp_A, evidence)`,
    of a `rules.Rule`, gives the factor for the undebiased log-probabilities
  route: (state, archs_AxE) -> archs_AxF, the form that the net evaluates: a
    mixture adds to each arch the member that serves it best
  """

  init: Callable[[], Any]
  sample: Callable[[Any, PRNGKeyArray], Int[Array, 'P E']]
  log_prob: Callable[[Any], Any]
  update: Callable[[Any, Feedback], Any] = ignore_feedback
  rewards: bool = False
  gradients: bool = False
  together: bool = False
  rebuild: Callable[[Any, Measurements], Any] | None = None
  apply_density: Callable[..., Debiasing] | None = None
  route: Callable[[Any, Any], Any] = lambda state, archs_AxE: archs_AxE


def paths(sampler: Sampler) -> int:
  """Number of architectures in a step."""
  drawn = jax.eval_shape(
    lambda: sampler.sample(sampler.init(), jax.random.key(0))
  )
  return drawn.shape[0]


def counter(space: Space) -> Callable[[Int[Array, 'P E']], Array]:
  """Returns archs_PxE -> how often each arch of the space is among them.

  In a space too large to list it counts each op at each position instead. A
  mixture's last column, the member, does not count.
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
  """Returns archs_PxE -> row of each in `space.enumerate()`. O(P A E).

  The function can be jitted; it gives row 0 for archs that the space lacks.
  Raises ValueError where the space is too large to list.
  """
  all_AxE = jnp.asarray(space.enumerate())
  return lambda archs_PxE: (archs_PxE[:, None] == all_AxE).all(-1).argmax(-1)


def draw(
  key: PRNGKeyArray,
  logp_A: Float[Array, ' A'],
  archs_AxE: Int[Array, 'A E'],
  paths: int,
) -> Int[Array, 'P E']:
  """Draws `paths` independent architectures with probabilities exp(logp_A)."""
  indices_P = jax.random.categorical(key, logp_A, shape=(paths,))
  return jnp.take(archs_AxE, indices_P, axis=0)


def listed(
  archs_AxE: Int[np.ndarray, 'A E'],
  logp_A: Float[Array, ' A'],
  paths: int,
) -> Sampler:
  """Draws listed architectures, with probabilities that never change."""
  all_AxE = jnp.asarray(archs_AxE)
  return Sampler(
    init=tuple,
    sample=lambda state, key: draw(key, logp_A, all_AxE, paths),
    log_prob=lambda state: logp_A,
  )
