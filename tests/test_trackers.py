"""Tests of trackers: one run of theirs for each folder, whatever happens."""

import importlib.util
import json
import struct
import sys
import time
import types

import pytest

from jaxnas import config, rank, retrain, train
from jaxnas.config import run_folder
from jaxnas.experiment import build, debias, trackers
from jaxnas.runtime import files, jsonl, seals
from jaxnas.training import metrics
from support import small_run
from support.runs import interrupted

LOGGING = config.Config(logging=config.Logging(tensorboard=True, wandb=True))
EXTRAS = ('tensorboardX', 'wandb', 'tensorboard')


def log(folder, group, *sessions):
  """Writes metrics as a run does that goes on from each session's step."""
  folder.mkdir(parents=True, exist_ok=True)
  for start, rows in sessions:
    with metrics.MetricsFile(
      folder / 'metrics.jsonl',
      trackers.mirrors(LOGGING, folder, group),
      of='run',
    ) as file:
      file.go_on_from(start)
      for step, values in rows:
        file.write(step, values)


def rows(file):
  """The rows of metrics.jsonl as {step: values}, those of a step together."""
  out = {}
  for row in jsonl.read_rows(file, {'step': int}):
    row.pop(seals.SEAL, None)
    out.setdefault(row.pop('step'), {}).update(row)
  return out


# A run that was killed after step 30, and goes on from its checkpoint at 20.
CUT = (
  (0, [(0, {'kendall': 0.0}), (10, {'loss': 3.0}), (20, {'loss': 2.0}),
       (20, {'kendall': 0.2}), (30, {'loss': 1.5})]),
  (20, [(20, {'kendall': 0.2}), (30, {'loss': 1.5}), (40, {'loss': 1.25})]),
)  # fmt: skip


class Client:
  """Stands for W&B's module: it keeps what its runs are given."""

  def __init__(self):
    self.begun, self.summary = [], {}

  def init(self, **given):
    logged, ended = {}, []
    self.begun.append((given, logged, ended))
    return types.SimpleNamespace(
      summary=self.summary,
      log=lambda values, step: logged.setdefault(step, {}).update(values),
      finish=lambda exit_code: ended.append(exit_code),
    )


@pytest.fixture
def client(monkeypatch):
  fake = Client()
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  board = types.SimpleNamespace(
    add_scalar=lambda *args: None, flush=lambda: None, close=lambda: None
  )
  monkeypatch.setitem(
    sys.modules,
    'tensorboardX',
    types.SimpleNamespace(SummaryWriter=lambda *args, **given: board),
  )
  monkeypatch.setattr(
    trackers.importlib.util, 'find_spec', lambda module: module
  )
  return fake


def test_a_folder_is_one_run_and_a_command_one_group(tmp_path, client):
  top = tmp_path / 'compared'
  folders = [top, top / 'undebiased', top / 'uniform' / 'seed_0']
  for _ in range(2):
    for folder in folders:
      log(folder, top, *CUT[1:])
  asked = [given for given, _, _ in client.begun]
  ids = [given['id'] for given in asked]
  assert ids[:3] == ids[3:] and len({*ids}) == 3
  assert {given['group'] for given in asked} == {f'compared-{ids[0]}'}
  assert [given['name'] for given in asked[:3]] == [
    'compared', 'compared/undebiased', 'compared/uniform/seed_0',
  ]  # fmt: skip
  for given, logged, ended in client.begun:
    assert (given['resume'], given['reinit']) == ('allow', 'create_new')
    assert logged == dict(CUT[1][1])
    assert ended == [0]


NAMED = config.Logging(
  wandb=True, project='p', entity='e', name='n', group='g', tags='a, b,'
)


def test_names_of_a_run_are_fields(tmp_path, client):
  given = config.Config(logging=NAMED)
  for folder in (tmp_path / 'top', tmp_path / 'top' / 'undebiased'):
    folder.mkdir()
    trackers.wandb_run(folder, given, tmp_path / 'top')
  first, twin = (asked for asked, _, _ in client.begun)
  assert (first['project'], first['entity'], first['group']) == ('p', 'e', 'g')
  assert first['tags'] == ['a', 'b']
  assert (first['name'], twin['name']) == ('n', 'n/undebiased')


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'project': 'p'}, 'logging.project is of logging.wandb'),
    ({'tags': 'a'}, 'logging.tags is of logging.wandb'),
    ({'wandb': True, 'tags': ' ,'}, "logging.tags is ' ,'"),
    ({'wandb': True, 'project': ''}, "logging.project is ''"),
  ],
)
def test_names_that_name_nothing_are_refused(client, fields, said):
  with pytest.raises(ValueError, match=said):
    trackers.check(config.Logging(**fields))


