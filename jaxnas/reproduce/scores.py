"""Scores of stored results, from the bit that each keeps for every image."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxnas import spaces, truth
from jaxnas.experiment import predictions
from jaxnas.reproduce import store
from jaxnas.truth.combine import Scores


def of_result(result: store.Result) -> Scores | None:
  """Returns accuracies, and those on halves of the images that are kept.

  None where a result has no bits.
  """
  if not result[store.NPZ].exists():
    return None
  kept = store.read_arrays(result)
  if 'right_AxW' not in kept:
    return None
  images = result['found']['images']
  count = min(images, predictions.KEPT_IMAGES)
  right_AxI = np.unpackbits(kept['right_AxW'], axis=1, count=count).astype(
    np.int8
  )
  return Scores(
    kept['archs_AxE'].astype(np.int32),
    np.array(result['hits']) / images,
    predictions.halves(right_AxI),
  )


def truth_of(
  result: store.Result, scores: Scores, tables: Mapping[str, Path | None]
) -> Float[np.ndarray, ' A'] | None:
  """Returns accuracies of the same architectures alone, NaN where unknown.

  None where there is no table.
  """
  space, images = spaces.get(result['space']), result['config']['data.name']
  file = tables.get(space.name)
  if file is None and not truth.shipped(space, images):
    return None
  return truth.load(space, file, images).known(scores.archs_AxE)
