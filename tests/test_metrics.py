import json
import sys
import types

import pytest

from jaxnas import build, config, logging_config
from jaxnas.training import metrics


def rows(file):
  return [json.loads(row) for row in file.read_text().splitlines()]


def test_rows_are_appended_and_those_after_the_restored_step_dropped(tmp_path):
  file = tmp_path / 'metrics.jsonl'
  first = metrics.MetricsFile(file, 0)
  for step in (10, 20, 30):
    first.write(step, {'loss': step / 7})
  first.close()
  with file.open('a') as stream:
    stream.write('{"step": 20, "lo')
  resumed = metrics.MetricsFile(file, 20)
  resumed.write(30, {'loss': 1.0})
  resumed.close()
  assert rows(file) == [
    {'step': 10, 'loss': 10 / 7},
    {'step': 20, 'loss': 20 / 7},
    {'step': 30, 'loss': 1.0},
  ]


def test_what_is_said_again_after_a_resumption_is_dropped(tmp_path):
  file = tmp_path / 'metrics.jsonl'
  first = metrics.MetricsFile(file, 0)
  first.write(10, {'kendall': 0.1})
  first.write(20, {'loss': 2.0})
  first.write(20, {'kendall': 0.2})
  first.write(30, {'loss': 1.0})
  first.close()
  for _ in range(2):
    resumed = metrics.MetricsFile(file, 20)
    resumed.write(20, {'kendall': 0.2})
    resumed.close()
    assert rows(file) == [
      {'step': 10, 'kendall': 0.1},
      {'step': 20, 'loss': 2.0},
      {'step': 20, 'kendall': 0.2},
    ]


def test_mirrors_receive_the_same_rows(tmp_path):
  seen = []
  file = metrics.MetricsFile(
    tmp_path / 'm.jsonl', 0, [lambda step, values: seen.append((step, values))]
  )
  file.write(5, {'loss': 2.0})
  file.close()
  assert seen == [(5, {'loss': 2.0})]


def test_tensorboard_writes_events(tmp_path):
  pytest.importorskip('tensorboardX', reason='needs the tensorboard extra')
  write = metrics.tensorboard(tmp_path / 'tb')
  (events,) = (tmp_path / 'tb').iterdir()
  before = events.stat().st_size
  write(3, {'loss': 1.5})
  assert events.stat().st_size > before


def test_wandb_logs_under_the_step(tmp_path, monkeypatch):
  logged = []
  run = types.SimpleNamespace(
    log=lambda values, step: logged.append((step, values))
  )
  fake = types.SimpleNamespace(init=lambda **given: run)
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  metrics.weights_and_biases(tmp_path / 'w', {'seed': 0})(7, {'loss': 1.0})
  assert logged == [(7, {'loss': 1.0})]


def test_both_mirrors_write_what_the_file_holds(tmp_path, monkeypatch):
  board, logged = {}, {}

  def add_scalar(name, value, step):
    board.setdefault(step, {})[name] = value

  writer = types.SimpleNamespace(add_scalar=add_scalar, flush=lambda: None)
  run = types.SimpleNamespace(
    log=lambda values, step: logged.update({step: values})
  )
  for name, fake in (
    ('tensorboardX', {'SummaryWriter': lambda folder: writer}),
    ('wandb', {'init': lambda **given: run}),
  ):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**fake))
  given = config.Config(logging=config.Logging(tensorboard=True, wandb=True))
  file = metrics.MetricsFile(
    tmp_path / 'm.jsonl', 0, logging_config.mirrors(given, tmp_path)
  )
  file.write(10, {'epoch': 0.5, 'loss': 2.0, 'images_per_s': 7.5})
  file.write(20, {'epoch': 1.0, 'kendall': 0.25, 'kendall_low': 0.125})
  file.close()
  written = {row.pop('step'): row for row in rows(tmp_path / 'm.jsonl')}
  assert written == board == logged
  assert [*written] == [10, 20]


@pytest.mark.parametrize('extra', ['tensorboard', 'wandb'])
def test_a_missing_extra_is_named(monkeypatch, extra):
  monkeypatch.setattr(
    logging_config.importlib.util, 'find_spec', lambda module: None
  )
  logging = config.Logging(**{extra: True})
  with pytest.raises(ValueError, match=rf'jaxnas\[{extra}\]'):
    build.experiment(config.Config(logging=logging))