RESULT = {
  'kendall': 0.5, 'kendall_interval': [0.25, 0.75], 'top_kendall': None,
  'best_arch': '012', 'best_arch_accuracy': 0.875,
  'best_arch_true_accuracy': 0.75,
}  # fmt: skip
DEBIASING = {
  'temperature': 0.1, 'effective': 13.5, 'epoch': 1, 'archs': 27,
  'density': [0.5, 2.0], 'probability': [0.0, 0.125],
}  # fmt: skip
FINAL = {
  'final/kendall': 0.5, 'final/kendall_low': 0.25, 'final/kendall_high': 0.75,
  'final/chosen': '012', 'final/chosen_supernet_accuracy': 0.875,
  'final/accuracy': 0.75, 'final/temperature': 0.1, 'final/effective': 13.5,
  'final/density_low': 0.5, 'final/density_high': 2.0,
  'final/probability_low': 0.0, 'final/probability_high': 0.125,
}  # fmt: skip


def test_the_final_table_goes_to_both(tmp_path, monkeypatch):
  pytest.importorskip('tensorboardX', reason='needs the tensorboard extra')
  client = Client()
  monkeypatch.setitem(sys.modules, 'wandb', client)
  values = trackers.final(RESULT, DEBIASING)
  assert values == FINAL
  # A finished run that is called again says it again.
  for _ in range(2):
    trackers.conclude(LOGGING, tmp_path, None, 40, values)
  assert client.summary == FINAL
  shown = scalars(tmp_path / 'tensorboard' / 'final')
  assert shown == {
    40: pytest.approx({k: v for k, v in FINAL.items() if k != 'final/chosen'})
  }


def test_a_failure_closes_what_was_opened(tmp_path, client):
  mirrors = trackers.mirrors(LOGGING, tmp_path)
  with (
    pytest.raises(OSError, match='no room'),
    metrics.MetricsFile(tmp_path / 'm.jsonl', mirrors, of='run') as file,
  ):
    file.go_on_from(0)
    raise OSError('no room')
  assert [ended for _, _, ended in client.begun] == [[1]]
  # What was never opened has nothing to close.
  with (
    pytest.raises(OSError, match='sooner'),
    metrics.MetricsFile(
      tmp_path / 'm.jsonl', trackers.mirrors(LOGGING, tmp_path), of='run'
    ),
  ):
    raise OSError('sooner')
  assert len(client.begun) == 1


def test_a_client_that_refuses_is_one_line(tmp_path, client, monkeypatch):
  def refuse(**given):
    raise RuntimeError('api_key not configured\n(no-tty)')

  monkeypatch.setattr(client, 'init', refuse)
  with pytest.raises(OSError, match=r'^Weights .*api_key.*WANDB_MODE=offline'):
    log(tmp_path, None, (0, []))


@pytest.mark.parametrize('extra', ['tensorboard', 'wandb'])
def test_a_missing_extra_is_named(monkeypatch, extra):
  monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda module: None)
  logging = config.Logging(**{extra: True})
  with pytest.raises(ValueError, match=rf'jaxnas\[{extra}\]'):
    build.experiment(config.Config(logging=logging))


def scalars(folder):
  """Returns what TensorBoard shows of a folder: {step: values}."""
  loader = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator',
    reason='needs tensorboard',
  )
  shown = loader.EventAccumulator(str(folder))
  shown.Reload()
  out = {}
  for name in shown.Tags()['scalars']:
    for event in shown.Scalars(name):
      row = out.setdefault(event.step, {})
      assert name not in row, (event.step, name)
      row[name] = event.value
  return out


def test_tensorboard_shows_what_the_file_holds(tmp_path, monkeypatch):
  pytest.importorskip('tensorboardX', reason='needs the tensorboard extra')
  monkeypatch.setitem(sys.modules, 'wandb', Client())
  log(tmp_path, None, *CUT, *CUT[1:])
  written = rows(tmp_path / 'metrics.jsonl')
  assert [*written] == [0, 10, 20, 30, 40]
  assert {
    step: pytest.approx(values)
    for step, values in scalars(tmp_path / 'tensorboard').items()
  } == written


def wandb_runs(root):
  """(run, {step: values}, exit code) of each session that W&B has on disk.

  Its own process may still be writing.
  """
  for _ in range(300):
    found = sessions(root)
    if all(run is not None and code is not None for run, _, code in found):
      break
    time.sleep(0.1)
  return found


def sessions(root):
  from wandb.proto import wandb_internal_pb2

  out = []
  for file in sorted(root.rglob('*.wandb'), key=lambda f: f.stat().st_mtime):
    run, logged, code = None, {}, None
    for content in wandb_records(file.read_bytes()):
      record = wandb_internal_pb2.Record()
      record.ParseFromString(content)
      if record.HasField('run'):
        run = record.run
      if record.HasField('exit'):
        code = record.exit.exit_code
      if record.HasField('history'):
        row = {
          item.key or '.'.join(item.nested_key): json.loads(item.value_json)
          for item in record.history.item
        }
        logged[row['_step']] = {k: row[k] for k in row if k[0] != '_'}
    out.append((run, logged, code))
  return out


def summaries(root):
  """Returns the summaries that W&B has of the runs in a folder."""
  from wandb.proto import wandb_internal_pb2

  out = {}
  for file in root.rglob('*.wandb'):
    for content in wandb_records(file.read_bytes()):
      record = wandb_internal_pb2.Record()
      record.ParseFromString(content)
      if record.HasField('summary'):
        for item in record.summary.update:
          key = item.key or '.'.join(item.nested_key)
          out[key] = json.loads(item.value_json)
  return out


