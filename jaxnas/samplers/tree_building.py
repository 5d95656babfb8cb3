"""Trees whose leaves are the architectures of a listed space, as arrays.

The space and the kind of tree fix the shapes of these arrays, so that a
rebuilt tree runs in the same compiled program.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Tree(NamedTuple):
  """N nodes besides the root; nodes that share a parent are siblings."""

  node_AxL: Int[Array, 'A L']
  """Node that the path of an arch passes at each level below the root.

  A path of fewer levels stays at its leaf.
  """
  parent_N: Int[Array, ' N']
  """Parents; N is the root. A node that no path uses is its own parent."""


def prefixes(archs_AxE: Int[np.ndarray, 'A E']) -> Tree:
  """Builds a level for each position, a branch for each op after a prefix."""
  most = int(archs_AxE.max()) + 1
  node_AxL = np.empty_like(archs_AxE)
  parents, count = [], 0
  node_A = np.full(len(archs_AxE), -1)
  for e, op_A in enumerate(archs_AxE.T):
    branches, branch_A = np.unique(
      node_A.astype(np.int64) * most + op_A, return_inverse=True
    )
    parents.append(branches // most)
    node_A = node_AxL[:, e] = branch_A + count
    count += len(branches)
  parent_N = np.concatenate(parents)
  return _tree(node_AxL, np.where(parent_N < 0, count, parent_N))


def halves(score_A: Float[np.ndarray, ' A']) -> Int[np.ndarray, 'M 2']:
  """Merges of a balanced tree over the ranking, split in halves.

  Its depth is the smallest possible, ceil(log2 A).

  Returns:
    The first two columns of a scipy linkage: row i holds the two children of
    node A + i, nodes below A are architectures, and the last node is the root.
  """
  count = len(score_A)
  order_A = np.argsort(score_A, kind='stable')
  merges_Mx2 = np.empty((count - 1, 2), np.int64)
  # Spans of the ranking below the inner nodes, the root first.
  spans = [(0, count)]
  for row in reversed(range(count - 1)):
    start, stop = spans[count - 2 - row]
    middle = (start + stop) // 2
    for side, span in enumerate(((start, middle), (middle, stop))):
      if span[1] - span[0] == 1:
        merges_Mx2[row, side] = order_A[span[0]]
      else:
        merges_Mx2[row, side] = 2 * count - 2 - len(spans)
        spans.append(span)
  return merges_Mx2


def from_merges(merges_Mx2: Int[np.ndarray, 'M 2'], levels: int) -> Tree:
  """Builds the binary tree of 2 A - 2 nodes of these merges, cut at `levels`.

  Deeper subtrees are flattened: all architectures below a node of the last
  level but one become its children.

  Args:
    merges_Mx2: merges in the form that `halves` returns.
    levels: L, at least 1.
  """
  count = len(merges_Mx2) + 1
  root = 2 * count - 2
  parent = np.arange(root + 1)
  depth = np.zeros(root + 1, np.int64)
  for node in range(root, count - 1, -1):
    keeper = node if depth[node] < levels else parent[node]
    children = merges_Mx2[node - count]
    parent[children] = keeper
    depth[children] = depth[keeper] + 1

  node_AxL = np.tile(np.arange(count)[:, None], levels)
  node_A = np.arange(count)
  for _ in range(levels - 1):
    node_A = parent[node_A]
    below_A = np.flatnonzero(node_A != root)
    node_AxL[below_A, depth[node_A[below_A]] - 1] = node_A[below_A]

  inner = np.arange(count, root)
  flattened = inner[depth[inner] == levels]
  parent[flattened] = flattened
  return _tree(node_AxL, parent[:root])


def log_paths(tree: Tree, logits_N: Float[Array, ' N']) -> Float[Array, ' A']:
  """Log-probabilities of walks that take branches by softmax among siblings.

  Costs O(N + A L).
  """
  node_AxL, parent_N = tree
  logits_N -= among_siblings(jax.ops.segment_max, logits_N, parent_N)
  logp_N = logits_N - jnp.log(
    among_siblings(jax.ops.segment_sum, jnp.exp(logits_N), parent_N)
  )
  # A path that stays at its leaf makes no more choices.
  moves_AxL = jnp.diff(node_AxL, axis=1, prepend=-1) != 0
  return jnp.where(moves_AxL, logp_N[node_AxL], 0).sum(axis=1)


def among_siblings(
  segment: Callable[..., Array], x_N: Array, parent_N: Int[Array, ' N']
) -> Array:
  """Reduces over each node and its siblings; every node gets the result."""
  return segment(x_N, parent_N, num_segments=len(parent_N) + 1)[parent_N]


def _tree(node_AxL, parent_N) -> Tree:
  return Tree(
    jnp.asarray(node_AxL, jnp.int32), jnp.asarray(parent_N, jnp.int32)
  )
