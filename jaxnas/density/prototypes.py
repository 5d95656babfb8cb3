"""Densities from some architectures, and prototypes found by clustering.

The online estimate of Roshtkhari et al. (CVPR Findings 2026) "from density
prototypes found by clustering". The name and the clustering are stated; all
else here is inferred: gradients of M architectures on the same held-out
batches, since those of two batches are nearly orthogonal and hide what
architectures have in common; spherical k-means of them into K prototypes; and
for each prototype the share of the space that it stands for.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from jaxnas.density.estimate import polled
from jaxnas.density.streaming import in_memory

MOST_ITERATIONS = 100

# Architectures in a block of inner products.
ROWS = 64


def gram(
  features: Mapping[str, np.ndarray], poll: Callable[[], None] = lambda: None
) -> Float[np.ndarray, 'M M']:
  """Returns the mean over tensors of inner products, in O(M^2 D).

  One that lacks a tensor is like itself there all the same.

  Args:
    features: unit vectors by tensor, architectures along the first axis.
    poll: called before each block; may raise.
  """
  count = len(next(iter(features.values())))
  gram_MxM = np.zeros((count, count))
  for chunk in polled(in_memory(features, ROWS), poll):
    rows = chunk.indices_C
    gram_MxM[rows] = sum(
      np.asarray(f_CxD) @ np.asarray(features[name]).T
      for name, f_CxD in chunk.values.items()
    ) / len(features)
  np.fill_diagonal(gram_MxM, 1)
  return gram_MxM


def cluster(
  gram_MxM: Float[np.ndarray, 'M M'], prototypes: int, rng: np.random.Generator
) -> Int[np.ndarray, ' M']:
  """Returns the prototype of each architecture, by spherical k-means.

  It starts from architectures far from each other (k-means++), and needs inner
  products alone: O(M^2 K) an iteration. Where there are as many prototypes as
  architectures, each is its own.
  """
  count = len(gram_MxM)
  if prototypes >= count:
    return np.arange(count)
  starts = [int(rng.integers(count))]
  nearest_M = 1 - gram_MxM[starts[0]]
  while len(starts) < prototypes:
    chance_M = np.maximum(nearest_M, 1e-12)
    starts.append(int(rng.choice(count, p=chance_M / chance_M.sum())))
    nearest_M = np.minimum(nearest_M, 1 - gram_MxM[starts[-1]])
  cluster_M = gram_MxM[:, starts].argmax(axis=1)
  for _ in range(MOST_ITERATIONS):
    member_MxK = np.eye(prototypes)[cluster_M]
    sum_MxK = gram_MxM @ member_MxK
    length_K = np.sqrt((member_MxK * sum_MxK).sum(axis=0))
    cosine_MxK = np.where(length_K > 0, sum_MxK, -np.inf) / np.where(
      length_K > 0, length_K, 1
    )
    before_M, cluster_M = cluster_M, cosine_MxK.argmax(axis=1)
    if np.array_equal(before_M, cluster_M):
      break
  return cluster_M


def distances(
  gram_MxM: Float[np.ndarray, 'M M'],
  cluster_M: Int[np.ndarray, ' M'],
  share_M: Float[np.ndarray, ' M'],
) -> Float[np.ndarray, ' M']:
  """distance_a = sum_k w_k (1 - cos(u_a, c_k)).

  w_k is the share of the space that prototype k stands for, c_k its unit
  centroid, a itself left out. With a prototype for each architecture this is
  the mean distance to all, itself included. O(M^2 K).

  Args:
    gram_MxM: inner products of unit vectors u.
    cluster_M: the prototype of each, from `cluster`.
    share_M: the share of the space that each stands for; they sum to one.
  """
  part_MxK = np.eye(cluster_M.max() + 1)[cluster_M] * share_M[:, None]
  own_MxK = part_MxK * np.diag(gram_MxM)[:, None]
  product_MxK = gram_MxM @ part_MxK
  square_MxK = (part_MxK * product_MxK).sum(axis=0)
  square_MxK = square_MxK - part_MxK * (2 * product_MxK - own_MxK)
  length_MxK = np.sqrt(np.maximum(square_MxK, 0))
  # Of a prototype that is a alone, nothing is left: a is where it is.
  there_MxK = length_MxK > 1e-9
  cosine_MxK = np.where(there_MxK, product_MxK - own_MxK, 1) / np.where(
    there_MxK, length_MxK, 1
  )
  return (1 - np.minimum(cosine_MxK, 1)) @ part_MxK.sum(axis=0)
