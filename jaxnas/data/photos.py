"""A data set of encoded images, such as ImageNet, read as they are needed."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxnas.data import encoded
from jaxnas.data.stream import OnError


@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
  """What `Images` is to images in memory, for those in files."""

  train: encoded.Encoded
  test: encoded.Encoded
  classes: int
  mean_C: Float[np.ndarray, ' C']
  """Of the training pixels, in [0, 1]."""
  std_C: Float[np.ndarray, ' C']
  size: int
  """Height and width to which images are cropped."""
  workers: int
  on_error: OnError
  skipped: set[str] = dataclasses.field(default_factory=set)
  """Names of images that could not be read and were replaced."""

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.size, self.size, 3)

  @property
  def y_train(self) -> Int[np.ndarray, ' N']:
    return self.train.labels_N

  @property
  def y_test(self) -> Int[np.ndarray, ' M']:
    return self.test.labels_N


def load(
  dir: Path | str, *, size: int, workers: int, on_error: OnError
) -> Photos:
  """Arguments as in `Photos`; errors as in `encoded.load`."""
  train, test, classes = encoded.load(dir)
  return Photos(
    train,
    test,
    classes,
    # ImageNet's, the constants in general use.
    mean_C=np.array([0.485, 0.456, 0.406]),
    std_C=np.array([0.229, 0.224, 0.225]),
    size=size,
    workers=workers,
    on_error=on_error,
  )
