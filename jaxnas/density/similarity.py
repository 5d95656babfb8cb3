"""Mean similarity of architectures to those that any sampling draws.

With unit gradients this is the effective update of an architecture a under
probabilities P: how far a step moves along a's own gradient on average,
e_a(P) = sum_i P_i s(a, i), where s = 1 - distance is the mean cosine of the
tensors.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.density.distances import HIGHEST
from jaxnas.density.estimate import polled
from jaxnas.density.streaming import in_memory
from jaxnas.runtime.devices import Chunk

# Numbers in a block of features, of 4 bytes each.
BLOCK = 4_000_000


class Similarity(NamedTuple):
  """Says how similar each architecture is to those that are drawn."""

  under: Callable[[Float[np.ndarray, ' A']], Float[np.ndarray, ' A']]
  """P -> e_A, the mean similarity to architectures drawn from P."""
  rounding: float = 1e-13
  """Size of the errors in a mean similarity."""


def of_matrix(similarity_AxA: Float[np.ndarray, 'A A']) -> Similarity:
  """Reads them off the similarities of every two: O(A^2)."""
  return Similarity(lambda p_A: similarity_AxA @ p_A)


def of_distances(distance_P: Float[np.ndarray, ' P'], archs: int) -> Similarity:
  """Returns similarities from distances in scipy's condensed form.

  >>> of_distances(np.array([0.25]), 2).under(np.array([0.5, 0.5])).tolist()
  [0.875, 0.875]
  """
  similarity_AxA = np.ones((archs, archs))
  rows, columns = np.triu_indices(archs, 1)
  similarity_AxA[rows, columns] = similarity_AxA[columns, rows] = (
    1 - distance_P.astype(np.float64)
  )
  return of_matrix(similarity_AxA)


def of_vectors(
  features: Mapping[str, np.ndarray],
  poll: Callable[[], None] = lambda: None,
) -> Similarity:
  """Returns similarities of unit vectors, without any pair: O(A D).

  Vectors are read in blocks, from wherever the arrays lie, and thrice at once.
  Each is counted from the mean of all: what is left is small where gradients
  are much alike, and float32 keeps more of it.

  Args:
    features: unit vectors by tensor, architectures along the first axis; zero
      where an architecture lacks the tensor.
    poll: called before each block; may raise.
  """
  count = len(next(iter(features.values())))
  floats = sum(f[0].size for f in features.values())

  def blocks() -> Iterator[Chunk]:
    return polled(in_memory(features, max(BLOCK // floats, 1)), poll)

  def weighted(p_A: np.ndarray, origin: Any) -> Any:
    """Returns the mean of the vectors under P, counted from an origin."""
    total = None
    for chunk in blocks():
      p_C = np.where(chunk.real_C, p_A[chunk.indices_C], 0)
      total = _add_weighted(total, jnp.asarray(p_C), chunk.values, origin)
    return total

  def each(of, *given):
    """Returns a number of each architecture, from those of a block."""
    out_A = np.empty(count)
    for chunk in blocks():
      of_C = np.asarray(of(chunk.values, *given))
      out_A[chunk.indices_C[chunk.real_C]] = of_C[chunk.real_C]
    return out_A

  mean = weighted(np.full(count, 1 / count), None)
  base_A, lacking_A = each(_products, mean, mean), each(_lacking)
  square = _inner(mean, mean)

  def under(p_A):
    moved = weighted(p_A, mean)
    # What all of them have in common with the mean.
    shared = _inner(mean, moved) + square
    # One that lacks a tensor is like itself there all the same.
    return base_A + each(_products, mean, moved) + shared + p_A * lacking_A

  return Similarity(under, rounding=1e-8)


@jax.jit
def _add_weighted(total: Any, p_C: Array, values: Any, origin: Any) -> Any:
  if origin is not None:
    values = jax.tree.map(lambda u_CxD, o_D: u_CxD - o_D, values, origin)
  sums = jax.tree.map(
    lambda u_CxD: jnp.tensordot(
      p_C.astype(u_CxD.dtype), u_CxD, axes=1, precision=HIGHEST
    ),
    values,
  )
  return sums if total is None else jax.tree.map(jnp.add, total, sums)


@jax.jit
def _products(values: Any, mean: Any, direction: Any) -> Float[Array, ' C']:
  products = [
    jnp.matmul(u_CxD - mean[name], direction[name], precision=HIGHEST)
    for name, u_CxD in values.items()
  ]
  return functools.reduce(jnp.add, products) / len(products)


@jax.jit
def _lacking(values: Any) -> Float[Array, ' C']:
  """Returns which share of the tensors an architecture lacks."""
  return jnp.stack(
    [(u_CxD == 0).all(axis=1) for u_CxD in values.values()]
  ).mean(axis=0)


def _inner(f: Mapping[str, Any], g: Mapping[str, Any]) -> float:
  products = [
    np.vdot(np.asarray(f_D, np.float64), np.asarray(g[name], np.float64))
    for name, f_D in f.items()
  ]
  return float(np.mean(products))
