"""Progress as a run prints it to a log, with no terminal for a bar."""

import re
import time

import pytest

from jaxnas.runtime import progress
from jaxnas.training import pace as paces


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


class Clock:
  def __init__(self):
    self.now_s = 0.0

  def monotonic(self):
    return self.now_s


def test_a_rate_counts_steps_whose_results_are_there(monkeypatch):
  """Neither what was dispatched, nor what compiled, nor an earlier process."""
  clock = Clock()
  monkeypatch.setattr(paces, 'time', clock)
  pace = paces.Pace(100)
  # The first step compiles for a minute, and the others take a second.
  assert pace.rate() is None
  clock.now_s = 60.0
  pace.steps_done(1)
  assert pace.rate() is None
  for second in range(61, 64):
    clock.now_s = second
    pace.steps_done(1)
    assert pace.rate() == 100
  assert pace.next_row() == 100
  # The next row begins where the last one ended.
  clock.now_s = 64.0
  pace.steps_done(1)
  assert pace.next_row() == 100


def test_results_that_come_together_are_no_nonsense(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(paces, 'time', clock)
  pace = paces.Pace(100)
  for second in (1.0, 11.0):
    clock.now_s = second
    pace.steps_done(10)
  assert pace.rate() == 100
  # Two rows end within these steps.
  assert [pace.next_row(), pace.next_row()] == [100, 100]


def test_a_row_of_one_step_has_a_rate(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(paces, 'time', clock)
  pace = paces.Pace(100)
  clock.now_s = 2.0
  pace.steps_done(1)
  assert pace.next_row() == 50


@pytest.mark.parametrize(('long_s', 'lines'), [(0.01, 2), (60.0, 0)])
def test_a_long_wait_says_what_it_is_for(monkeypatch, capsys, long_s, lines):
  monkeypatch.setattr(progress, 'LONG_S', long_s)
  with progress.waiting('compiling'):
    time.sleep(0.1)
  said = capsys.readouterr().err.splitlines()
  assert len(said) == lines
  if lines:
    assert said == ['compiling ...', 'compiling took 0 s']
