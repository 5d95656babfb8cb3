"""A small supernet, looked at on as many devices as there are.

`python -m support.small_net FILE` saves what it found.
"""

import sys
from typing import ClassVar

import jax
import numpy as np

from jaxnas import density, supernets
from jaxnas.supernets import evaluation
from jaxnas.supernets.chain import ChainNet
from support.small_run import SPACE, ARCHS_AxE


class Whole(ChainNet):
  """Hides the parts of the net: density and ranking call it whole."""

  sequential: ClassVar[bool] = False


def snapshot(net=None):
  """Untrained, with two batches of eight random images."""
  net = net or supernets.build(SPACE)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 8, *SPACE.image_shape)).astype(np.float32)
  labels = rng.integers(0, SPACE.classes, (2, 8)).astype(np.int32)
  params = supernets.init(net, ARCHS_AxE[0], 0)['params']
  put = jax.numpy.asarray
  return density.Snapshot(
    net, params, ARCHS_AxE, [*map(put, images)], [*map(put, labels)]
  )


def densities_and_accuracies(device=None):
  """Returns both for all 27, by parts and whole, from arrays on `device`."""
  seen = snapshot()
  if device is not None:
    params, images, labels = jax.device_put(
      (seen.params, seen.images, seen.labels), device
    )
    seen = seen._replace(params=params, images=images, labels=labels)
  net, params, archs_AxE, (x, _), (y_B, _) = seen
  measure = density.gradient(net, params, archs_AxE)
  whole = seen._replace(net=Whole(SPACE))
  return {
    'parts_A': density.estimate(seen, measure).alpha_A,
    'whole_A': density.estimate(whole, measure).alpha_A,
    'accuracy_A': evaluation.accuracies(
      net,
      {'params': params},
      archs_AxE,
      lambda indices_B: (x[indices_B], y_B[indices_B]),
      len(y_B),
      batch_size=4,
    ),
  }


if __name__ == '__main__':
  found = densities_and_accuracies()
  held = densities_and_accuracies(jax.devices()[0])
  np.savez(
    sys.argv[1],
    devices=jax.local_device_count(),
    **found,
    **{f'held_{name}': values_A for name, values_A in held.items()},
  )
