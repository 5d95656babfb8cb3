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

from jaxnas import config
from jaxnas.config import run_folder
from jaxnas.runtime import files, lock, once

HOST = socket.gethostname()

HOLDS = """
import sys, time
from pathlib import Path
from jaxnas.runtime import lock
lock.keep(Path(sys.argv[1]))
print('holds', flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def released():
  yield
  lock.release()


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
  with pytest.raises(lock.Locked) as raised:
    run_folder.open_run(tmp_path / 'run', config.Config(), resume=True)
  said = str(raised.value)
  assert f'process {holder.pid} on {HOST} since 2' in said
  assert '--workdir' in said and '\n' not in said
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['.lock']


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_one_held_is_free(holder, tmp_path, number):
  end(holder, number)
  assert (tmp_path / 'run' / '.lock').exists()
  lock.keep(tmp_path / 'run')
  lock.keep(tmp_path / 'run')
  lock.release()
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
  lock.keep(tmp_path / 'run')


def test_another_machine_holds_as_long_as_it_touches_the_file(tmp_path):
  file = left(tmp_path / 'run', lock.GONE_S - 9, pid=1, host='elsewhere')
  with pytest.raises(lock.Locked, match='process 1 on elsewhere since then'):
    lock.keep(tmp_path / 'run')
  assert time.time() - file.stat().st_mtime > lock.GONE_S - 10
  os.utime(file, (time.time() - lock.GONE_S - 1,) * 2)
  lock.keep(tmp_path / 'run')


def test_a_file_system_without_locks_goes_by_age_alone(tmp_path, monkeypatch):
  def unsupported(*_, **__):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(lock.filelock, 'lock_descriptor', unsupported)
  file = left(tmp_path / 'run', 0, pid=1, host=HOST)
  with pytest.raises(lock.Locked):
    lock.keep(tmp_path / 'run')
  os.utime(file, (time.time() - lock.GONE_S - 1,) * 2)
  lock.keep(tmp_path / 'run')


def test_a_time_that_lies_ahead_is_of_a_clock_set_back(tmp_path):
  left(tmp_path / 'run', -3600, pid=1, host='elsewhere')
  lock.keep(tmp_path / 'run')


def test_looking_at_who_holds_a_folder_waits_for_nobody(tmp_path):
  os.mkfifo(tmp_path / lock.NAME)
  assert lock.holder(tmp_path) is None
  with os.fdopen(os.open(tmp_path / lock.NAME, os.O_RDWR)):
    assert lock.holder(tmp_path) is None
  file = tmp_path / 'far' / lock.NAME
  file.parent.mkdir()
  file.write_text(json.dumps({'pid': 1, 'host': 'far', 'since': 'now'}))
  assert lock.holder(file.parent) == 'process 1 on far since now'
  for age in (-3600, 3600):
    os.utime(file, (time.time() - age,) * 2)
    assert lock.holder(file.parent) is None


def test_one_that_is_suspended_holds_its_folder(holder, tmp_path):
  holder.send_signal(signal.SIGSTOP)
  file = tmp_path / 'run' / '.lock'
  os.utime(file, (time.time() - lock.GONE_S - 1,) * 2)
  with pytest.raises(lock.Locked, match=f'process {holder.pid}'):
    lock.keep(tmp_path / 'run')
  holder.send_signal(signal.SIGCONT)
  with pytest.raises(lock.Locked):
    lock.keep(tmp_path / 'run')


def test_one_that_was_taken_for_dead_stops(tmp_path, monkeypatch):
  """The kernel's lock does not reach other machines."""

  def unsupported(*_, **__):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(lock.filelock, 'lock_descriptor', unsupported)
  lock.keep(tmp_path)
  os.utime(tmp_path / '.lock', (time.time() - lock.GONE_S - 1,) * 2)
  later = lock.Lock(tmp_path / '.lock')
  with pytest.raises(lock.Lost, match='taken over'):
    [*lock.kept(tmp_path / 'metrics.jsonl')]
  lock.release()
  assert later.own()
  later.release()
  assert not [*tmp_path.iterdir()]


def test_a_lock_cut_short_holds_nothing(tmp_path):
  left(tmp_path / 'run', 0).write_text('{"pid": 1, "ho')
  lock.keep(tmp_path / 'run')


def test_the_holder_touches_it(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'BEAT_S', 0.02)
  lock.keep(tmp_path)
  file = tmp_path / '.lock'
  os.utime(file, (0, 0))
  until = time.monotonic() + 30
  while file.stat().st_mtime == 0:
    assert time.monotonic() < until
    time.sleep(0.02)


PREPARES = """
import sys, time
from pathlib import Path
from jaxnas.runtime import once
def write(complete, scratch):
  print('writes', flush=True)
  while not Path(sys.argv[2]).exists():
    time.sleep(0.02)
  complete.write_text('made')
print(once.once(
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
      once.once(final, write, whole=lambda: True, otherwise='other')
  assert list(tmp_path.iterdir()) == []


def test_files_are_written_whole_or_not_at_all(tmp_path):
  file = tmp_path / 'values.npz'
  files.write_npz(file, {'x': np.arange(3)})
  with pytest.raises(ValueError, match='Object arrays'):
    files.write_npz(file, {'x': np.array([object()])})
  with pytest.raises(ValueError, match='Out of range'):
    files.write_json(tmp_path / 'values.json', float('nan'))
  np.testing.assert_array_equal(files.read_npz(file)['x'], np.arange(3))
  assert [path.name for path in tmp_path.iterdir()] == ['values.npz']
