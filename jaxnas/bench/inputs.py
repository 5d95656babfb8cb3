"""Random architectures, images and labels, the same for both sides."""

import numpy as np
from jaxtyping import Float, Int

from jaxnas.runtime.rng import generator
from jaxnas.spaces import Space


def archs(space: Space, count: int, seed: int) -> Int[np.ndarray, 'A E']:
  """Independent uniform draws."""
  return space.random(generator(seed, 'archs'), count)


def images(
  space: Space, count: int, seed: int
) -> tuple[Float[np.ndarray, 'B H W C'], Int[np.ndarray, ' B']]:
  """Normal noise, float32, as normalised images are; and labels."""
  rng = generator(seed, 'images')
  x_BxHxWxC = rng.normal(size=(count, *space.image_shape))
  return (
    x_BxHxWxC.astype(np.float32),
    rng.integers(space.classes, size=count).astype(np.int32),
  )
