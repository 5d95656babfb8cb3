import pytest

from jaxnas.runtime import jsonl
from jaxnas.training import metrics


def rows(file):
  return jsonl.read_rows(file, {'step': int}, 'run')


def test_rows_are_appended_and_those_after_the_restored_step_dropped(tmp_path):
  file = tmp_path / 'metrics.jsonl'
  with metrics.MetricsFile(file, of='run') as first:
    for step in (10, 20, 30):
      first.write(step, {'loss': step / 7})
  with file.open('a') as stream:
    stream.write('{"step": 20, "lo')
  with metrics.MetricsFile(file, of='run') as resumed:
    resumed.go_on_from(20)
    resumed.write(30, {'loss': 1.0})
  assert rows(file) == [
    {'step': 10, 'loss': 10 / 7},
    {'step': 20, 'loss': 20 / 7},
    {'step': 30, 'loss': 1.0},
  ]


def test_what_is_said_again_after_a_resumption_is_dropped(tmp_path):
  file = tmp_path / 'metrics.jsonl'
  with metrics.MetricsFile(file, of='run') as first:
    first.write(10, {'kendall': 0.1})
    first.write(20, {'loss': 2.0})
    first.write(20, {'kendall': 0.2})
    first.write(30, {'loss': 1.0})
  for _ in range(2):
    with metrics.MetricsFile(file, of='run') as resumed:
      resumed.go_on_from(20)
      resumed.write(20, {'kendall': 0.2})
    assert rows(file) == [
      {'step': 10, 'kendall': 0.1},
      {'step': 20, 'loss': 2.0},
      {'step': 20, 'kendall': 0.2},
    ]


def test_mirrors_receive_the_same_rows(tmp_path):
  seen, closed = [], []
  mirror = metrics.Mirror(
    lambda step, rows: seen.append((step, rows)),
    lambda step, values: seen.append((step, values)),
    closed.append,
  )
  for step in (0, 5):
    with metrics.MetricsFile(tmp_path / 'm.jsonl', [mirror], of='run') as file:
      file.go_on_from(step)
      file.write(5, {'kendall': 0.5} if step else {'loss': 2.0})
      assert closed == [False] * bool(step)
  assert seen == [
    (0, []), (5, {'loss': 2.0}),
    (5, [{'step': 5, 'loss': 2.0}]), (5, {'kendall': 0.5}),
  ]  # fmt: skip
  assert closed == [False, False]


def test_mirrors_are_closed_where_a_run_fails(tmp_path):
  closed = []
  nothing = lambda *args: None  # noqa: E731
  mirror = metrics.Mirror(nothing, nothing, closed.append)
  with (
    pytest.raises(OSError, match='no room'),
    metrics.MetricsFile(tmp_path / 'm.jsonl', [mirror], of='run'),
  ):
    raise OSError('no room')
  assert closed == [True]
