"""Tells data sets apart: what a run keeps of the images that it was made of."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas.data.encoded import Encoded
from jaxnas.data.images import Images
from jaxnas.data.photos import Photos
from jaxnas.runtime import words

# Pixels of images in memory are hashed up to so many bytes; of more, those of
# images at equal distances.
LARGEST = 2**28

# Encoded images, at equal distances, whose files are hashed.
SAMPLE = 64

# Images that are hashed at a time.
_AT_A_TIME = 4096

PARTS = ('train', 'test')


def of(loaded: Images | Photos) -> dict[str, Any]:
  """Returns what tells a data set from others, ready for JSON.

  Of each part it has the number of images and of those of each class, and
  digests of labels, names and pixels, the latter of some where there are many.
  """
  return {
    'image_shape': [*loaded.image_shape],
    'classes': loaded.classes,
    **{part: _part(loaded, part) for part in PARTS},
  }


def repeated(
  loaded: Images | Photos,
  train_T: Int[np.ndarray, ' T'],
  validation_V: Int[np.ndarray, ' V'],
) -> dict[str, int]:
  """Counts images to judge by that are to be trained on too, pixel for pixel.

  Such images show what was learnt by heart. Of images in files, which are not
  read for this, it counts none.

  Args:
    loaded: a data set.
    train_T: indices of its training images that are trained on.
    validation_V: those of the others.
  """
  if isinstance(loaded, Photos):
    return {}
  train_N = _digests(loaded.x_train)
  trained = {train_N[t] for t in train_T.tolist()}
  return {
    'validation': sum(train_N[v] in trained for v in validation_V.tolist()),
    'test': sum(digest in trained for digest in _digests(loaded.x_test)),
  }


def _digests(x_NxHxWxC: np.ndarray) -> list[bytes]:
  """Returns a digest of each image."""
  return [
    hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    for image in x_NxHxWxC
  ]


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
  """Says in words how two data sets differ; None where they don't.

  Args:
    ours: a fingerprint.
    theirs: that which it must equal.
  """
  for key in ('image_shape', 'classes'):
    if ours[key] != theirs.get(key):
      return f'{key} is {ours[key]}, not {theirs.get(key)}'
  for part in PARTS:
    before = theirs.get(part, {})
    for key, value in ours[part].items():
      if value == before.get(key):
        continue
      if key == 'images':
        number = words.counted(value, 'image')
        return f'{part} has {number}, not {before.get(key)!s:.20}'
      if key == 'of_classes':
        return _of_classes(part, value, before.get(key))
      return f'{key} of {part} are others'
  return None


def _of_classes(part: str, ours: list[int], theirs: Any) -> str:
  if not isinstance(theirs, list) or len(theirs) != len(ours):
    return f'classes of {part} are others'
  k = next(k for k, count in enumerate(ours) if count != theirs[k])
  number = words.counted(ours[k], 'image')
  return f'class {k} of {part} has {number}, not {theirs[k]!s:.20}'


def _part(loaded: Images | Photos, part: str) -> dict[str, Any]:
  labels_N = np.asarray(getattr(loaded, f'y_{part}'), np.int32)
  out = {
    'images': len(labels_N),
    'of_classes': np.bincount(labels_N, minlength=loaded.classes).tolist(),
    'labels': hashlib.blake2b(labels_N.tobytes(), digest_size=16).hexdigest(),
  }
  if isinstance(loaded, Photos):
    source = getattr(loaded, part)
    return out | {'names': _names(source), 'pixels': _encoded(source)}
  return out | {'pixels': _pixels(getattr(loaded, f'x_{part}'))}


def _pixels(x_NxHxWxC: np.ndarray) -> str:
  digest = hashlib.blake2b(digest_size=16)
  every = -(-x_NxHxWxC.nbytes // LARGEST) or 1
  sample = x_NxHxWxC[::every]
  for start in range(0, len(sample), _AT_A_TIME):
    digest.update(sample[start : start + _AT_A_TIME].tobytes())
  return digest.hexdigest()


def _names(source: Encoded) -> str:
  return hashlib.blake2b(source.listing(), digest_size=16).hexdigest()


def _encoded(source: Encoded) -> str:
  digest = hashlib.blake2b(digest_size=16)
  count = min(SAMPLE, len(source))
  for index in np.linspace(0, len(source) - 1, count, dtype=int).tolist():
    try:
      content = source.read(index)
    except OSError:
      # data.on_error decides about it where it is used.
      content = b''
    digest.update(len(content).to_bytes(8, 'little') + content)
  return digest.hexdigest()
