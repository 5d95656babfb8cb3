"""Tests that one is never called many."""

import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.data import crops, fingerprint, labels, skipped
from jaxnas.data.ignored import Ignored
from jaxnas.runtime import words


@pytest.mark.parametrize(
  ('number', 'said'),
  [(0, '0 classes'), (1, '1 class'), (2, '2 classes'), (1000, '1,000 classes')],
)
def test_a_number_has_its_noun(number, said):
  assert words.counted(number, 'class', 'classes') == said


def of_parts(first, second):
  print_of = {
    count: {
      'image_shape': [1, 1, 1],
      'classes': 1,
      **{part: {'images': count} for part in fingerprint.PARTS},
    }
    for count in (first, second)
  }
  return fingerprint.difference(print_of[first], print_of[second])


def unreadable(*names):
  found = skipped.SkippedImages()
  found.add(names)
  return str(found)


def raised(call, *args):
  with pytest.raises(ValueError, match=r'\d') as caught:
    call(*args)
  return str(caught.value)


@pytest.mark.parametrize(
  ('said', 'has'),
  [
    (lambda: str(Ignored({'hidden': 1})), '1 file ignored'),
    (lambda: str(Ignored({'hidden': 2})), '2 files ignored'),
    (lambda: str(Ignored(names=(*'abcde',))), "'d' and 1 other ignored"),
    (lambda: unreadable('a.png'), '1 unreadable image replaced'),
    (lambda: unreadable('a.png', 'b.png'), '2 unreadable images replaced'),
    (lambda: of_parts(1, 2), 'train has 1 image, not 2'),
    (lambda: raised(crops.decode, b'x'), '1 byte, no image'),
    (
      lambda: raised(labels.check_learnable, 'it', np.arange(2), np.arange(3)),
      'it: 1 test image of class 2',
    ),
    (lambda: raised(labels.count, 'it', np.array([3])), 'it has 1 label, 3'),
    (
      lambda: raised(spaces.get('nas_bench_201').parse, '|none~0|'),
      'has 1 op; nas_bench_201',
    ),
  ],
)  # fmt: skip
def test_a_line_about_one_says_one(said, has):
  assert has in said()
