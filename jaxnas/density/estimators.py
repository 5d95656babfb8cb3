"""From distances between architectures to densities."""

import numpy as np
from jaxtyping import Float

from jaxnas.density.distances import mean_cosine_distance

# Identical gradients have distance 0 up to rounding; their density is finite.
SMALLEST_DISTANCE = 1e-6


def inverse_of(distance_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """alpha_A = 1 / distance_A, at most 1e6."""
  return 1 / np.maximum(distance_A, SMALLEST_DISTANCE)


def inverse_mean_distance(
  features_AxD: Float[np.ndarray, 'A D'],
) -> Float[np.ndarray, ' A']:
  """Inverse mean cosine distance of each row to all other rows.

  alpha_a = 1 / (mean over i != a of 1 - cos(f_a, f_i)): equation 6 of
  Roshtkhari et al. (CVPR Findings 2026); that a itself is left out of its
  mean follows the authors' published analysis. O(A D).

  >>> features_AxD = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> inverse_mean_distance(features_AxD).round(3).tolist()
  [2.0, 2.0, 1.0]
  """
  rows = [(i, {'f': f_D}) for i, f_D in enumerate(features_AxD)]
  return inverse_of(mean_cosine_distance(lambda: rows, len(rows)))
