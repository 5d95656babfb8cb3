"""A balanced mixture of supernets: each architecture gets one as its member.

Roshtkhari et al., "Balanced Mixture of SuperNets for Learning the CNN Pooling
Architecture", AutoML 2023. The softmax, the moving average of 0.9, the
balancing until KL < 1e-4 and the temperatures of 1 to 100 are stated. Inferred:
averages start from 0, and t begins to rise after the warm-up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Feedback, Sampler, index_of
from jaxnas.samplers.base import paths as sampler_paths
from jaxnas.samplers.uniform import uniform
from jaxnas.spaces import Space

DECAY = 0.9
FIRST_T, LAST_T = 1.0, 100.0
LARGEST_KL = 1e-4
# Balancing needs a few iterations; this ends it where no balance exists.
MOST_ITERATIONS = 1000


class MixtureState(NamedTuple):
  """State of the sampler of architectures, and of the routes to members."""

  archs: Any
  """State of the sampler of architectures."""
  w_AxM: Float[Array, 'A M']
  """Moving averages of validation accuracy, by architecture and member."""
  t: Float[Array, '']
  """Inverse temperature, which multiplies the averages."""
  trained: Int[Array, '']
  """Number of architectures trained so far, P a step."""


def proposal(space: Space, *, paths: int = 1) -> Sampler:
  """Builds the sampler of a mixture's architectures, before debiasing.

  Raises ValueError where the space is too large to list.
  """
  check(space)
  return uniform(space, paths=paths)


def check(space: Space) -> None:
  """Raises ValueError where the space is too large to list."""
  if not space.enumerable:
    raise ValueError(
      'sampler mixture keeps averages of every architecture; '
      f'{space.name} has {space.size:.2g}, too many to list. Use another '
      'sampler.'
    )


def mixture(
  archs: Sampler,
  space: Space,
  *,
  members: int,
  warmup_steps: int,
  steps: int,
) -> Sampler:
  """Gives each architecture of a sampler a member drawn from `route`.

  Its archs have E + 1 columns, the last one the member, as
  `supernets.Mixture` takes them. W[a, m] <- 0.9 W[a, m] + 0.1 reward where
  member m trained a and the step measured a reward. t is 1 in the warm-up, then
  rises linearly to 100 after the last step. The sampler of architectures
  receives the gradient of the member alone.

  A step costs O(A (E P + M)), the part A M once for every iteration of
  balancing.

  Args:
    archs: sampler of architectures: `uniform` in the paper, maybe debiased.
    space: one that can be listed; the state has A * M numbers.
    members: M, number of supernets.
    warmup_steps: steps before t rises.
    steps: in the whole run, warm-up included.

  Raises ValueError where the space is too large to list, or no step follows
  the warm-up.

  >>> from jaxnas import spaces
  >>> space = spaces.get('pooling')
  >>> sampler = mixture(
  ...   uniform(space), space, members=2, warmup_steps=0, steps=10
  ... )
  >>> sampler.sample(sampler.init(), jax.random.key(0)).shape
  (1, 10)
  >>> print(route(sampler.init())[0])
  [0.5 0.5]
  """
  check(space)
  if members < 1:
    raise ValueError(
      f'members of sampler mixture is {members}; it must be 1 or more.'
    )
  if not 0 <= warmup_steps < steps:
    raise ValueError(
      f'sampler mixture has {warmup_steps} steps of warm-up of {steps}; it '
      'needs at least one more.'
    )
  index, each, rebuild = index_of(space), sampler_paths(archs), archs.rebuild

  def init():
    return MixtureState(
      archs=archs.init(),
      w_AxM=jnp.zeros((space.size, members), jnp.float32),
      t=jnp.full((), FIRST_T, jnp.float32),
      trained=jnp.zeros((), jnp.int32),
    )

  def sample(state, key):
    arch_key, member_key = jax.random.split(key)
    archs_PxE = archs.sample(state.archs, arch_key)
    logp_AxM = _log_route(state)
    member_P = jax.random.categorical(
      member_key, logp_AxM[index(archs_PxE)]
    ).astype(jnp.int32)
    return jnp.concatenate([archs_PxE, member_P[:, None]], axis=1)

  def update(state, feedback: Feedback):
    arch_E, m = feedback.arch_E[:-1], feedback.arch_E[-1]
    a = index(arch_E[None])[0]
    old = state.w_AxM[a, m]
    moved = DECAY * old + (1 - DECAY) * feedback.reward
    trained = state.trained + 1
    done = (trained // each - warmup_steps) / (steps - warmup_steps)
    member_gradient = jax.tree.map(lambda leaf: leaf[m], feedback.gradient)
    return MixtureState(
      archs=archs.update(
        state.archs, Feedback(arch_E, member_gradient, feedback.reward)
      ),
      w_AxM=state.w_AxM.at[a, m].set(
        jnp.where(jnp.isnan(feedback.reward), old, moved)
      ),
      t=FIRST_T + (LAST_T - FIRST_T) * jnp.clip(done, 0, 1),
      trained=trained,
    )

  def apply_density(state, evidence, weigh):
    assert archs.apply_density is not None
    inside = archs.apply_density(state.archs, evidence, weigh)
    return inside._replace(state=state._replace(archs=inside.state))

  def with_best_member(state, archs_AxE):
    member_A = np.asarray(route(state)).argmax(axis=1)[space.index(archs_AxE)]
    return np.column_stack([archs_AxE, member_A]).astype(np.int32)

  return Sampler(
    init,
    sample,
    lambda state: archs.log_prob(state.archs),
    update,
    rewards=True,
    gradients=archs.gradients,
    rebuild=rebuild
    and (
      lambda state, measurements: state._replace(
        archs=rebuild(state.archs, measurements)
      )
    ),
    apply_density=archs.apply_density and apply_density,
    route=with_best_member,
  )


def archs_state(state: Any) -> Any:
  """State of the sampler of architectures, inside a mixture or on its own."""
  return state.archs if isinstance(state, MixtureState) else state


def route(state: MixtureState) -> Float[Array, 'A M']:
  """P(m|a): softmax of W t, balanced; rows in the order of `space.enumerate`.

  Sinkhorn's iteration scales columns to share the architectures equally, and
  rows to sum to one, until the KL divergence of the columns' shares from
  equal ones is below 1e-4. Rows then sum to one, columns to A/M within about
  a percent. The best member of an architecture is the argmax of its row.
  """
  return jnp.exp(_log_route(state))


def _log_route(state: MixtureState) -> Float[Array, 'A M']:
  # Rows are normalised last, so that one scale for each column suffices. All
  # is in logarithms, because exp(100 W) overflows float32.
  logits_AxM = state.w_AxM * state.t
  count, members = logits_AxM.shape

  def excess_M(scale_M):
    """Log-ratio of each column's share to an equal share."""
    logp_AxM = jax.nn.log_softmax(logits_AxM + scale_M, axis=1)
    log_share_M = jax.nn.logsumexp(logp_AxM, axis=0) - jnp.log(count)
    return log_share_M + jnp.log(members)

  def unbalanced(carry):
    iteration, _, excess_M = carry
    kl = (jnp.exp(excess_M) / members * excess_M).sum()
    return (kl >= LARGEST_KL) & (iteration < MOST_ITERATIONS)

  def balance(carry):
    iteration, scale_M, of_columns_M = carry
    scale_M = scale_M - of_columns_M
    return iteration + 1, scale_M, excess_M(scale_M)

  start_M = jnp.zeros(members, jnp.float32)
  _, scale_M, _ = jax.lax.while_loop(
    unbalanced, balance, (0, start_M, excess_M(start_M))
  )
  return jax.nn.log_softmax(logits_AxM + scale_M, axis=1)
