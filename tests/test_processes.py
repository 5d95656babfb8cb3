"""Two real processes with two devices each, that train together."""

import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import train
from jaxnas.runtime import cluster, errors, files, jsonl, preemption, processes
from jaxnas.runtime.preemption import Preemption
from jaxnas.training import loop, step
from jaxnas.training.checkpoint import Checkpoints
from support import small_run
from support.many_devices import environment

TRAIN = [sys.executable, '-m', 'support.small_run']
HEARTBEAT_S = 20
# Twenty steps an epoch.
ON_MESH = [
  '--mesh.data', '4', '--supernet.bn_groups', '4', '--data.batch_size', '24',
  '--debias.temperature', '0.1',
]  # fmt: skip


def begun(folder, *more, devices=2, count=2):
  """The processes, and the run they write."""
  flags, run = small_run.flags_in(folder)
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  together = [
    '--distributed.coordinator', f'localhost:{port}',
    '--distributed.num_processes', str(count),
    '--distributed.heartbeat_s', str(HEARTBEAT_S),
  ]  # fmt: skip
  children = []
  for rank in range(count):
    own = [*together, '--distributed.process_id', str(rank)]
    children.append(
      subprocess.Popen(
        [*TRAIN, *flags, *more, *(own if count > 1 else [])],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(devices),
      )
    )
  return children, run


def ended(children):
  """Exit codes, and what was said."""
  said = [child.communicate(timeout=300)[1] for child in children]
  return [child.returncode for child in children], said


def trained_a_while(run):
  """Waits for the first row of metrics."""
  end_s = time.monotonic() + 300
  while not jsonl.read_rows(run / 'metrics.jsonl', {'step': int}):
    assert time.monotonic() < end_s
    time.sleep(0.1)


def rows(run):
  return [
    (row['step'], row.get('loss'))
    for row in jsonl.read_rows(run / 'metrics.jsonl', {'step': int})
  ]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """One process with four devices."""
  children, run = begun(
    tmp_path_factory.mktemp('one'), *ON_MESH, devices=4, count=1
  )
  codes, said = ended(children)
  assert codes == [0], said
  return run


def same_run(one, other):
  (steps, losses), (steps_too, losses_too) = (
    zip(*rows(run), strict=True) for run in (one, other)
  )
  assert steps == steps_too
  np.testing.assert_allclose(
    np.array(losses, float), np.array(losses_too, float), rtol=1e-3
  )
  np.testing.assert_array_equal(
    *(files.read_npz(run / 'samples.npz')['samples_A'] for run in (one, other))
  )
  alphas = [
    files.read_npz(run / 'density.npz')['alpha_A'] for run in (one, other)
  ]
  np.testing.assert_allclose(*alphas, rtol=1e-3)
  # Of 30 images; rounding may turn one.
  ranked = [
    files.read_npz(run / 'predictions.npz')['accuracy_A']
    for run in (one, other)
  ]
  np.testing.assert_allclose(*ranked, atol=0.04)


@pytest.mark.slow
def test_two_processes_do_what_one_does(whole, tmp_path):
  """Training, density and ranking."""
  children, run = begun(tmp_path, *ON_MESH)
  codes, said = ended(children)
  assert codes == [0, 0], said
  same_run(whole, run)
  book = json.loads((run / 'ledger.json').read_text())['seconds']
  assert min(book['init'], book['compile'], book['train'], book['rank']) > 0


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_the_same_step(whole, tmp_path):
  """And one process, with other devices, goes on as if nothing had been."""
  children, run = begun(tmp_path, *ON_MESH)
  trained_a_while(run)
  children[1].send_signal(signal.SIGTERM)
  codes, said = ended(children)
  assert codes == [143, 143], said
  assert all('go on with --workdir' in text for text in said)
  with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
    assert 10 <= checkpoints.steps()[-1] < 40
  with small_run.registered():
    flags = ['--workdir', str(run), '--resume', '--mesh.data', '1']
    assert train.main(flags) == 0
  same_run(whole, run)


@pytest.mark.slow
def test_where_one_is_killed_the_other_ends_and_nothing_is_broken(
  whole, tmp_path
):
  children, run = begun(tmp_path, *ON_MESH)
  trained_a_while(run)
  children[1].kill()
  killed_s = time.monotonic()
  codes, said = ended(children)
  assert codes[0] not in (0, 2, 143) and codes[1] == -signal.SIGKILL
  assert time.monotonic() - killed_s < HEARTBEAT_S + 60
  assert 'another process' in said[0] or 'distributed service' in said[0]
  children, run = begun(tmp_path, *ON_MESH, '--resume')
  codes, said = ended(children)
  assert codes == [0, 0], said
  same_run(whole, run)


BAD = [
  ({'num_processes': 2}, 'belong together'),
  (
    {'coordinator': 'host:1', 'num_processes': 2, 'process_id': 2},
    r'must be in \[0, 1\]',
  ),
  (
    {'coordinator': 'host', 'num_processes': 2, 'process_id': 0},
    'must be HOST:PORT',
  ),
  ({'heartbeat_s': 0}, 'must be at least 1'),
]


