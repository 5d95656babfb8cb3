"""The seconds in which a command imports its modules."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxnas.runtime import loading

# It stops inside an import, as slow ones do, and turns KeyboardInterrupt into
# another error, as some libraries do.
SLOW = """
import os
import time
try:
  os.write(1, b'here\\n')  # print would be a word of the command
  time.sleep(60)
except KeyboardInterrupt as error:
  raise ImportError('cannot import') from error
"""


@pytest.fixture(autouse=True)
def as_in_a_terminal():
  """Lets this process, and children, take Ctrl-C also where it is ignored."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.fixture
def slow_jax(tmp_path):
  """A JAX that takes a minute to import, before the real one."""
  (tmp_path / 'jax.py').write_text(SLOW)
  return {**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ["PYTHONPATH"]}'}


def test_workers_of_a_command_are_no_commands(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['jaxnas', 'train'])
  assert loading.is_command()
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    assert not pool.apply(loading.is_command)


@pytest.mark.parametrize('module', ['jaxnas.train', 'jaxnas'])
def test_ctrl_c_during_imports_is_one_line(module, slow_jax, tmp_path):
  words = ['train'] if module == 'jaxnas' else []
  process = subprocess.Popen(
    [sys.executable, '-m', module, *words, '--config', 'quickstart.py'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=slow_jax,
    cwd=tmp_path,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == 'here\n'
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert (process.returncode, out) == (130, '')
  assert err.removeprefix(loading.SAYS) == 'stopped\n'


def test_a_command_that_is_silent_says_that_it_loads(slow_jax, tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-m', 'jaxnas.train', '--config', 'quickstart.py'],
    stderr=subprocess.PIPE,
    text=True,
    env=slow_jax,
    cwd=tmp_path,
  )
  assert process.stderr is not None
  assert process.stderr.readline() == loading.SAYS
  process.kill()
  process.communicate()


def test_what_has_spoken_is_not_spoken_for(capfd, monkeypatch):
  monkeypatch.setattr(loading, 'SILENT_S', 0.05)
  before = signal.getsignal(signal.SIGINT)
  loading.watch()
  try:
    assert signal.getsignal(signal.SIGINT) is loading.end
    loading.said()
    time.sleep(0.1)
    assert capfd.readouterr().err == ''
    loading.watch()
    time.sleep(0.1)
    assert capfd.readouterr().err == loading.SAYS
  finally:
    loading.over()
  assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
  ('argv', 'words', 'is_one'),
  [
    (['-m'], ['python', '-X', 'dev', '-m', 'jaxnas.train', '--seed'], True),
    (['-m'], ['python', '-m', 'jaxnas'], True),
    (['-m'], ['python', '-m', 'pytest', 'jaxnas'], False),
    (['/usr/bin/jaxnas', 'train'], ['python', '/usr/bin/jaxnas'], True),
    (['notebook.py'], ['python', 'notebook.py'], False),
    ([''], ['python'], False),
  ],
)
def test_a_command_is_told_from_a_script(argv, words, is_one, monkeypatch):
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.setattr(sys, 'orig_argv', words)
  assert loading.is_command() == is_one
