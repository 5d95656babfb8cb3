"""Measures of distance: gradients, representations, outputs, encodings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxnas.density import distances
from jaxnas.density.features import Activations, Gradients, Outputs, Readout
from jaxnas.density.tensors import select


class Measure(NamedTuple):
  """The features of architectures, and a distance between two of them."""

  read: Readout | None
  """Reads features from the supernet; None: the arch itself is compared."""
  distance: Callable[[Any, Any], Any]
  """Between two architectures' features."""
  squared: Callable[[np.ndarray], np.ndarray]
  """Distances -> squared distances between points, for a kernel."""
  linear: bool
  """True where the distance is a mean of 1 - cos between unit vectors; its
  mean over architectures then takes linear time."""


def gradient(
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  *,
  tensors: str | None = None,
  combine: str = 'mean',
  absent: str = 'zero',
) -> Measure:
  """Cosine distance of gradients (eq. 5).

  Args:
    net: a supernet.
    params: its shared weights, or their shapes.
    archs_AxE: the architectures compared.
    tensors: a set of them, as in `tensors.select`; None: the default.
    combine: 'mean' of the tensors' distances, or 'concatenate' them to one.
    absent: a tensor that one of two lacks has distance 1 ('zero'), or is left
      out of their mean ('skip'), which needs pairs.

  Raises ValueError where `tensors` matches nothing.
  """
  names = select(net, params, archs_AxE, tensors)
  skips = absent == 'skip'
  return Measure(
    Gradients(names, combine),
    distances.cosine_of_both if skips else distances.cosine,
    twice,
    linear=not skips,
  )


def representational(
  net: Any, *, layers: str | None = None, unbiased: bool = False
) -> Measure:
  """1 - linear CKA of the inputs of layers, the mean over layers.

  Args:
    net: a supernet; its `layers` are those that can be read.
    layers: names of such layers, separated by commas; None: the last.
    unbiased: estimate HSIC without bias, minibatch by minibatch.

  Raises ValueError naming the layers where one is none of them.
  """
  chosen = layers.split(',') if layers else list(net.layers[-1:])
  if unknown := sorted({*chosen} - {*net.layers}):
    raise ValueError(
      f'density.layers {unknown[0]!r} cannot be read; '
      f'{net.space.name} has {", ".join(net.layers)}.'
    )
  return Measure(
    Activations(tuple(chosen), unbiased), distances.cosine, twice, linear=True
  )


def functional(outputs: str = 'l2') -> Measure:
  """Distance of the probabilities given to the same images.

  Args:
    outputs: 'l2', 'kl' (the mean of both directions) or 'cosine'.
  """
  distance, squared = OUTPUTS[outputs]
  linear = distance is distances.cosine
  return Measure(Outputs(outputs), distance, squared, linear)


def encoding() -> Measure:
  """Hamming distance: the number of positions that differ."""
  return Measure(None, distances.hamming, twice, linear=False)


def twice(distance: np.ndarray) -> np.ndarray:
  """Turns a distance into a squared distance between points.

  It is exact for unit vectors and 1 - cos, for one-hot encodings and Hamming
  distance, and of second order for distributions and divergence.
  """
  return 2 * distance


OUTPUTS = {
  'l2': (distances.euclidean, np.square),
  'kl': (distances.divergence, twice),
  'cosine': (distances.cosine, twice),
}
