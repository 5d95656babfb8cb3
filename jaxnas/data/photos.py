"""Loads a data set of encoded images, such as ImageNet, to be streamed."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxnas.data import encoded, folders
from jaxnas.data.ignored import Ignored
from jaxnas.data.skipped import SkippedImages
from jaxnas.data.stream import OnError


@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
  """A training set and its test set, whose images stay in files."""

  train: encoded.Encoded
  test: encoded.Encoded
  classes: int
  mean_C: Float[np.ndarray, ' C']
  """Mean of the training pixels, in [0, 1]."""
  std_C: Float[np.ndarray, ' C']
  size: int
  """Height and width to which images are cropped."""
  workers: int
  on_error: OnError
  skipped: SkippedImages = dataclasses.field(default_factory=SkippedImages)
  ignored: Ignored = dataclasses.field(default_factory=Ignored)

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
  dir: Path | str | None, *, size: int, workers: int, on_error: OnError
) -> Photos:
  """Opens a folder of images by class, or an ArrayRecord data set of tfds.

  Arguments are those of `Photos`, and errors those of `encoded.load`.
  """
  if dir is None:
    raise FileNotFoundError(
      'data.name imagenet needs --data.dir: a folder with train/CLASS/FILE '
      'and val/CLASS/FILE, or an ArrayRecord data set of tfds.'
    )
  train, test, classes = encoded.load(dir)
  ignored = Ignored()
  for part in (train, test):
    if isinstance(part, folders.Files):
      ignored += part.ignored
  return Photos(
    train,
    test,
    classes,
    # These are ImageNet's constants in general use.
    mean_C=np.array([0.485, 0.456, 0.406]),
    std_C=np.array([0.229, 0.224, 0.225]),
    size=size,
    workers=workers,
    on_error=on_error,
    ignored=ignored,
  )