def together(found):
  """Returns what sessions of one run have logged: {step: values}."""
  out = {}
  for _, logged, _ in found:
    for step, values in logged.items():
      out.setdefault(step, {}).update(values)
  return dict(sorted(out.items()))


def wandb_records(content):
  """The records of LevelDB's log format, after W&B's own seven bytes."""
  at, record = 7, b''
  while at + 7 <= len(content):
    if 2**15 - at % 2**15 < 7:  # the rest of a block
      at += 2**15 - at % 2**15
    _, length, kind = struct.unpack_from('<IHB', content, at)
    record += content[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # whole, or its last part
      yield record
      record = b''


@pytest.fixture
def wandb(monkeypatch):
  """The real client, which does without a network."""
  wandb = pytest.importorskip('wandb', reason='needs the wandb extra')
  for name, value in (('MODE', 'offline'), ('SILENT', 'true')):
    monkeypatch.setenv(f'WANDB_{name}', value)
  return wandb


def test_the_real_client_keeps_runs_apart(tmp_path, wandb, monkeypatch):
  monkeypatch.setattr(trackers, 'tensorboard', lambda folder: metrics.Mirror(
    *[lambda *args: None] * 3
  ))  # fmt: skip
  # A user's own run is open all the while.
  with wandb.init(project='own', dir=str(tmp_path)) as own:
    top = tmp_path / 'top'
    log(top, top, *CUT)
    log(top / 'undebiased', top, CUT[1])
    assert wandb.run is own
    own.log({'mine': 1})
  found = wandb_runs(top)
  ids = [run.run_id for run, _, _ in found]
  assert len(found) == 3 and ids[0] == ids[1] != ids[2]
  assert ids[0] == files.read_json(top / trackers.FILE, {'id': str})['id']
  assert {run.run_group for run, _, _ in found} == {f'top-{ids[0]}'}
  assert {run.project for run, _, _ in found} == {'jaxnas'}
  assert [code for _, _, code in found] == [0, 0, 0]
  assert together(found[:2]) == rows(top / 'metrics.jsonl')
  assert found[2][1] == rows(top / 'undebiased' / 'metrics.jsonl')
  ((run, logged, code),) = wandb_runs(tmp_path / 'wandb')
  assert (run.project, logged, code) == ('own', {0: {'mine': 1}}, 0)


def tracked(run, real):
  """Asserts that W&B and TensorBoard have what a run's file holds."""
  written = rows(run / 'metrics.jsonl')
  assert written
  if importlib.util.find_spec('tensorboard'):
    shown = scalars(run / 'tensorboard')
    assert {s: pytest.approx(v) for s, v in shown.items()} == written
  logged = together(real)
  rates = {
    step: values.pop('images_per_s', 0) for step, values in logged.items()
  }
  assert {*rates} == {*written}
  for values in written.values():
    values.pop('images_per_s', None)
  assert logged == written


@pytest.mark.slow
@pytest.mark.skipif(
  not all(map(importlib.util.find_spec, EXTRAS)), reason=f'needs {EXTRAS}'
)
def test_commands_with_the_real_clients(tmp_path, wandb, small_space):
  flags, run = small_run.flags_in(tmp_path)
  both = ['--logging.tensorboard', '--logging.wandb']
  twins = ['--debias.effective_fraction', '0.5', '--debias.baseline']
  with interrupted(after=33), pytest.raises(SystemExit):
    train.main([*flags, *both, *twins])
  assert train.main(['--workdir', str(run), '--resume']) == 0
  assert rank.main(['--run', str(run)]) == 0
  ours, twin = wandb_runs(run / 'wandb'), wandb_runs(run / 'undebiased')
  # The last one gives the final table alone.
  assert [code for _, _, code in ours] == [1, 0, 0]
  final = summaries(run / 'wandb')
  solved = debias.read(run, config.digest(run_folder.read_config(run)))
  assert solved and final['final/temperature'] == solved['temperature']
  assert -1 <= final['final/kendall_low'] <= final['final/kendall_high'] <= 1
  shown = scalars(run / 'tensorboard' / 'final')[40]
  assert shown['final/temperature'] == pytest.approx(solved['temperature'])
  tracked(run, ours)
  tracked(run / 'undebiased', twin)
  alone = tmp_path / 'alone'
  few = ['--retrain.epochs', '2', '--retrain.seeds', '2']
  assert retrain.main(
    ['--run', str(run), '--arch', '000', '--workdir', str(alone), *both, *few]
  ) == 0  # fmt: skip
  seeds = [wandb_runs(alone / f'seed_{seed}') for seed in (0, 1)]
  for number, real in enumerate(seeds):
    tracked(alone / f'seed_{number}', real)
  for found in ([*ours, *twin], [*seeds[0], *seeds[1]]):
    assert len({run.run_group for run, _, _ in found}) == 1
    assert len({run.run_id for run, _, _ in found}) == 2
