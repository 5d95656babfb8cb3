"""Checks that labels can be meant as they are."""

import numpy as np
from jaxtyping import Integer

from jaxnas.runtime import words

# Labels that a message lists.
_LISTED = 6


def check_several(where: str, train_N: Integer[np.ndarray, ' N']) -> None:
  """Raises ValueError where all training images are of one class."""
  if train_N.min() == train_N.max():
    raise ValueError(
      f'{where}: all training images are of class {train_N[0]}; there must be '
      'two classes at least, or nothing can be told apart.'
    )


def check_learnable(
  where: str,
  train_N: Integer[np.ndarray, ' N'],
  test_M: Integer[np.ndarray, ' M'],
) -> None:
  """Raises ValueError where test images are of a class not trained on."""
  if len(strangers := np.setdiff1d(test_M, train_N)):
    count = int(np.isin(test_M, strangers).sum())
    raise ValueError(
      f'{where}: {words.counted(count, "test image")} of class '
      f'{_listed(strangers)}, which no training image is of: take them out, '
      'or train on such images too.'
    )


def count(where: str, labels_N: Integer[np.ndarray, ' N']) -> int:
  """Returns the number of classes, where these labels are 0, 1, ... in turn.

  Raises ValueError with the remedy where they are others.
  """
  found_K = np.unique(labels_N)
  if (found_K != np.arange(len(found_K))).any():
    raise ValueError(
      f'{where} has {words.counted(len(found_K), "label")}, '
      f'{_listed(found_K)}; they must be 0 to {len(found_K) - 1}: save '
      'np.searchsorted(np.unique(y_train), y) of both parts instead.'
    )
  return len(found_K)


def _listed(labels: Integer[np.ndarray, ' K']) -> str:
  shown = [*map(str, labels.tolist())]
  if len(shown) > _LISTED:
    shown = [*shown[: _LISTED - 2], '...', shown[-1]]
  return ', '.join(shown)
