"""Many trainings: lists of tasks, their processes, and where those run."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxnas
from jaxnas import compare, config, retrain, spaces, sweep, truth
from jaxnas.config import Config
from jaxnas.config.registry import EXECUTORS
from jaxnas.experiment import build, retraining
from jaxnas.many import (
  cost,
  driver,
  flags,
  local,
  ray,
  rows,
  slurm,
  tasks,
  values,
  worker,
)
from jaxnas.runtime import lock
from support import disks, stub_task
from support.refusals import refused, row

SPACE = spaces.get('digits')

TINY = """
from jaxnas.config import *
def get_config():
  return Config(
    warmup_epochs=1,
    epochs=1,
    data=Data(batch_size=100),
    debias=Debias(temperature=0.1),
    density=Density(batch_size=50),
    ranking=Ranking(images=50, batch_size=50, archs=9),
    retrain=Retrain(epochs=2, seeds=2),
  )
"""


# What is asked for.


def test_combinations_of_values():
  texts = ['debias.temperature=1,None', 'epochs=2..3', 'seed=4..6']
  configs, seeds = values.combined(
    config.load('quickstart.py'), ['debias.baseline=False', *texts]
  )
  assert seeds == [4, 5, 6]
  points = [(c.debias.temperature, c.epochs) for c in configs.values()]
  assert points == [(1.0, 2), (1.0, 3), (None, 2), (None, 3)]
  first = 'debias.baseline=False debias.temperature=1 epochs=2'
  assert next(iter(configs)) == first
  # A temperature replaces the fraction that the config file asks for.
  assert configs[first].debias.effective_fraction is None
  alone, seeds = values.combined(Config(), ['seed=2'])
  assert alone == {values.ALONE: Config()} and seeds == [2]


@pytest.mark.parametrize(
  ('texts', 'says'),
  [
    (['epochs'], 'has no values: give FIELD=A,B,C'),
    (['epochs='], 'has no values'),
    (['epoch=1'], 'Did you mean epochs?'),
    (['epochs=1,x'], "epochs is 'x'; it must be an integer"),
    (['epochs=1', 'epochs=2'], 'epochs twice'),
    (['epochs=1,1'], 'None'),
    (['epochs=1..0'], 'the last value must be above'),
    (['epochs=0..9999999999'], 'by less than'),
    (['seed=1,1'], 'a value twice'),
    (['seed=-1'], 'seed is -1'),
    (['space=digits,pooling'], 'make several sweeps'),
    (['mesh.data=1,2'], 'no result depends on it'),
    (['debias.temperature=0'], 'must be above 0'),
    (['debias.temperature=1,1.0'], 'is the same experiment'),
  ],
)
def test_bad_values_are_refused(texts, says):
  if texts == ['epochs=1,1']:
    # One label names both.
    assert len(values.combined(Config(), texts)[0]) == 1
    return
  with pytest.raises(ValueError, match='--set') as error:
    values.combined(Config(), texts)
  assert says in str(error.value)


def test_lists_of_architectures(tmp_path):
  file = tmp_path / 'archs.txt'
  for encoding in ('utf-8', 'utf-8-sig'):
    file.write_text('0120  # the first\n\n# none\n2121\n0120\n', encoding)
    assert rows.read_archs(Config(), file) == ('0120', '2121')
  drawn = rows.drawn(Config(), 20)
  assert len({*drawn}) == 20 == len(drawn) and drawn == rows.drawn(Config(), 20)
  assert drawn != rows.drawn(Config(seed=1), 20)
  # A table of them serves a run that ranks so many.
  ranked = build.ranking_archs(Config(ranking=config.Ranking(archs=20)), SPACE)
  assert drawn == tuple(map(SPACE.format, ranked))
  mobilenet = rows.drawn(Config(space='mobilenet'), 3)
  space = spaces.get('mobilenet')
  assert [space.format(space.parse(arch)) for arch in mobilenet] == [*mobilenet]


REFUSED = [
  row('retrain', '--config {config} --all --on cloud', "'cloud'", 'local, ray'),
  row('retrain', '--config {config} --all --on slurm:x', 'only ray', '--on'),
  row('retrain', '--config {config} --all --workers 0', '0', 'at least 1'),
  row(
    'retrain', '--config {config} --all --on slurm --workers 2', '2',
    '--at_once',
  ),
  row('retrain', '--config {config} --all --at_once 3', '3', '--workers'),
  row('retrain', '--config {config} --all --each 0', '0', 'at least 1'),
  row('retrain', '--config {config} --all --needs.gpus 1', 'needs', 'local'),
  row('retrain', '--config {config} --all --on ray --needs.cpus 0', '0', '1'),
  row(
    'retrain', '--config {config} --all --on ray --needs.gpus 1.5', '1.5',
    'whole number',
  ),
  row(
    'retrain', '--config {config} --all --on ray --needs.gpus -1', '-1',
    'at least 0',
  ),
  row('retrain', '--config {config} --sample 82', '82', '81 architectures'),
  row('retrain', '--config {config} --sample 0', '0', 'at least 1'),
  row('retrain', '--config {config} --archs {tmp}/no', 'no', 'give a file'),
  row('retrain', '--config {config} --archs {config}', 'line 2', 'digits'),
  row('retrain', '--config {config} --all --sample 3', 'one of', '--sample'),
  row('retrain', '--config {config} --gather', '--gather', 'give --workdir'),
  row('retrain', '--config {config} --only 0000', '--only', 'give --workdir'),
  row('retrain', '--config {config} --arch 0 --workers 2', '--arch', '--all'),
  row('retrain', '--workdir {tmp}/no --gather', 'no run', '--config'),
  row('sweep', '--config {config}', 'say what', '--set'),
  row('sweep', '--config {config} --set epochs=x', "'x'", 'integer'),
  row(
    'sweep', '--config {config} --set epochs=1 --only 3 --workdir {tmp}/no',
    "'3'", 'name one',
  ),
  row(
    'sweep', '--config {config} --set data.batch_size=99999', '99999',
    'images',
  ),
  row(
    'compare', '--config {config} --samplers uniform --gather --dry_run '
    '--workdir {tmp}/no', 'exclude', '--gather',
  ),
  row(
    'reproduce', 'table6 --out {tmp}/out --results {tmp}/r --only 3', "'3'",
    '--dry_run',
  ),
]  # fmt: skip


@pytest.mark.parametrize('refusal', REFUSED)
def test_bad_flags_are_one_line(refusal, tmp_path, capsys):
  refused(refusal, tmp_path, capsys)


# A table, architecture by architecture.


@pytest.fixture
def trained(monkeypatch):
  """Architectures and seeds that were trained, by a trainer that takes no
  time."""
  calls: list = []

  def make_trainer(built, workdir, preemption, **_):
    def trainer(arch_E, seed):
      name = SPACE.format(arch_E)
      if name == '2222':
        raise ArithmeticError('the loss of 2222 is not finite.')
      calls.append((name, seed))
      return (float(arch_E.sum()) + 0.1 * seed) / 10

    return trainer

  monkeypatch.setattr(retraining, 'make_trainer', make_trainer)
  return calls


@pytest.fixture
def begun(tmp_path, trained):
  """Flags, and the folder of a table of five architectures."""
  (tmp_path / 'tiny.py').write_text(TINY)
  (tmp_path / 'archs').write_text('0000\n0001\n0002\n0010\n2222\n')
  run = tmp_path / 'run'
  return ['--workdir', str(run)], run, [
    '--config', str(tmp_path / 'tiny.py'), '--archs', str(tmp_path / 'archs'),
  ]  # fmt: skip


def in_this_process(monkeypatch):
  """Tasks are calls, which is what their processes make."""

  def run(work, tell):
    for task in work.tasks:
      try:
        retrain.main([*work.argv, '--only', task.name])
        tell(tasks.Ended(task, 'finished'))
      except SystemExit as ended:
        assert ended.code == 1
        tell(tasks.Ended(task, 'failed', 'error: it failed'))

  monkeypatch.setattr(EXECUTORS, 'get', lambda name: run)


@pytest.mark.parametrize(
  'each', ['3', pytest.param('1', marks=pytest.mark.slow)]
)
def test_a_table_from_tasks(begun, trained, monkeypatch, capsys, each):
  in_this_process(monkeypatch)
  where, run, what = begun
  words = [*where, *what, '--workers', '2', '--each', each]
  assert retrain.main(words) == 1
  err = capsys.readouterr().err
  assert 'error: 2222: the loss of 2222' in err and '--resume' in err
  four = ['0000', '0001', '0002', '0010']
  assert sorted(trained) == [(arch, seed) for arch in four for seed in (0, 1)]
  table = truth.load(SPACE, run / 'table.json')
  np.testing.assert_allclose(
    table.accuracy_A, (table.archs_AxE.sum(1) + 0.05) / 10
  )
  assert [SPACE.format(arch_E) for arch_E in table.archs_AxE] == four
  # Nothing is trained twice, whoever asks.
  trained.clear()
  assert retrain.main([*where, '--resume', '--workers', '2']) == 1
  assert retrain.main([*where, '--gather']) == 0
  out = capsys.readouterr().out
  assert 'finished       4' in out and 'failed         1' in out
  assert '2222: error: the loss of 2222' in out
  (run.parent / 'archs').write_text('0000\n0001\n0012\n')
  assert retrain.main([*where, *what[2:], '--resume']) == 0
  assert trained == [('0012', 0), ('0012', 1)]
  assert len(truth.load(SPACE, run / 'table.json').archs_AxE) == 3


def test_a_table_begun_here_goes_on_in_tasks(
  begun, trained, monkeypatch, capsys
):
  where, run, what = begun
  (run.parent / 'archs').write_text('0000\n0001\n')
  assert retrain.main([*where, *what]) == 0
  whole = json.loads((run / 'table.json').read_text())
  in_this_process(monkeypatch)
  (run.parent / 'archs').write_text('0000\n0001\n0011\n')
  trained.clear()
  again = [*where, *what[2:], '--resume', '--workers', '2']
  assert retrain.main(again) == 0
  assert trained == [('0011', 0), ('0011', 1)]
  wider = json.loads((run / 'table.json').read_text())
  assert whole['accuracy'].items() < wider['accuracy'].items()
  # A result whose rows are gone is made anew.
  (folder,) = run.glob('tasks/*/*')
  (folder / 'results.jsonl').unlink()
  good = [r for r in (run / 'results.jsonl').read_text().splitlines()
          if '0011' not in r]  # fmt: skip
  (run / 'results.jsonl').write_text('\n'.join(good) + '\n')
  assert retrain.main([*where, '--gather']) == 0
  assert 'finished       2' in capsys.readouterr().out
  (folder / 'result.json').unlink()
  assert retrain.main(again) == 0
  assert len(trained) == 4


def test_what_is_left_costs(begun, trained, capsys):
  where, run, what = begun
  assert retrain.main([*where, *what, '--dry_run']) == 0
  out = capsys.readouterr().out
  assert '10 trainings are left, of 5 networks x 2 seeds' in out
  assert 'hours unknown' in out and not run.exists()
  (run.parent / 'archs').write_text('0000\n0001\n')
  retrain.main([*where, *what])
  capsys.readouterr()
  retrain.main([*where, '--all', '--resume', '--dry_run', '--workers', '2'])
  out = capsys.readouterr().out
  assert '158 trainings are left, of 81 networks x 2 seeds' in out
  assert 'hours, 2 at once, at 0.0 s each (the mean of 4 that are done)' in out


def test_more_than_a_day_is_warned_of(tmp_path, capsys):
  (tmp_path / 'x').write_bytes(b'x' * 1000)
  given = cost.Estimate(6561 * 3, 'all', [600, 1200], [tmp_path], 6561)
  cost.show(given, flags.Gathers(experiment=Config(), on='slurm'))
  out = capsys.readouterr().out
  assert '76.89 hours, 64 at once' in out and 'warning: that is 3.2 days' in out
  assert '0.00656 GB in 6,561 files of 6,561 folders' in out


# Folders and processes of tasks.


def work_of(root, *names, result=True):
  root.mkdir(exist_ok=True)
  found = [
    tasks.Task(
      name,
      stub_task.folder_of(root, name),
      stub_task.folder_of(root, name) / 'done' if result else None,
    )
    for name in names
  ]
  return tasks.begin(root, 'support.stub_task', ['--workdir', str(root)], found)


def starts(root, name):
  return (stub_task.folder_of(root, name) / 'starts').stat().st_size


def test_folders_are_sharded_and_named_by_what_they_train(tmp_path):
  made = {
    tasks.sharded(tmp_path, {'config': 'x', 'arch': str(n)})
    for n in range(1000)
  }
  assert len(made) == 1000
  assert len({folder.parent for folder in made}) <= 256
  assert all(f.name.startswith(f.parent.name) for f in made)


def test_work_goes_through_a_file(tmp_path):
  work = work_of(tmp_path, 'ok-1', 'ok-2')
  text = json.dumps(tasks.to_json(work))
  assert tasks.from_json(json.loads(text)) == work


def test_states_of_tasks(tmp_path):
  """And a folder that another machine does not see."""
  work = work_of(tmp_path / 'w', *'abcd')
  a, b, c, d = work.tasks
  for task in (a, b, c):
    task.folder.mkdir(parents=True)
  (a.folder / 'done').touch()
  tasks.fail(b.folder, 'error: full', 1)
  held = lock.Lock(c.folder / lock.NAME)
  states = [tasks.state(task)[0] for task in (a, b, c, d)]
  assert states == ['finished', 'failed', 'running', 'waiting']
  assert str(os.getpid()) in tasks.state(c)[1]
  held.release()
  assert tasks.state(c)[0] == 'waiting'
  # A process that was killed leaves the file behind.
  note = json.dumps(
    {'pid': 2**22 + 1, 'host': os.uname().nodename, 'since': ''}
  )
  (c.folder / lock.NAME).write_text(note)
  assert tasks.state(c)[0] == 'waiting'
  assert work_of(tmp_path / 'w', *'abcd').tasks == (b, c, d)
  elsewhere = work._replace(root=tmp_path / 'other')
  ended = tasks.attempt(elsewhere, d)
  assert ended.state == 'failed'
  assert 'give a folder that all machines share' in ended.line


def test_an_element_of_an_array_that_does_not_see_the_list(tmp_path, capsys):
  with pytest.raises(SystemExit) as error:
    worker.main([str(tmp_path / 'no' / 'tasks.json'), '0', '1'])
  said = capsys.readouterr().err
  assert error.value.code == 2 and 'tasks.json' in said
  assert 'give a folder that all machines share' in said


@pytest.mark.parametrize('what', ['root', 'shard', 'log', 'pipe'])
def test_no_task_is_led_out_of_its_root(what, tmp_path):
  """A folder that was handed over may hold links, and pipes nobody reads."""
  work = work_of(tmp_path / 'w', 'ok-1')
  (task,) = work.tasks
  outside = tmp_path / 'outside'
  outside.mkdir()
  log = task.folder / tasks.LOG
  if what == 'root':
    task.folder.parent.symlink_to(outside)
  elif what == 'shard':
    task.folder.parent.mkdir()
    task.folder.symlink_to(outside)
  else:
    task.folder.mkdir(parents=True)
    if what == 'log':
      log.symlink_to(outside / 'x')
    else:
      os.mkfifo(log)
  ended = tasks.attempt(work, task)
  assert ended.state == 'failed' and str(task.folder.parent) in ended.line
  assert not [*outside.iterdir()] and ended.line.count('\n') == 0


def test_a_task_starts_no_tasks():
  given = flags.Gathers(experiment=Config(), workers=2)
  assert given.in_processes
  assert not dataclasses.replace(given, only='0000').in_processes


def test_failures_of_one_reason_are_one_line():
  lines = driver.report({'a': 'error: full', 'b': 'error: full', 'c': 'odd'})
  assert lines == ['2 tasks, such as a: full', 'c: odd']


def test_workers_share_the_machine(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 5})
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  assert [share.cores for share in local.shares(2)] == [(0, 2), (1, 5)]
  assert [share.cores for share in local.shares(5)] == [
    (0,), (1,), (2,), (5,), (0,),
  ]  # fmt: skip
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,4')
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  two, four = local.shares(2), local.shares(4)
  assert [s.environment for s in two] == [
    {'CUDA_VISIBLE_DEVICES': '3'}, {'CUDA_VISIBLE_DEVICES': '4'},
  ]  # fmt: skip
  assert four[2].environment == {
    'CUDA_VISIBLE_DEVICES': '3', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.375',
  }  # fmt: skip
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert local.visible_gpus() == []


def run_local(work, stopped=lambda: False, workers=2):
  ended = []
  local.run(work, ended.append, stopped, workers)
  return {one.task.name: (one.state, one.line) for one in ended}


@pytest.mark.slow
def test_tasks_that_fail_or_are_killed_lose_no_others(tmp_path):
  names = ['ok-1', 'fails', 'killed', 'full', 'dies', 'ok-2']
  ended = run_local(work_of(tmp_path, *names))
  assert {name: state for name, (state, _) in ended.items()} == {
    'ok-1': 'finished', 'ok-2': 'finished', 'killed': 'finished',
    'fails': 'failed', 'full': 'failed', 'dies': 'failed',
  }  # fmt: skip
  assert ended['fails'][1] == 'error: the loss is not finite'
  assert ended['full'][1].endswith('No space left on device')
  assert ended['dies'][1] == 'error: killed by SIGKILL, 4 times'
  counts = [starts(tmp_path, name) for name in names]
  assert counts == [1, 1, 2, 1, 4, 1]
  if len(os.sched_getaffinity(0)) >= 2:
    cores = (stub_task.folder_of(tmp_path, 'ok-1') / 'cores').read_text()
    assert (
      cores.count(',') + 1 < len(os.sched_getaffinity(0)) or ',' not in cores
    )
  # Started again, it does only what is left.
  again = work_of(tmp_path, *names)
  assert {task.name for task in again.tasks} == {'fails', 'full', 'dies'}


def wait(until, seconds=60):
  end = time.monotonic() + seconds
  while not until():
    assert time.monotonic() < end, 'it took too long'
    time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_has_tasks_save_and_they_go_on(tmp_path):
  names = ['long-1', 'long-2', 'ok-3']
  both = [stub_task.folder_of(tmp_path, name) / 'trains' for name in names[:2]]
  ended = run_local(
    work_of(tmp_path, *names), lambda: all(file.exists() for file in both)
  )
  assert ended['long-1'][0] == ended['long-2'][0] == 'stopped'
  assert 'ok-3' not in ended
  assert {s for s, _ in run_local(work_of(tmp_path, *names)).values()} == {
    'finished'
  }
  assert starts(tmp_path, 'long-1') == 2


DRIVER = """
import sys
from pathlib import Path
from test_many import run_local, run_ray, work_of
print(run_local(work_of(Path(sys.argv[1]), *sys.argv[2:])))
"""


@pytest.mark.slow
def test_tasks_save_when_their_driver_is_killed(tmp_path):
  """And two drivers do not do the same."""
  root = tmp_path / 'root'
  root.mkdir()
  names = ['long-1', 'long-2']
  first = subprocess.Popen([sys.executable, '-c', DRIVER, str(root), *names])
  trains = [stub_task.folder_of(root, name) / 'trains' for name in names]
  wait(lambda: all(file.exists() for file in trains))
  # A second driver waits for what the first one's processes hold.
  found: dict = {}
  second = threading.Thread(
    target=lambda: found.update(run_local(work_of(root, *names)))
  )
  second.start()
  time.sleep(1)
  assert not found and [starts(root, name) for name in names] == [1, 1]
  first.send_signal(signal.SIGKILL)
  first.wait()
  second.join(60)
  assert {state for state, _ in found.values()} == {'finished'}
  assert [starts(root, name) for name in names] == [2, 2]


# A real Ray, on this machine.


def run_ray(work, stopped=lambda: False, workers=None):
  ray_here()
  ended = []
  ray.run(work, ended.append, stopped, workers, '', flags.Needs())
  return {one.task.name: (one.state, one.line) for one in ended}


def ray_here():
  pytest.importorskip('ray')


@pytest.mark.slow
def test_ray_does_each_task_once(tmp_path):
  """And starts again what was killed; what fails does so once."""
  names = [*(f'ok-{n}' for n in range(16)), 'killed', 'fails', 'full', 'dies']
  ended = run_ray(work_of(tmp_path, *names))
  bad = {
    name: line for name, (state, line) in ended.items() if state == 'failed'
  }
  assert len(ended) == 20 and {*bad} == {'fails', 'full', 'dies'}
  assert bad['fails'] == 'error: the loss is not finite'
  assert bad['full'].endswith('No space left on device')
  assert bad['dies'] == 'error: killed by SIGKILL, 4 times'
  assert [starts(tmp_path, name) for name in names] == 16 * [1] + [2, 1, 1, 4]
  left = work_of(tmp_path, *names).tasks
  assert {task.name for task in left} == {*bad}
  assert tasks.state(left[0])[0] == 'failed'


@pytest.mark.slow
def test_a_signal_has_tasks_of_ray_save(tmp_path):
  long = stub_task.folder_of(tmp_path, 'long-1')
  ended = run_ray(
    work_of(tmp_path, 'long-1'), lambda: (long / 'trains').exists()
  )
  assert ended['long-1'][0] == 'stopped' and (long / 'saved').exists()


# Where no cluster is: words of the command line, and what says so.
OF_MANY = [
  ('retrain', '--config {config} --all'),
  ('compare', '--config {config} --samplers uniform'),
  ('sweep', '--config {config} --set epochs=1'),
  ('reproduce', 'table6 --out {tmp}/out --results {tmp}/r'),
]


@pytest.mark.parametrize(('command', 'words'), OF_MANY)
@pytest.mark.parametrize('at', ['auto', 'nowhere', 'ray://head:10001'])
def test_a_cluster_that_is_not_there(
  command, words, at, tmp_path, capsys, monkeypatch
):
  """Nothing is written before Ray has joined it."""

  def init(address, **_):
    raise ConnectionError('Could not find any running Ray instance')

  monkeypatch.setitem(sys.modules, 'ray', SimpleNamespace(init=init))
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  on = row(
    command, f'{words} --on ray:{at}', f'at {at} (', 'any running Ray',
    'ray start --head',
  )  # fmt: skip
  refused(on.values[0], tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize('at', ['127.0.0.1:1', 'auto', 'nowhere'])
def test_ray_says_that_no_cluster_is_there(at, tmp_path, capsys, monkeypatch):
  ray_here()
  if at == 'auto':
    # Another test may have a cluster on this machine.
    monkeypatch.setenv('RAY_ADDRESS', '127.0.0.1:1')
  on = row(
    'retrain', f'--config {{config}} --all --on ray:{at}', 'Ray cluster',
    'nowhere' if at == 'nowhere' else '127.0.0.1:1', 'ray start --head',
  )  # fmt: skip
  refused(on.values[0], tmp_path, capsys)


@pytest.mark.parametrize('needs', ['cpus 5', 'gpus 3', 'cpus 3 --needs.gpus 1'])
def test_a_task_that_no_machine_of_a_cluster_has_room_for(
  needs, tmp_path, capsys, monkeypatch
):
  """Two machines have 6 cores and 2 GPUs together, and no task may have those
  of both."""
  machines = [
    {'Alive': alive, 'Resources': {'CPU': cpus, 'GPU': gpus}}
    for alive, cpus, gpus in ((True, 4, 0), (True, 2, 2), (False, 9, 9))
  ]
  cluster = SimpleNamespace(
    init=lambda **_: None, shutdown=lambda: None, nodes=lambda: machines
  )
  monkeypatch.setitem(sys.modules, 'ray', cluster)
  words = f'--config {{config}} --all --on ray --needs.{needs}'
  on = row('retrain', words, 'more than 4 CPU and 2 GPU', 'ask for less')
  refused(on.values[0], tmp_path, capsys)
  assert ray._share(cluster, flags.Needs()) == (1, 1)
  assert ray._share(cluster, flags.Needs(gpus=0.0, cpus=4)) == (4, 0)


@pytest.mark.slow
def test_a_task_that_needs_more_than_the_cluster_has(tmp_path, capsys):
  ray_here()
  words = '--config {config} --all --on ray --needs.cpus 99'
  on = row('retrain', words, 'a task needs 99 CPU', 'ask for less')
  refused(on.values[0], tmp_path, capsys)


def test_a_task_that_slurm_refuses(tmp_path, capsys, monkeypatch):
  """It is asked before any folder is made."""
  bin = tmp_path / 'bin'
  bin.mkdir()
  (bin / 'sbatch').write_text(
    '#!/bin/sh\ncase "$*" in *--gpus=9*--test-only*)\n'
    'echo sbatch: error: no such node >&2; exit 1;; esac\n'
  )
  (bin / 'sbatch').chmod(0o755)
  monkeypatch.setenv('PATH', f'{bin}:{os.environ["PATH"]}')
  words = '--config {config} --all --on slurm --needs.gpus 9'
  on = row('retrain', words, 'no such node', 'see --needs')
  refused(on.values[0], tmp_path, capsys)
  words = "--config {config} --all --on slurm --needs.sbatch '"
  on = row('retrain', words, 'No closing quotation', '--needs.sbatch')
  refused(on.values[0], tmp_path, capsys)
  # A flag alone is taken for one of this command, but for the equals sign.
  words = '--config {config} --all --on slurm --needs.sbatch=--gpus=9'
  on = row('retrain', words, 'no such node', 'see --needs')
  refused(on.values[0], tmp_path, capsys)
  # Nor do flags of the user's divide the tasks otherwise, or submit none.
  (bin / 'sbatch').write_text('#!/bin/sh\necho "$@"\n')
  needs = flags.Needs(sbatch='--array=7 -p all')
  given = slurm._sbatch(['--array=0-1%2'], needs, ['x']).split()
  assert given.index('--array=0-1%2') > given.index('--array=7')
  with pytest.raises(OSError, match='gives no job'):
    slurm.run(work_of(tmp_path / 'w', 'ok-1'), 1, needs)


@pytest.mark.parametrize(
  ('on', 'lacks', 'says'),
  [
    ('ray', 'ray', "pip install 'jaxnas[ray]'"),
    ('slurm', 'sbatch', 'on a machine of the cluster'),
  ],
)
def test_an_engine_that_is_not_installed(
  on, lacks, says, tmp_path, capsys, monkeypatch
):
  if lacks == 'ray':
    monkeypatch.setitem(sys.modules, 'ray', None)
  else:
    monkeypatch.setattr(shutil, 'which', lambda name: None)
  refused(
    row('retrain', f'--config {{config}} --all --on {on}', on, says).values[0],
    tmp_path,
    capsys,
  )


DRIVER_OF_RAY = DRIVER.replace('run_local', 'run_ray')


@pytest.mark.slow
def test_a_driver_of_ray_that_is_killed_loses_nothing(tmp_path):
  ray_here()
  root = tmp_path / 'root'
  root.mkdir()
  # A second task would wait for a second core.
  trains = stub_task.folder_of(root, 'long-1') / 'trains'
  first = subprocess.Popen(
    [sys.executable, '-c', DRIVER_OF_RAY, str(root), 'long-1']
  )
  wait(trains.exists, 120)
  first.kill()
  first.wait()
  ended = run_ray(work_of(root, 'long-1'))
  assert ended['long-1'][0] == 'finished' and starts(root, 'long-1') == 2


# Real trainings.


def accuracies(run):
  return json.loads((run / 'table.json').read_text())['accuracy']


@pytest.fixture(scope='module')
def here(tmp_path_factory):
  """A table of three architectures, made in this process."""
  folder = tmp_path_factory.mktemp('here')
  (folder / 'tiny.py').write_text(TINY)
  (folder / 'archs').write_text('0120\n2121\n0000\n')
  flags = [
    '--config', str(folder / 'tiny.py'), '--archs', str(folder / 'archs'),
  ]  # fmt: skip
  assert retrain.main([*flags, '--workdir', str(folder / 'run')]) == 0
  return flags, accuracies(folder / 'run')


@pytest.mark.slow
def test_processes_make_the_same_table_to_the_bit(here, tmp_path):
  """One process trains two architectures, another one."""
  flags, expected = here
  run = tmp_path / 'run'
  words = [*flags, '--workdir', str(run), '--workers', '2', '--each', '2']
  assert retrain.main(words) == 0
  assert len([*run.glob('tasks/*/*/log.txt')]) == 2
  assert accuracies(run) == expected
  of_tasks = [*run.glob('tasks/*/*/environment.json')]
  kernels = json.loads(of_tasks[0].read_text())['kernels']
  assert (
    kernels
    and json.loads((run / 'table.json').read_text())['kernels'] == kernels
  )
  # Checkpoints go with the training that needed them.
  assert not [*run.rglob('checkpoints')]
  assert truth.load(SPACE, run / 'table.json').seeds_AxS.shape == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize('kilobytes', [8, 60])
def test_a_worker_with_a_full_disk(kilobytes, here, tmp_path, capfd):
  """It is full as the training begins, or at its second checkpoint."""
  flags, expected = here
  run = tmp_path / 'run'
  given = config.load(flags[1])
  words = [*flags, '--workdir', str(run), '--workers', '2']
  saves = ['--checkpoint.every_minutes', '0.0001']
  with disks.small(rows.folder(run, given, '2121'), kilobytes) as grow:
    assert retrain.main([*words, *saves]) == 1
    err = capfd.readouterr().err
    (line,) = [line for line in err.splitlines() if 'error: ' in line]
    assert line.startswith('error: 2121: ') and 'No space left' in line
    assert accuracies(run) == {
      arch: value for arch, value in expected.items() if arch != '2121'
    }
    grow(10_000)
    assert retrain.main([*words, '--resume']) == 0
  assert accuracies(run) == expected


@pytest.mark.slow
@pytest.mark.parametrize('command', [compare, sweep])
def test_runs_of_processes_are_those_of_one(command, tmp_path, capsys):
  (tmp_path / 'tiny.py').write_text(TINY)
  given = {
    compare: ['--samplers', 'uniform+debias', '--seeds', '1'],
    sweep: ['--set', 'debias.temperature=None', '--set', 'seed=0,1'],
  }[command]
  found = []
  for more in ([], ['--workers', '2']):
    run = tmp_path / f'run{len(found)}'
    words = ['--config', str(tmp_path / 'tiny.py'), '--workdir', str(run)]
    assert command.main([*words, *given, *more]) == 0
    found.append(json.loads((run / 'results.json').read_text()))
  assert found[0] == found[1]
  count = 1 if command is compare else 2
  assert sum(map(len, found[0].values())) == count
  capsys.readouterr()
  assert command.main(['--workdir', str(run), '--gather']) == 0
  assert f'finished       {count}' in capsys.readouterr().out
  words = ['--workdir', str(run), '--resume', '--workers', '2', '--dry_run']
  assert command.main(words) == 0
  assert '0 trainings are left' in capsys.readouterr().out


def kill_once_it_has_saved(run, killed, over):
  """Kills the first training in a folder that has a whole checkpoint."""
  while not killed and not over.is_set():
    for saved in run.glob('tasks/*/*/seed_*/checkpoints/*'):
      folder = saved.parents[2]
      with contextlib.suppress(OSError, ValueError):
        if saved.name.isdigit():
          note = json.loads((folder / lock.NAME).read_text())
          os.kill(note['pid'], signal.SIGKILL)
          killed.append(folder)
          return
    time.sleep(0.01)


@pytest.fixture(scope='module')
def longer(tmp_path_factory):
  """Flags of a training that lasts until it can be killed, and its table."""
  folder = tmp_path_factory.mktemp('longer')
  (folder / 'tiny.py').write_text(TINY)
  (folder / 'archs').write_text('0120\n')
  flags = [
    '--config', str(folder / 'tiny.py'), '--archs', str(folder / 'archs'),
    '--retrain.seeds', '1', '--retrain.epochs', '30',
    '--checkpoint.every_epochs', '5',
  ]  # fmt: skip
  assert retrain.main([*flags, '--workdir', str(folder / 'run')]) == 0
  return flags, accuracies(folder / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('on', ['local', 'ray'])
def test_what_is_killed_goes_on_from_its_checkpoint(on, longer, tmp_path):
  if on == 'ray':
    ray_here()
  flags, expected = longer
  run, killed, over = tmp_path / 'run', [], threading.Event()
  killer = threading.Thread(
    target=kill_once_it_has_saved, args=(run, killed, over)
  )
  killer.start()
  more = ['--on', on, '--workers', '2']
  try:
    assert retrain.main([*flags, '--workdir', str(run), *more]) == 0
  finally:
    over.set()
    killer.join()
  assert killed, 'it ended before it could be killed'
  assert accuracies(run) == expected
  assert 'goes on at step' in (killed[0] / 'log.txt').read_text()


@pytest.mark.slow
def test_the_example_searches_with_optuna(tmp_path):
  pytest.importorskip('optuna')
  (tmp_path / 'tiny.py').write_text(TINY)
  example = Path(jaxnas.__file__).parents[1] / 'examples' / 'optuna_search.py'
  words = ['--config', 'tiny.py', '--ranking.every_epochs', '1',
           '--ranking.sample', '9', '--trials', '1']  # fmt: skip
  for trial in (0, 1):
    done = subprocess.run(
      [sys.executable, example, *words],
      cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # Both calls share the study.
    assert len(lines) == trial + 1 and f'{trial} COMPLETE' in lines[-1]
  assert len([*(tmp_path / 'trials').glob('*/correlation.json')]) == 2
