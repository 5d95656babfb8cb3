"""Mean cosine distance of each architecture's gradient to all others'.

Equation 5 of Roshtkhari et al. (CVPR Findings 2026): d(a, i) = 1 - cos(g_a,
g_i), per weight tensor, then the mean over tensors (that mean is inferred).
"""

import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Gradients by tensor, of one architecture at a time; iterable anew each call.
Gradients = Callable[[], Iterable[tuple[int, Mapping[str, Array]]]]


def mean_cosine_distance(
  gradients: Gradients,
  count: int,
  *,
  combine: str = 'mean',
  absent: str = 'zero',
  memory_bytes: float = 2e9,
) -> Float[np.ndarray, ' A']:
  """distance_A[a] = mean over i != a of d(a, i), in [0, 2].

  With unit vectors u the mean cosine over i != a is (<u_a, sum_i u_i> -
  <u_a, u_a>) / (A - 1): exact in O(A D) time and O(D) memory, without pairs.
  A tensor whose gradient is zero, as where an architecture lacks it, has
  distance 1 to everything under absent='zero'.

  Args:
    gradients: yields (index, gradient by tensor) for `count` architectures.
    count: A, at least 2.
    combine: 'mean' of the tensors' distances, or 'concatenate' them to one.
    absent: 'zero' as above; 'skip' takes the mean over the tensors that both
      architectures have. That has no linear form: O(A^2 D), and all
      gradients must fit in `memory_bytes`.
    memory_bytes: gradients are kept up to this size, and asked for a second
      time beyond it.

  Raises:
    ValueError: fewer than two architectures, or 'skip' beyond the memory.
    FloatingPointError: a gradient is not finite.
  """
  if count < 2:
    raise ValueError(f'a mean distance to others needs 2 archs, not {count}.')
  kept: list[tuple[int, dict[str, Array]]] = []
  total, keep = None, False
  for index, gradient in gradients():
    units = _units(gradient, combine)
    if total is None:
      total = jax.tree.map(jnp.zeros_like, units)
      size = sum(leaf.nbytes for leaf in total.values()) * count
      if absent == 'skip' and size > memory_bytes:
        raise ValueError(
          f'density.absent skip needs {size / 1e9:.1f} GB, more than '
          f'density.memory_gb {memory_bytes / 1e9:g}: choose fewer '
          'density.tensors or density.absent zero.'
        )
      keep = size <= memory_bytes
    total = _add(total, units)
    if keep:
      kept.append((index, units))
  if absent == 'skip':
    return _mean_distance_of_pairs(kept)
  if keep:
    again: Iterable[tuple[int, dict[str, Array]]] = kept
  else:
    again = ((i, _units(g, combine)) for i, g in gradients())
  cosine = {i: _mean_cosine(units, total, count) for i, units in again}
  distance_A = 1 - np.array([cosine[i] for i in range(count)], np.float64)
  if not np.isfinite(distance_A).all():
    raise FloatingPointError(
      f'the gradient of architecture {int(np.argmin(np.isfinite(distance_A)))}'
      ' of the enumeration is not finite.'
    )
  return distance_A


@functools.partial(jax.jit, static_argnums=1)
def _units(gradient: Mapping[str, Array], combine: str) -> dict[str, Array]:
  """Flat unit vectors; a zero gradient stays zero."""
  flat = {name: jnp.ravel(leaf) for name, leaf in gradient.items()}
  if combine == 'concatenate':
    flat = {'all': jnp.concatenate(list(flat.values()))}

  def unit(g_D):
    # By the largest entry first: squares of tiny gradients underflow.
    largest = jnp.max(jnp.abs(g_D))
    g_D = g_D / jnp.where(largest == 0, 1, largest)
    norm = jnp.linalg.norm(g_D)
    return g_D / jnp.where(norm == 0, 1, norm)

  return {name: unit(g_D) for name, g_D in flat.items()}


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: dict[str, Array], units: dict[str, Array]) -> dict[str, Array]:
  return jax.tree.map(jnp.add, total, units)


@functools.partial(jax.jit, static_argnums=2)
def _mean_cosine(
  units: dict[str, Array], total: dict[str, Array], count: int
) -> Float[Array, '']:
  """Over the other architectures, then over tensors."""
  return jnp.mean(
    jnp.stack(
      [
        (jnp.vdot(u, total[name]) - jnp.vdot(u, u)) / (count - 1)
        for name, u in units.items()
      ]
    )
  )


def _mean_distance_of_pairs(
  kept: list[tuple[int, dict[str, Array]]],
) -> Float[np.ndarray, ' A']:
  """Mean over the tensors of both; 1 where two share no tensor."""
  rows = [units for _, units in sorted(kept, key=lambda pair: pair[0])]
  count = len(rows)
  distance_AxA = np.zeros((count, count))
  tensors_AxA = np.zeros((count, count))
  for name in rows[0]:
    unit_AxD = jnp.stack([row[name] for row in rows])
    has_A = np.asarray(jnp.any(unit_AxD != 0, axis=1))
    both_AxA = np.outer(has_A, has_A)
    distance_AxA += both_AxA * (1 - np.asarray(unit_AxD @ unit_AxD.T))
    tensors_AxA += both_AxA
  mean_AxA = np.where(
    tensors_AxA > 0, distance_AxA / np.maximum(tensors_AxA, 1), 1
  )
  np.fill_diagonal(mean_AxA, 0)
  return mean_AxA.sum(axis=1) / (count - 1)
