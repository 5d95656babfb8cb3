"""Novelty sampling: architectures far from recent ones are drawn more."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas.samplers.base import Feedback, Sampler, draw
from jaxnas.samplers.uniform import uniform
from jaxnas.spaces import Space

# Number of visits that the ring holds. Weighing all architectures in each step
# costs A V E: with 100 visits, 6,561 architectures take about 3 ms on one CPU
# core. It also is fewer than ten visits to every architecture, after which the
# smallest space, of 36, would have nothing novel left.
ARCHIVE_LISTED = 100
ARCHIVE = 4096


class NoveltyState(NamedTuple):
  """Ring of the architectures trained last, one entry a visit."""

  archs_VxE: Int[Array, 'V E']
  """Archs visited; -1 in entries not used yet."""
  slot: Int[Array, '']
  """Index of the entry that the next visit overwrites."""


def novelty(
  space: Space,
  *,
  paths: int = 1,
  archive: int | None = None,
  nearest: int = 10,
  candidates: int = 64,
) -> Sampler:
  """Draws each of `paths` with probability proportional to its novelty.

  Zhang et al. (2020), and Sinha & Chen (2022) within an evolution. Second-hand:
  novelty is the mean Hamming distance to the 10 nearest in an archive, and
  architectures are drawn in proportion (the abstract of Zhang et al. trains the
  most novel one). Inferred: the archive holds the last visits, so that an
  architecture visited ten times in it has novelty 0 and waits; an archive of
  fewer than 10 averages over all it has; and where nothing is novel, as before
  the first visit, all architectures are equally likely. In a space that can't
  be listed each path takes one of `candidates` uniform draws by their novelty.
  O(A V E) a step, or O(P M V E) with M candidates; V E integers of state.

  Args:
    space: the search space.
    paths: P, independent of each other.
    archive: V, number of visits remembered; None: 100 where the space can be
      listed, else 4,096.
    nearest: number of nearest visits that novelty averages over.
    candidates: M, draws for each path where the space can't be listed.

  Raises ValueError where one of these is below 1.

  >>> from jaxnas import spaces
  >>> space = spaces.get('pooling')
  >>> sampler = novelty(space)
  >>> archs_AxE = jnp.asarray(space.enumerate())
  >>> feedback = Feedback(archs_AxE[0], {}, jnp.float32(jnp.nan))
  >>> state = sampler.update(sampler.init(), feedback)
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
  """Mean Hamming distance to the nearest visits; 0 where there are none.

  Args:
    archs_MxE: each is compared with the archive.
    archs_VxE: the archive; -1 in entries not used yet.
    nearest: number of visits to average over; all where there are fewer.
  """
  positions = archs_MxE.shape[1]
  distance_MxV = (archs_MxE[:, None] != archs_VxE).sum(axis=-1)
  number = jnp.minimum((archs_VxE[:, 0] >= 0).sum(), nearest)
  # Without sorting: a distance is the number of d from 0 up that it exceeds,
  # so that max(number - within d, 0) of the nearest exceed d. Entries not used
  # yet are at distance E.
  within_MxD = (distance_MxV[..., None] <= jnp.arange(positions)).sum(axis=1)
  total_M = jnp.maximum(number - within_MxD, 0).sum(axis=1)
  return total_M / jnp.maximum(number, 1)


def in_proportion(weight_M: Float[Array, ' M']) -> Float[Array, ' M']:
  """Logits of draws by weight; equal ones where all weights are zero."""
  return jnp.log(jnp.where((weight_M > 0).any(), weight_M, 1))
