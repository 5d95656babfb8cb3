"""Densities from gradients that training has computed anyway.

The online estimate of Roshtkhari et al. (CVPR Findings 2026) "from density
prototypes found by clustering" for spaces too large to list. The name and the
clustering are stated; all else here is inferred.

Every trained architecture's gradient, restricted to tensors that all of them
use, is clustered by online spherical k-means. Gradients of single batches are
mostly noise, which only an average over visits removes: so an architecture
stays in the cluster of its first visit, and its density is that of the
cluster's centroid. The archive remembers which architectures were visited
last, each once. Where hardly any is seen twice, as in 13^21, only the members
of a cluster average each other's noise: nobody has shown yet that this is
enough.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas.density.distances import HIGHEST
from jaxnas.density.estimators import SMALLEST_DISTANCE
from jaxnas.density.features import unit_gradients

# Architectures that the archive remembers.
ARCHIVE = 4096

# Weights move: a centroid forgets what lies further back than 1 / this.
SMALLEST_RATE = 0.05


class Prototypes(NamedTuple):
  """Arrays only: a checkpoint holds them, and a jitted step updates them.

  Made by `init`; K * D floats is what they weigh.
  """

  means_KxD: Any
  """Of each cluster's unit gradients; its direction is the centroid."""
  gram_KxK: Any
  """Inner products of the means, kept so that a step needs no K * K * D."""
  updates_K: Any
  """How many gradients each cluster has taken, int32."""
  archs_VxE: Any
  """Visited, int32; -1 where the archive has room."""
  cluster_V: Any
  """Of each one, int32."""
  visit_V: Any
  """Number of the last visit, int32; 0 where the archive has room."""


def init(
  prototypes: int, dimension: int, positions: int, *, archive: int = ARCHIVE
) -> Prototypes:
  """K empty prototypes of D-dimensional gradients of archs of E positions."""
  return Prototypes(
    means_KxD=jnp.zeros((prototypes, dimension), jnp.float32),
    gram_KxK=jnp.zeros((prototypes, prototypes), jnp.float32),
    updates_K=jnp.zeros(prototypes, jnp.int32),
    archs_VxE=jnp.full((archive, positions), -1, jnp.int32),
    cluster_V=jnp.zeros(archive, jnp.int32),
    visit_V=jnp.zeros(archive, jnp.int32),
  )


def point(gradient: Mapping[str, Array]) -> Float[Array, ' D']:
  """Tensors normalised one by one and concatenated, as one unit vector.

  The cosine of two points is the mean over tensors of theirs.
  """
  units = list(unit_gradients(gradient, 'mean').values())
  return jnp.concatenate(units) / jnp.sqrt(len(units))


def update(
  state: Prototypes, arch_E: Int[Array, ' E'], point_D: Float[Array, ' D']
) -> Prototypes:
  """One step of spherical k-means, and the visit noted. O(K D + V E).

  On its first visit an architecture opens an empty cluster, or joins the one
  of the nearest centroid. The mean moves towards the gradient by 1/n of the
  way, n the cluster's gradients so far, and never by less than
  `SMALLEST_RATE`.
  """
  known_V = (state.archs_VxE == arch_E).all(axis=1)
  known = known_V.any()
  # Room first, whose visit is 0, then the oldest.
  slot = jnp.where(known, known_V.argmax(), state.visit_V.argmin())

  products_K = jnp.matmul(state.means_KxD, point_D, precision=HIGHEST)
  cosines_K = products_K / lengths(state)
  joined = jnp.argmax(jnp.where(state.updates_K == 0, jnp.inf, cosines_K))
  k = jnp.where(known, state.cluster_V[slot], joined)
  updates_K = state.updates_K.at[k].add(1)
  rate = jnp.maximum(1 / updates_K[k], SMALLEST_RATE)
  old_D = state.means_KxD[k]
  gram_K = (1 - rate) * state.gram_KxK[k] + rate * products_K
  gram_K = gram_K.at[k].set(
    (1 - rate) * gram_K[k]
    + rate * (1 - rate) * products_K[k]
    + rate**2 * jnp.vdot(point_D, point_D, precision=HIGHEST)
  )
  return Prototypes(
    means_KxD=state.means_KxD.at[k].set(old_D + rate * (point_D - old_D)),
    gram_KxK=state.gram_KxK.at[k].set(gram_K).at[:, k].set(gram_K),
    updates_K=updates_K,
    archs_VxE=state.archs_VxE.at[slot].set(arch_E),
    cluster_V=state.cluster_V.at[slot].set(k),
    visit_V=state.visit_V.at[slot].set(state.visit_V.max() + 1),
  )