@pytest.mark.parametrize(('flags', 'says'), BAD, ids=[says for _, says in BAD])
def test_flags_that_do_not_say_which_processes_are_refused(flags, says):
  with pytest.raises(ValueError, match=says):
    processes.start(processes.Distributed(**flags))


SLURM = {
  'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '2',
  'SLURM_LOCALID': '0', 'SLURM_JOB_ID': '5', 'SLURM_STEP_NODELIST': 'one',
}  # fmt: skip
OPEN_MPI = {
  'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3',
  'OMPI_COMM_WORLD_LOCAL_RANK': '3', 'OMPI_MCA_orte_hnp_uri': '1.0;tcp://a:1',
}  # fmt: skip


@pytest.fixture
def started(monkeypatch):
  """Joins processes where these variables alone speak of a cluster.

  Returns what JAX was called with: nothing where one process runs alone.
  """
  joined = []
  for name in (*SLURM, *OPEN_MPI):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(
    'jax.distributed.initialize', lambda *args, **kwargs: joined.append(args)
  )

  def start(env, **flags):
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    processes.start(processes.Distributed(**flags))
    return joined

  return start


@pytest.mark.parametrize(
  ('env', 'several'),
  [
    ({}, False),
    ({'SLURM_STEP_NUM_TASKS': '1'}, False),
    # As in an interactive job, which is no step.
    ({'SLURM_NTASKS': '2', 'SLURM_PROCID': '0'}, False),
    (SLURM, True),
    (OPEN_MPI, True),
    # mpirun in a job of Slurm: one of them is enough.
    (OPEN_MPI | {'SLURM_STEP_NUM_TASKS': '2'}, True),
  ],
)
def test_a_cluster_is_noticed(started, env, several):
  assert started(env) == [(None, None, None)] * several


@pytest.mark.parametrize('env', [SLURM, OPEN_MPI, {'SLURM_STEP_NUM_TASKS': ''}])
def test_one_process_can_be_forced(started, env):
  assert started(env, num_processes=1) == []


