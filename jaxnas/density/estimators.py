"""From distances between architectures to densities."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas import streams
from jaxnas.density import pairs, rows
from jaxnas.density.distances import cosine, unit
from jaxnas.density.streaming import at_least_two

# Identical gradients have distance 0 up to rounding; their density is finite.
SMALLEST_DISTANCE = 1e-6

# Densities that lie closer together, relative to them, are the same.
ROUNDING = 1e-9

# The median rule looks at the pairs of so many architectures at most.
MEDIAN_OF = 2000


def inverse_mean_distance(
  features_AxD: Float[np.ndarray, 'A D'] | Float[Array, 'A D'],
) -> Float[np.ndarray, ' A']:
  """Inverse mean cosine distance of each row to all other rows.

  alpha_a = 1 / (mean over i != a of 1 - cos(f_a, f_i)): equation 6 of
  Roshtkhari et al. (CVPR Findings 2026), stated; that a itself is left out of
  its mean follows the authors' published analysis. Exact in O(A D) time,
  reading the rows twice.

  Always finite: rows of one direction count as 1e-6 apart, so that alpha is
  at most 1e6; a zero row is 1 from every other, so that alpha is 1 where all
  are zero. Where all are alike alpha is constant: then a temperature changes
  nothing, and none can be solved for.

  >>> features_AxD = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> inverse_mean_distance(features_AxD).round(3).tolist()
  [2.0, 2.0, 1.0]
  """
  return inverse_of(rows.mean_cosine_distance(features_AxD))


def kde(
  features_AxD: Float[np.ndarray, 'A D'], bandwidth: float | None = None
) -> Float[np.ndarray, ' A']:
  """Kernel density of each row among all rows, itself included.

  alpha_a = (1 / A) sum_i exp(-|u_a - u_i|^2 / (2 h^2)) with unit vectors u,
  whose squared distance is 2 (1 - cos). Kernel and estimator are stated in
  the supplement of Roshtkhari et al. (CVPR Findings 2026), the bandwidth h is
  not, and the kernel is not normalised over R^D, where A is tiny against D
  (inferred). O(A^2 D) time; memory of a block of pairs besides the rows.

  Args:
    features_AxD: rows, of which only the direction counts.
    bandwidth: h; None: the median rule of `median_bandwidth`.

  >>> features_AxD = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> kde(features_AxD, bandwidth=1.0).round(3).tolist()
  [0.789, 0.789, 0.579]
  """
  units_AxD = jax.vmap(unit)(jnp.asarray(features_AxD, jnp.float32))
  features = {'f': np.asarray(units_AxD)}
  return kernel_density(cosine, lambda d: 2 * d, features, bandwidth)


def inverse_of(distance_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """alpha_A = 1 / distance_A, at most 1e6."""
  return 1 / np.maximum(distance_A, SMALLEST_DISTANCE)


def level(alpha_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """The same, exactly constant where they differ by rounding alone."""
  if np.ptp(alpha_A) <= ROUNDING * np.abs(alpha_A).max():
    return np.full_like(alpha_A, alpha_A[0])
  return alpha_A


def inverse_mean_of_pairs(
  distance: pairs.Distance,
  features: pairs.Features,
  *,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """As `inverse_mean_distance`, for any distance: O(A^2 D)."""
  count = len(next(iter(features.values())))
  at_least_two(count)
  return inverse_of(pairs.sums(distance, features, poll=poll) / (count - 1))


def kernel_density(
  distance: pairs.Distance,
  squared: Callable[[np.ndarray], np.ndarray],
  features: pairs.Features,
  bandwidth: float | None = None,
  *,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """As `kde`, for any distance.

  Args:
    distance: of a pair.
    squared: distances -> squared distances between points.
    features: by name, architectures along the first axis.
    bandwidth: as in `kde`.
    poll: called before each block of pairs; may raise.
  """
  if bandwidth is None:
    bandwidth = median_bandwidth(distance, squared, features, poll=poll)
  scale = 2 * bandwidth**2
  count = len(next(iter(features.values())))

  def kernel(distance_BxC):
    return np.exp(-squared(distance_BxC) / scale)

  return pairs.sums(distance, features, kernel, poll=poll) / count


def median_bandwidth(
  distance: pairs.Distance,
  squared: Callable[[np.ndarray], np.ndarray],
  features: pairs.Features,
  *,
  poll: Callable[[], None] = lambda: None,
) -> float:
  """Median distance between two points (inferred); 1 where that is nothing.

  Of all pairs of up to 2,000 architectures, drawn with a fixed seed where
  there are more.
  """
  count = len(next(iter(features.values())))
  if count > MEDIAN_OF:
    few = streams.rng(0, 'median rule').choice(count, MEDIAN_OF, replace=False)
    few.sort()
    features = {name: f[few] for name, f in features.items()}
  distance_MxM = pairs.matrix(distance, features, poll=poll)
  upper = distance_MxM[np.triu_indices(len(distance_MxM), k=1)]
  median = np.median(squared(np.maximum(upper, 0)))
  nothing = squared(np.array([SMALLEST_DISTANCE]))
  return float(np.sqrt(median)) if median > nothing[0] else 1.0