def lengths(state: Prototypes) -> Float[Array, ' K']:
  """Of the means; 1 where that is zero."""
  squares_K = jnp.diag(state.gram_KxK)
  return jnp.sqrt(jnp.where(squares_K > 0, squares_K, 1))


def distances(state: Prototypes) -> Float[Array, ' V']:
  """distance_v = sum_k (n_k / n) (1 - cos(c_v, c_k)).

  c_v is the centroid of the architecture's own cluster; n_k counts the
  archive's architectures in cluster k, v itself left out of n_k and n. With a
  prototype for every architecture this is the mean distance to all others.
  O(K^2 + V).
  """
  visited_V = (state.visit_V > 0).astype(jnp.float32)
  count_K = jnp.zeros(len(state.updates_K)).at[state.cluster_V].add(visited_V)
  lengths_K = lengths(state)
  distance_KxK = 1 - state.gram_KxK / (lengths_K[:, None] * lengths_K)
  distance_KxK *= 1 - jnp.eye(len(count_K))
  others = jnp.maximum(count_K.sum() - 1, 1)
  distance_K = distance_KxK @ count_K / others
  return distance_K[state.cluster_V]


def nearest(
  state: Prototypes, archs_MxE: Int[Array, 'M E']
) -> Float[Array, ' M']:
  """Densities of any architectures, from their neighbours.

  The inverse mean distance of the visited ones at the least Hamming distance;
  of an architecture visited itself, its own. All alike before the first
  visit. O(M V E).
  """
  differ_MxV = (archs_MxE[:, None] != state.archs_VxE).sum(axis=-1)
  visited_V = state.visit_V > 0
  differ_MxV = jnp.where(visited_V, differ_MxV, archs_MxE.shape[1] + 1)
  nearest_MxV = visited_V & (differ_MxV == differ_MxV.min(axis=1)[:, None])
  number_M = nearest_MxV.sum(axis=1)
  mean_M = (nearest_MxV * distances(state)).sum(axis=1) / jnp.maximum(
    number_M, 1
  )
  return inverse_of(jnp.where(number_M > 0, mean_M, 1))


def linear(
  state: Prototypes, archs_MxE: Int[Array, 'M E'], *, ops: int
) -> Float[Array, ' M']:
  """Densities of any architectures, fitted to all that were visited.

  The inverse of what ridge regression of the visited ones' distances on which
  ops they have gives. All alike before the first visit. With F ops over all
  positions, O(V F^2 + F^3).

  Args:
    state: of the prototypes.
    archs_MxE: visited or not.
    ops: at most so many ops at a position.
  """

  def encode(archs_NxE):
    return jax.nn.one_hot(archs_NxE, ops).reshape(len(archs_NxE), -1)

  weight_V = (state.visit_V > 0).astype(jnp.float32)
  number = jnp.maximum(weight_V.sum(), 1)
  distance_V = distances(state)
  mean = jnp.where(weight_V.any(), weight_V @ distance_V / number, 1)
  x_VxF = encode(state.archs_VxE)
  gram_FxF = x_VxF.T @ x_VxF + jnp.eye(x_VxF.shape[1])
  slope_F = jnp.linalg.solve(gram_FxF, x_VxF.T @ (distance_V - mean))
  return inverse_of(mean + encode(archs_MxE) @ slope_F)


def inverse_of(distance_M: Float[Array, ' M']) -> Float[Array, ' M']:
  return 1 / jnp.maximum(distance_M, SMALLEST_DISTANCE)
