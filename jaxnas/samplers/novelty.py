"""Novelty-driven sampling: what is far from recent ones is drawn more."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Feedback, Sampler, draw
from jaxnas.samplers.uniform import uniform
from jaxnas.spaces import Space

# Visits that the ring holds. Where all architectures are weighed in each step
# that costs A V E: 100 keeps 6,561 of them at about 3 ms on one CPU core, and
# is short of the ten visits to every architecture at which the smallest space,
# of 36, would have nothing novel left.
ARCHIVE_LISTED = 100
ARCHIVE = 4096


class NoveltyState(NamedTuple):
  """A ring of the architectures trained last, each visit on its own."""

  archs_VxE: Int[Array, 'V E']
  """-1 where the ring has room."""
  slot: Int[Array, '']
  """Where the next one goes."""


def novelty(
  space: Space,
  *,
  paths: int = 1,
  archive: int | None = None,
  nearest: int = 10,
  candidates: int = 64,
) -> Sampler:
  """P(a) proportional to the novelty of a, for each of `paths`.

  Zhang et al. (2020), and Sinha & Chen (2022) within an evolution. Second-hand:
  novelty is the mean Hamming distance to the 10 nearest in an archive, drawn
  in proportion (the abstract of Zhang et al. has it that the most novel one is
  trained). Inferred: the archive holds what was trained last, each visit on
  its own, so that an architecture among them ten times has novelty 0 and
  waits; of fewer than 10 the mean is over those there are; and where nothing
  is novel, as before the first visit, all are alike. Where the space can't be
  listed each path takes one of `candidates` uniform draws by their novelty.
  O(A V E) a step, or O(P M V E) with M candidates; V E integers of state.

  Args:
    space: whose architectures.
    paths: P, independent of each other.
    archive: V, visits remembered; None: 100 where the space can be listed,
      else 4,096.
    nearest: of the archive, that novelty averages over.
    candidates: M, of each path, where the space can't be listed.

  Raises ValueError where one of these is below 1.

  >>> from jaxnas import spaces
  >>> space = spaces.get('pooling')
  >>> sampler = novelty(space)
  >>> archs_AxE = jnp.asarray(space.enumerate())
  >>> heard = Feedback(archs_AxE[0], {}, jnp.float32(jnp.nan))
  >>> state = sampler.update(sampler.init(), heard)
  >>> print(jnp.exp(sampler.log_prob(state))[jnp.array([0, 1, 35])].round(3))
  [0.    0.018 0.036]
  """
  if archive is None:
    archive = ARCHIVE_LISTED if space.enumerable else ARCHIVE
  for name, value in (
    ('archive', archive),
    ('nearest', nearest),
    ('candidates', candidates),
  ):
    if value < 1:
      raise ValueError(f'sampler.{name} {value} must be at least 1.')

  def init():
    return NoveltyState(
      jnp.full((archive, space.positions), -1, jnp.int32),
      jnp.zeros((), jnp.int32),
    )

  def update(state, feedback: Feedback):
    return NoveltyState(
      state.archs_VxE.at[state.slot].set(feedback.arch_E),
      (state.slot + 1) % archive,
    )

  if not space.enumerable:
    proposal = uniform(space, paths=candidates)

    def choose(state, key):
      draw_key, choice_key = jax.random.split(key)
      archs_MxE = proposal.sample(proposal.init(), draw_key)
      novelty_M = mean_distance(archs_MxE, state.archs_VxE, nearest)
      chosen = jax.random.categorical(choice_key, in_proportion(novelty_M))
      return archs_MxE[chosen]

    def sample_chosen(state, key):
      # One path after the other: M V distances of each stay in the cache.
      return jax.lax.map(
        lambda one: choose(state, one), jax.random.split(key, paths)
      )

    return Sampler(init, sample_chosen, lambda state: None, update)

  all_AxE = jnp.asarray(space.enumerate())

  def log_prob(state):
    novelty_A = mean_distance(all_AxE, state.archs_VxE, nearest)
    return jax.nn.log_softmax(in_proportion(novelty_A))

  def sample(state, key):
    return draw(key, log_prob(state), all_AxE, paths)

  return Sampler(init, sample, log_prob, update)


def mean_distance(
  archs_MxE: Int[Array, 'M E'], archs_VxE: Int[Array, 'V E'], nearest: int
) -> Float[Array, ' M']:
  """Positions that differ, on average over the nearest; 0 where V is empty.

  Args:
    archs_MxE: of which each is compared with the archive.
    archs_VxE: the archive, -1 where it has room.
    nearest: how many of it, or all where it has fewer.
  """
  positions = archs_MxE.shape[1]
  distance_MxV = (archs_MxE[:, None] != archs_VxE).sum(axis=-1)
  number = jnp.minimum((archs_VxE[:, 0] >= 0).sum(), nearest)
  # Without sorting: a distance is the number of d from 0 up that it exceeds,
  # and so of the nearest max(number - within d, 0) exceed d. Room is E away.
  within_MxD = (distance_MxV[..., None] <= jnp.arange(positions)).sum(axis=1)
  total_M = jnp.maximum(number - within_MxD, 0).sum(axis=1)
  return total_M / jnp.maximum(number, 1)


def in_proportion(weight_M: Float[Array, ' M']) -> Float[Array, ' M']:
  """Logits of draws by weight; all alike where all weights are zero."""
  return jnp.log(jnp.where((weight_M > 0).any(), weight_M, 1))
