"""Divides images into those to train on and those to validate on."""

import numpy as np
from jaxtyping import Int

from jaxnas.runtime import words


def divide(
  labels_N: Int[np.ndarray, ' N'],
  fraction: float | None,
  holdout: int | None,
  rng: np.random.Generator,
) -> tuple[Int[np.ndarray, ' T'], Int[np.ndarray, ' V']]:
  """Returns disjoint indices of training and validation images, ascending.

  Args:
    labels_N: labels of the images to divide.
    fraction: share to train on; None where `holdout` is given.
    holdout: images of each class to validate on.
    rng: picks the images.

  Raises ValueError where the images can't be divided so.
  """
  if holdout is not None:
    return hold_out(labels_N, holdout, rng)
  if fraction is None or not 0 < fraction <= 1:
    raise ValueError(f'fraction is {fraction}; it must be in (0, 1].')
  order = rng.permutation(len(labels_N))
  cut = round(len(order) * fraction)
  return np.sort(order[:cut]), np.sort(order[cut:])


def hold_out(
  labels_N: Int[np.ndarray, ' N'], per_class: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, ' T'], Int[np.ndarray, ' V']]:
  """Returns disjoint indices of training and validation images, ascending.

  Args:
    labels_N: labels of the images, counted from 0.
    per_class: validation images of every class.
    rng: picks the images.

  Raises ValueError where a class has no image left to train on.

  >>> hold_out(np.array([0, 0, 1, 1]), 1, np.random.default_rng(0))[1]
  array([0, 2])
  """
  if per_class < 0:
    raise ValueError(f'{per_class} held out of a class; it must be 0 or more.')
  counts_K = np.bincount(labels_N)
  if (counts_K <= per_class).any():
    label = int((counts_K <= per_class).argmax())
    raise ValueError(
      f'class {label} has {words.counted(int(counts_K[label]), "image")}; with '
      f'{per_class} of every class held out, it needs one more to train on.'
    )
  order_N = rng.permutation(len(labels_N))
  grouped_N = order_N[np.argsort(labels_N[order_N], kind='stable')]
  starts_K = np.cumsum(counts_K) - counts_K
  held_out = np.zeros(len(labels_N), bool)
  held_out[grouped_N[np.add.outer(starts_K, np.arange(per_class))]] = True
  return np.flatnonzero(~held_out), np.flatnonzero(held_out)
