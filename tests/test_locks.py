"""Two processes at one place: only one of them works there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxnas import config, locks, prepared, runs

HOST = socket.gethostname()

HOLDS = """
import sys, time
from pathlib import Path
from jaxnas import locks
locks.keep(Path(sys.argv[1]))
print('holds', flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def released():
  yield
  locks.release()


@pytest.fixture
def holder(tmp_path):
  """Another process, which holds a folder."""
  child = subprocess.Popen(
    [sys.executable, '-c', HOLDS, str(tmp_path / 'run')],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert child.stdout is not None and child.stdout.readline() == 'holds\n'
  yield child
  child.kill()
  child.communicate()


def end(child, number):
  child.send_signal(number)
  child.wait(timeout=30)


def test_the_second_is_refused_and_changes_nothing(holder, tmp_path):
  with pytest.raises(locks.Locked) as raised:
    runs.open_run(tmp_path / 'run', config.Config(), resume=True)
  said = str(raised.value)
  assert f'process {holder.pid} on {HOST} since 2' in said
  assert '--workdir' in said and '\n' not in said
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['.lock']


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_one_held_is_free(holder, tmp_path, number):
  end(holder, number)
  assert (tmp_path / 'run' / '.lock').exists()
  locks.keep(tmp_path / 'run')
  locks.keep(tmp_path / 'run')
  locks.release()
  assert not (tmp_path / 'run' / '.lock').exists()


def left(folder, age_s, **who):
  """A lock that nobody took away, untouched for so long."""
  folder.mkdir()
  file = folder / '.lock'
  file.write_text(json.dumps({'since': 'then', **who}))
  os.utime(file, (time.time() - age_s,) * 2)
  return file


def test_a_number_that_another_process_has_now_holds_nothing(tmp_path):
  left(tmp_path / 'run', 0, pid=os.getppid(), host=HOST)
  locks.keep(tmp_path / 'run')


def test_another_machine_holds_as_long_as_it_touches_the_file(tmp_path):
  file = left(tmp_path / 'run', locks.GONE_S - 9, pid=1, host='elsewhere')
  with pytest.raises(locks.Locked, match='process 1 on elsewhere since then'):
    locks.keep(tmp_path / 'run')
  assert time.time() - file.stat().st_mtime > locks.GONE_S - 10
  os.utime(file, (time.time() - locks.GONE_S - 1,) * 2)
  locks.keep(tmp_path / 'run')


def test_a_file_system_without_locks_goes_by_age_alone(tmp_path, monkeypatch):
  def unsupported(*_):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(locks.fcntl, 'lockf', unsupported)
  file = left(tmp_path / 'run', 0, pid=1, host=HOST)
  with pytest.raises(locks.Locked):
    locks.keep(tmp_path / 'run')
  os.utime(file, (time.time() - locks.GONE_S - 1,) * 2)
  locks.keep(tmp_path / 'run')


def test_a_lock_cut_short_holds_nothing(tmp_path):
  left(tmp_path / 'run', 0).write_text('{"pid": 1, "ho')
  locks.keep(tmp_path / 'run')


def test_the_holder_touches_it(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, 'BEAT_S', 0.02)
  locks.keep(tmp_path)
  file = tmp_path / '.lock'
  os.utime(file, (0, 0))
  until = time.monotonic() + 30
  while file.stat().st_mtime == 0:
    assert time.monotonic() < until
    time.sleep(0.02)


PREPARES = """
import sys, time
from pathlib import Path
from jaxnas import prepared
def write(complete, scratch):
  print('writes', flush=True)
  while not Path(sys.argv[2]).exists():
    time.sleep(0.02)
  complete.write_text('made')
print(prepared.once(
  Path(sys.argv[1]), write, whole=lambda: True, otherwise='other'
).made, flush=True)
"""


def prepares(tmp_path):
  return subprocess.Popen(
    [
      sys.executable, '-c', PREPARES, str(tmp_path / 'deep' / 'data'),
      str(tmp_path / 'go'),
    ],
    stdout=subprocess.PIPE,
    text=True,
  )  # fmt: skip


def test_who_prepares_the_same_waits_and_finds_it_done(tmp_path):
  first = prepares(tmp_path)
  assert first.stdout.readline() == 'writes\n'
  second = prepares(tmp_path)
  assert second.stdout.readline() == (
    f'waiting for process {first.pid} on {HOST} since '
    + json.loads((tmp_path / 'deep' / '.jaxnas-data.lock').read_text())['since']
    + '\n'
  )
  (tmp_path / 'go').touch()
  assert first.communicate(timeout=60)[0] == 'True\n'
  assert second.communicate(timeout=60)[0] == 'False\n'
  assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['data']


def test_or_does_it_where_the_first_was_killed(tmp_path):
  first = prepares(tmp_path)
  assert first.stdout.readline() == 'writes\n'
  second = prepares(tmp_path)
  assert second.stdout.readline().startswith('waiting for')
  end(first, signal.SIGKILL)
  first.stdout.close()
  assert second.stdout.readline() == 'writes\n'
  (tmp_path / 'go').touch()
  assert second.communicate(timeout=60)[0] == 'True\n'
  # Nor does the scratch folder of the first stay.
  assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['data']


def test_a_failure_leaves_no_folders(tmp_path):
  def write(complete, scratch):
    raise ValueError('no')

  for final in (tmp_path / 'a' / 'b' / 'data', tmp_path / 'data'):
    with pytest.raises(ValueError, match='no'):
      prepared.once(final, write, whole=lambda: True, otherwise='other')
  assert list(tmp_path.iterdir()) == []


def test_files_are_written_whole_or_not_at_all(tmp_path):
  file = tmp_path / 'values.npz'
  runs.write_npz(file, {'x': np.arange(3)})
  with pytest.raises(ValueError, match='Object arrays'):
    runs.write_npz(file, {'x': np.array([object()])})
  with pytest.raises(ValueError, match='Out of range'):
    runs.write_json(tmp_path / 'values.json', float('nan'))
  np.testing.assert_array_equal(runs.read_npz(file)['x'], np.arange(3))
  assert [path.name for path in tmp_path.iterdir()] == ['values.npz']
