"""Density in PyTorch as the authors publish it, by the matrix of all pairs."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jaxnas.bench import density, torch_step
from jaxnas.density.estimators import inverse_of


def theirs(*, rows: int, columns: int, seed: int) -> Callable[[], float]:
  """Computes the same densities as ours, of features that lie on the device."""
  torch_step.use_pinned_cores()
  features_AxD = torch.as_tensor(
    density.features(rows, columns, seed), device=torch_step.best_device()
  )
  inverse_mean_distance(features_AxD[:64])
  return density.timed(lambda: inverse_mean_distance(features_AxD))


@torch.inference_mode()
def inverse_mean_distance(
  features_AxD: Float[np.ndarray, 'A D'] | Float[Tensor, 'A D'],
  *,
  rows: int = 1024,
) -> Float[np.ndarray, ' A']:
  """Inverse mean cosine distance of each row to all other rows: O(A^2 D).

  Args:
    features_AxD: on the device that is to compute.
    rows: of the matrix at a time.
  """
  u_AxD = F.normalize(torch.as_tensor(features_AxD), dim=1)
  count = len(u_AxD)
  means = []
  for start in range(0, count, rows):
    distance_RxA = 1 - u_AxD[start : start + rows] @ u_AxD.T
    # To itself: the diagonal of the whole matrix.
    itself_R = distance_RxA.diagonal(start)
    means.append((distance_RxA.sum(1) - itself_R) / (count - 1))
  return inverse_of(torch.cat(means).double().cpu().numpy())
