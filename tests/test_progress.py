"""What a run says while it goes on, where nobody watches a bar."""

import re

import pytest

from jaxnas import progress


@pytest.mark.parametrize(
  ('took_s', 'count', 'left', 'said'),
  [
    (60.0, 30, 1860, ', 1:02:00 left'),
    (1.0, 2, 0, ', 0:00:00 left'),
    (100.0, 0, 10, ''),
    (1.0, 1, -5, ''),
  ],
)
def test_time_left(took_s, count, left, said):
  assert progress.time_left(took_s, count, left) == said


def test_a_line_says_the_state_and_what_is_left(monkeypatch, capsys):
  """The first unit, 100 s of compilation, does not count."""
  clock = iter([0.0, 100.0, 140.0, 180.0])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  with progress.bar('training', 10, done=2) as advance:
    for _ in range(3):
      advance(1, 'epoch 1/2  loss 0.500  9 images/s')
  lines = capsys.readouterr().err.splitlines()
  assert [re.sub('  +', ' ', line) for line in lines] == [
    'training 3/10 epoch 1/2 loss 0.500 9 images/s',
    'training 4/10, 0:04:00 left epoch 1/2 loss 0.500 9 images/s',
    'training 5/10, 0:03:20 left epoch 1/2 loss 0.500 9 images/s',
  ]