WRONG = [
  (env, name, value)
  for env in (SLURM, OPEN_MPI)
  for number, name in enumerate(env)
  for value in (None, '', 'two', '-1', '²')
  # Without the first there is no cluster, and any text may be an address.
  if not (number == 0 and value is None)
  and not (value and name in ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST'))
  and not (value and name == 'OMPI_MCA_orte_hnp_uri')
]


@pytest.mark.parametrize(('env', 'name', 'value'), WRONG)
def test_a_variable_that_a_cluster_should_have_set_is_named(
  started, env, name, value
):
  given = {key: text for key, text in env.items() if key != name}
  if value is not None:
    given[name] = value
  state = 'is not set' if value is None else f'is {value!r}'
  says = rf'^{name} {state}[:,].*num_processes 1 runs this process alone\.$'
  with pytest.raises(ValueError, match=says):
    started(given)


def test_a_number_beyond_that_of_processes_is_refused(started):
  with pytest.raises(ValueError, match='SLURM_PROCID is 2, of SLURM_STEP_NUM'):
    started(SLURM | {'SLURM_PROCID': '2'})


@pytest.mark.parametrize(
  ('found', 'says'),
  [
    (cluster.Found(2, 0, 'SLURM_STEP_NUM_TASKS'),
     'process 1 of 2 (SLURM_STEP_NUM_TASKS is 2)'),
    (cluster.Found(8, 1), 'processes 0, 2, 3, ... of 8'),
    (cluster.Found(), 'the other processes'),
  ],
)  # fmt: skip
def test_waiting_for_other_processes_is_told(found, says, monkeypatch, capsys):
  ended = []
  monkeypatch.setattr(cluster, 'TELL_AFTER_S', 0.01)
  monkeypatch.setattr(cluster, 'JOINED_WITHIN_S', 0.02)
  monkeypatch.setattr(cluster.os, '_exit', ended.append)
  with cluster.waiting(found):
    while not ended:
      time.sleep(0.001)
  assert ended == [1]
  waits, fails = capsys.readouterr().err.splitlines()
  alone = '; --distributed.num_processes 1 runs this process alone'
  assert waits == f'waiting for {says}{alone}'
  assert fails.startswith('error: ') and fails.endswith(alone)
  monkeypatch.setattr(cluster, 'TELL_AFTER_S', 10.0)
  with cluster.waiting(found):
    pass
  assert capsys.readouterr().err == ''


@pytest.mark.slow
def test_a_process_that_waits_in_vain_ends_in_one_line(tmp_path):
  """JAX would end it with the stack of its C++."""
  code = """
import sys
from jaxnas import train
from jaxnas.runtime import cluster
cluster.TELL_AFTER_S, cluster.JOINED_WITHIN_S = 1, 3
train.main(sys.argv[1:])
"""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  ended = subprocess.run(
    [sys.executable, '-c', code, '--config', 'quickstart.py',
     '--distributed.coordinator', f'localhost:{port}',
     '--distributed.num_processes', '2', '--distributed.process_id', '0'],
    cwd=tmp_path, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert ended.returncode == 1 and not [*tmp_path.iterdir()]
  waits, fails = ended.stderr.splitlines()
  assert waits.startswith('waiting for process 1 of 2;')
  assert fails.startswith('error: process 1 of 2 did not come')


def raised_from(error, cause):
  try:
    raise error from cause
  except Exception as raised:
    return raised


GONE = jax.errors.JaxRuntimeError('UNAVAILABLE: no heartbeat')


@pytest.mark.parametrize(
  ('error', 'says'),
  [
    (GONE, 'another process of the run has ended'),
    (raised_from(ValueError('barrier'), GONE), 'another process of the run'),
    (OSError('disk'), 'error: disk'),
    # Memory is this process's own.
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 9'),
      'error: memory ran out',
    ),
    (ValueError('a fault of the program'), None),
  ],
)
def test_a_process_that_can_not_go_on_says_why(
  tmp_path, monkeypatch, capsys, error, says
):
  """It ends at once; other errors take their course."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(os, '_exit', sys.exit)
  with (
    pytest.raises(SystemExit if says else ValueError),
    processes.together(tmp_path),
  ):
    raise error
  assert (says or '') in capsys.readouterr().err


def test_one_process_agrees_with_itself():
  assert processes.first() and processes.agreed({'a': [1, None]}) == {
    'a': [1, None]
  }
  with pytest.raises(ValueError, match='no'):
    processes.by_first(lambda: (_ for _ in ()).throw(ValueError('no')))


def test_only_one_process_writes(monkeypatch, tmp_path):
  monkeypatch.setattr(files, '_writes', False)
  files.write_json(tmp_path / 'a.json', {})
  files.write_npz(tmp_path / 'a.npz', {'x': np.zeros(1)})
  assert not [*tmp_path.iterdir()]


def answers(monkeypatch, other):
  """Polls at a clock of its own; `other` answers beside this process."""
  clock = types.SimpleNamespace(s=0.0, monotonic=lambda: clock.s)
  asked = []

  def gather(own):
    asked.append(clock.s)
    return np.stack([own, np.array(other(clock.s), np.float32)])

  monkeypatch.setattr(preemption, 'time', clock)
  monkeypatch.setattr(preemption.multihost_utils, 'process_allgather', gather)
  return clock, asked


def test_training_asks_the_others_once_a_second(monkeypatch):
  """Steps take 10 ms here and 20 ms there; checks between epochs always ask."""
  clock, asked = answers(
    monkeypatch, lambda now_s: (False, 2 * (now_s - [0.0, *asked][-2]))
  )
  together = preemption.Together()
  for _ in range(1000):
    clock.s += 0.01
    assert not together.asked()
  gaps_s = np.diff(asked)
  assert gaps_s[0] < 0.1
  np.testing.assert_allclose(gaps_s[-5:], 0.5, atol=0.02)
  asked.clear()
  for _ in range(3):
    clock.s += 10
    together.check()
  assert len(asked) == 3


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_known_when_all_are_asked(monkeypatch, number):
  _, asked = answers(monkeypatch, lambda now_s: (False, 1.0))
  with preemption.Together() as together:
    # A second one changes nothing.
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert not together.requested
    assert together.asked() and together.requested
    with pytest.raises(errors.Stopped):
      together.check()
  assert len(asked) == 1


def test_another_process_has_the_signal(monkeypatch):
  answers(monkeypatch, lambda now_s: (now_s > 5, 1.0))
  with preemption.Together() as together:
    together.check()
    preemption.time.s = 6.0
    with pytest.raises(errors.Stopped):
      together.check()


def test_checkpoints_are_kept_by_time_too(monkeypatch):
  """One is written when the last is a minute old, mid-epoch too."""
  clock_s, saved = 0.0, []

  def trained(state, inputs):
    nonlocal clock_s
    clock_s += 25.0
    means = map(jnp.float32, (1.0, 0.5, 1.0))
    row = step.Metrics(*means, jnp.bool_(True), jnp.zeros((1, 4), int))
    return dataclasses.replace(state, step=state.step + 1), row

  monkeypatch.setattr(loop.time, 'monotonic', lambda: clock_s)
  nothing = dict.fromkeys(
    ('params', 'statistics', 'average', 'optimizer', 'sampler', 'images'), ()
  )
  loop.fit(
    step.TrainState(step=jnp.int32(0), samples=jnp.int32(0), **nothing),
    trained,
    lambda at: iter_of(itertools.repeat(None)),
    loop.Schedule(5, 2, 4, 1, save_minutes=1.0),
    save=lambda state, rows: saved.append(int(state.step)),
    record=lambda step, row: None,
    images_per_step=1,
    guessing_loss=9.0,
    preemption=Preemption(),
    label=None,
  )
  assert saved == [3, 5, 8, 10]


def iter_of(items):
  yield from items
