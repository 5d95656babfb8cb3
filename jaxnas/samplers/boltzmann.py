"""Boltzmann exploration: good validation accuracies are drawn more often."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Feedback, Sampler, draw, index_of
from jaxnas.spaces import Space


class BoltzmannState(NamedTuple):
  """Moving averages of rewards, and how far the run has come."""

  rewards_A: Float[Array, ' A']
  """Moving averages; 0 for architectures that were never measured."""
  trained: Int[Array, '']
  """Number of architectures trained so far, `paths` a step."""


def boltzmann(
  space: Space,
  *,
  warmup_steps: int,
  steps: int,
  paths: int = 1,
  decay: float = 0.95,
  last_temperature: float = 0.01,
) -> Sampler:
  """Draws each of `paths` from P(a) = softmax_a(R(a) / T), independently.

  The Boltzmann baseline of Roshtkhari et al. (CVPR Findings 2026): R is the
  moving average (0.95) of the accuracy on one validation batch a step, and T
  falls linearly from 1 to 1/100 after the warm-up (stated). Inferred:
  R <- 0.95 R + 0.05 reward from R = 0, without a correction for that start;
  the first step after the warm-up has T = 1, the last one 1/100; and the
  warm-up draws from their own undebiased proposal, T = 1, rewards collected
  from step 0. That is uniform while all R are 0, and at T = 1 no two
  probabilities differ by more than a factor e. O(A) a draw, O(A E) an update.

  Args:
    space: one that can be listed.
    warmup_steps: steps before T falls.
    steps: in the whole run, warm-up included.
    paths: P, architectures in a step.
    decay: share of R that remains when a reward comes in.
    last_temperature: T in the last step and after it.

  Raises ValueError where the space can't be listed.

  >>> from jaxnas import spaces
  >>> sampler = boltzmann(spaces.get('pooling'), warmup_steps=0, steps=10)
  >>> rewards_A = jnp.zeros(36).at[3].set(0.05)
  >>> for trained in (0, 9):
  ...   state = BoltzmannState(rewards_A, jnp.int32(trained))
  ...   print(jnp.exp(sampler.log_prob(state))[2:4].round(3))
  [0.028 0.029]
  [0.005 0.809]
  """
  if not space.enumerable:
    raise ValueError(
      f'sampler boltzmann needs a space that can be listed; {space.name} has '
      f'{space.size:.2g} architectures: choose another sampler.'
    )
  if last_temperature <= 0:
    raise ValueError(
      f'sampler.last_temperature {last_temperature} must be above 0.'
    )
  all_AxE, index = jnp.asarray(space.enumerate()), index_of(space)

  def init():
    return BoltzmannState(
      jnp.zeros(len(all_AxE), jnp.float32), jnp.zeros((), jnp.int32)
    )

  def log_prob(state):
    since = state.trained // paths - warmup_steps
    done = jnp.clip(since / max(steps - warmup_steps - 1, 1), 0, 1)
    temperature = 1 - done * (1 - last_temperature)
    return jax.nn.log_softmax(state.rewards_A / temperature)

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  def update(state, feedback: Feedback):
    a = index(feedback.arch_E[None])[0]
    old = state.rewards_A[a]
    new = decay * old + (1 - decay) * feedback.reward
    return BoltzmannState(
      state.rewards_A.at[a].set(jnp.where(jnp.isnan(new), old, new)),
      state.trained + 1,
    )

  return Sampler(init, sample, log_prob, update, rewards=True)
