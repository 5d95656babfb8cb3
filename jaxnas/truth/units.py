"""Tells whether a table's accuracies are percentages or fractions."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

# Classes of the images of benchmarks.
CLASSES = {
  'digits': 10,
  'cifar10': 10,
  'cifar100': 100,
  'imagenet16_120': 120,
  'imagenet': 1000,
}
# A network that learnt nothing is at guessing, to this part of it.
_NEAR = 0.05


def fractions(
  values_AxS: Float[np.ndarray, 'A S'],
  images: str | None,
  name: Callable[[int], str],
) -> tuple[Float[np.ndarray, 'A S'], str]:
  """Returns accuracies as fractions, and the unit that they came in.

  They are percentages where one is above 1. Then none is as small as a
  fraction, but for what guesses among many classes: 0.83% of 120.

  Args:
    values_AxS: accuracies of each seed.
    images: the data set, where it is known.
    name: names the architecture of a row.

  Raises ValueError naming one that can't be meant.
  """
  wrong_AxS = ~((values_AxS >= 0) & (values_AxS <= 100))  # NaN is wrong, too
  if wrong_AxS.any():
    _refuse(values_AxS, wrong_AxS, name, 'it must be in [0, 1] or [0, 100]')
  guessing = 100 / CLASSES[images] if images in CLASSES else None
  above_AxS = values_AxS > 1
  if not above_AxS.any():
    best = float(values_AxS.max(initial=0))
    if guessing is not None and best < guessing / 200:
      raise ValueError(
        f'the best accuracy is {best:.2%}, below guessing among '
        f'{CLASSES[str(images)]} classes: give fractions or percentages.'
      )
    return values_AxS, 'fractions'
  small_AxS = (values_AxS > 0) & ~above_AxS
  if guessing is not None:
    small_AxS &= abs(values_AxS - guessing) > _NEAR * guessing
  if small_AxS.any():
    few = above_AxS.sum() < small_AxS.sum()
    _refuse(
      values_AxS,
      above_AxS if few else small_AxS,
      name,
      f'among {"fractions" if few else "percentages"}: give one unit for all',
    )
  return values_AxS / 100, 'percent'


def _refuse(
  values_AxS: np.ndarray,
  wrong_AxS: np.ndarray,
  name: Callable[[int], str],
  why: str,
) -> None:
  a, s = np.argwhere(wrong_AxS)[0].tolist()
  raise ValueError(f'{name(a)} has accuracy {values_AxS[a, s]}; {why}.')
