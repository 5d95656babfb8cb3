"""Estimators turn distances between architectures into densities."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.density import pairs
from jaxnas.density.distances import cosine, cosine_of_both, unit
from jaxnas.density.streaming import (
  at_least_two,
  in_memory,
  mean_cosine_distance,
)
from jaxnas.runtime import rng

# Identical gradients have distance 0 up to rounding; their density is finite.
# Mean distances resolve 1e-12, those of pairs, 1 - cos in float32, 1e-6.
SMALLEST_MEAN = 1e-12
SMALLEST_DISTANCE = 1e-6

# Below this, rounding is more than 1% of a pair's 1 - cos.
RESOLVED = 1e-5

# Densities that lie closer together, relative to their size, are the same.
ROUNDING = 1e-9

# The median rule looks at the pairs of at most so many architectures.
MEDIAN_OF = 2000


def inverse_mean_distance(
  features_AxD: Float[np.ndarray, 'A D'] | Float[Array, 'A D'],
) -> Float[np.ndarray, ' A']:
  """Inverse mean cosine distance of each row to all other rows.

  alpha_a = 1 / (mean over i != a of 1 - cos(f_a, f_i)): equation 6 of
  Roshtkhari et al. (CVPR Findings 2026), stated; that a itself is left out of
  its mean follows the authors' published analysis. Exact in O(A D) time,
  reading the rows twice: to 1e-4 of alpha where mean distances are 1e-8.

  Always finite: rows of one direction count as 1e-12 apart, so that alpha is
  at most 1e12; a zero row is 1 from every other, so that alpha is 1 where all
  are zero. Where all are alike alpha is constant: then a temperature changes
  nothing, and none can be solved for.

  >>> features_AxD = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> inverse_mean_distance(features_AxD).round(3).tolist()
  [2.0, 2.0, 1.0]
  """
  features = _unit_rows(features_AxD)
  return inverse_of(
    mean_cosine_distance(
      lambda: in_memory(features), len(features_AxD), memory_bytes=0.0
    )
  )


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
  features = _unit_rows(features_AxD)
  return kernel_density(cosine, lambda d: 2 * d, features, bandwidth)


def _unit_rows(features_AxD: np.ndarray | Array) -> dict[str, np.ndarray]:
  units_AxD = jax.vmap(unit)(jnp.asarray(features_AxD, jnp.float32))
  return {'f': np.asarray(units_AxD)}


def inverse_of(
  distance_A: Float[np.ndarray, ' A'], smallest: float = SMALLEST_MEAN
) -> Float[np.ndarray, ' A']:
  """Returns alpha_A = 1 / distance_A, at most 1 / smallest."""
  return 1 / np.maximum(distance_A, smallest)


def level(alpha_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """Makes densities exactly constant where they differ by rounding alone."""
  if np.ptp(alpha_A) <= ROUNDING * np.abs(alpha_A).max():
    return np.full_like(alpha_A, alpha_A[0])
  return alpha_A


def inverse_mean_of_pairs(
  distance: pairs.Distance,
  features: pairs.Features,
  *,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """Inverse mean distance to all others, for any distance: O(A^2 D).

  Warns of cosine distances that rounding blurs, those below 1e-5.
  """
  count = len(next(iter(features.values())))
  at_least_two(count)
  mean_A = pairs.sums(distance, features, poll=poll) / (count - 1)
  warn_of_rounding(distance, mean_A.min())
  return inverse_of(mean_A, SMALLEST_DISTANCE)


def warn_of_rounding(
  distance: pairs.Distance, value: float | np.floating
) -> None:
  """Warns where a distance that counts is small enough to be blurred."""
  if distance in (cosine, cosine_of_both) and value < RESOLVED:
    print(
      f'warning: cosine distances of pairs as small as {value:.1e} decide; '
      f'they are rounded to {SMALLEST_DISTANCE / 10:.0e}. density.estimator '
      'inverse_mean_distance with density.absent zero rounds no such distances.'
    )


def kernel_density(
  distance: pairs.Distance,
  squared: Callable[[np.ndarray], np.ndarray],
  features: pairs.Features,
  bandwidth: float | None = None,
  *,
  poll: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, ' A']:
  """Kernel density as of `kde`, for any distance: O(A^2 D).

  Warns of cosine distances that rounding blurs, where the kernel is as narrow.

  Args:
    distance: between two architectures' features.
    squared: distances -> squared distances between points.
    features: by name, architectures along the first axis.
    bandwidth: as in `kde`.
    poll: called before each block of pairs; may raise.
  """
  if bandwidth is None:
    bandwidth = median_bandwidth(distance, squared, features, poll=poll)
  else:
    warn_of_rounding(distance, bandwidth**2 / 2)
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

  It is the median of all pairs of up to 2,000 architectures, drawn with a
  fixed seed where there are more.
  """
  count = len(next(iter(features.values())))
  if count > MEDIAN_OF:
    few = rng.generator(0, 'median rule').choice(
      count, MEDIAN_OF, replace=False
    )
    few.sort()
    features = {name: f[few] for name, f in features.items()}
  distance_MxM = pairs.matrix(distance, features, poll=poll)
  upper = distance_MxM[np.triu_indices(len(distance_MxM), k=1)]
  upper = np.maximum(upper, 0)
  warn_of_rounding(distance, np.median(upper))
  median = np.median(squared(upper))
  nothing = squared(np.array([SMALLEST_DISTANCE]))
  return float(np.sqrt(median)) if median > nothing[0] else 1.0
