"""A training from a notebook or a script, and the folders that it takes."""

import datetime
import os
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest

import jaxnas
from jaxnas import config, rank
from jaxnas.config import run_folder
from jaxnas.experiment import build, contents, start
from jaxnas.runtime import cache, errors, files, lock, preemption, startup
from support import small_run


def test_deterministic_adds_to_the_flags_that_were_given(monkeypatch):
  given = '--xla_gpu_autotune_level=2'
  monkeypatch.setenv('XLA_FLAGS', given)
  for _ in range(2):
    startup.set_deterministic()
  # Kernels are still timed: nothing turns that off.
  assert os.environ['XLA_FLAGS'].split() == [given, *startup.DETERMINISTIC]
  assert 'autotune' not in ''.join(startup.DETERMINISTIC)


@pytest.fixture
def one_second(tmp_path, monkeypatch):
  """All that happens in a folder happens in this second."""
  monkeypatch.chdir(tmp_path)
  now = datetime.datetime(2026, 1, 2, 3, 4, 5)
  clock = types.SimpleNamespace(now=lambda: now)
  monkeypatch.setattr(
    run_folder, 'datetime', types.SimpleNamespace(datetime=clock)
  )
  return tmp_path / 'runs'


def test_runs_of_one_second_have_folders_of_their_own(one_second):
  claimed, ready = [], threading.Barrier(8)

  def claim():
    ready.wait()
    claimed.append(run_folder.claim('mine.py'))

  threads = [threading.Thread(target=claim) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  first = 'mine-20260102-030405'
  names = [first, *(f'{first}-{number}' for number in range(2, 9))]
  assert sorted(path.name for path in claimed) == sorted(names)
  assert sorted(path.name for path in one_second.iterdir()) == sorted(names)


def test_a_folder_that_cannot_be_made(one_second):
  one_second.touch()
  with pytest.raises(ValueError, match='runs is no folder: choose another --w'):
    run_folder.claim('mine.py')


def given(folder):
  """The config of a small run, and its table."""
  small_run.flags_in(folder)
  return config.load(str(folder / 'small.py')), folder / 'truth.json'


def test_a_folder_is_opened_as_the_command_does(
  small_space, one_second, monkeypatch
):
  monkeypatch.setenv('HOME', str(one_second.parent))
  experiment, table = given(one_second.parent)
  built = build.experiment(experiment)
  try:
    for what, workdir, at in (
      (built, 'a/b', 'a/b'),
      (built, '~/c', one_second.parent / 'c'),
      (built, None, 'runs/run-20260102-030405'),
      (experiment, None, 'runs/run-20260102-030405-2'),
    ):
      opened = start.start(what, workdir, table=str(table))
      assert str(opened.workdir) == str(at)
      assert run_folder.read_config(opened.workdir) == experiment
      assert (opened.workdir / contents.FILE).exists()
      assert opened.table is not None
      with pytest.raises(ValueError, match='holds a run already'):
        start.start(built, opened.workdir, table=table)
    assert start.start(built, 'a/b', table=table, resume=True)
    assert start.start(built, 'd').table is None
  finally:
    lock.release()


def test_the_shipped_table_is_found(tmp_path):
  experiment = config.Config(data=config.Data(batch_size=250))
  try:
    assert start.start(experiment, tmp_path / 'run').table is not None
  finally:
    lock.release()


@pytest.mark.slow
def test_a_notebook_trains_as_the_command_does(
  small, small_space, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  experiment, table = given(tmp_path)
  for options in ({}, {'resume': True}):
    run = jaxnas.run_experiment(experiment, 'runs/nb', table=table, **options)
    assert run.undebiased is None and 'kendall' in run.correlation
    # The folder is free again.
    assert not [*lock.kept(tmp_path / 'runs/nb/x')]
  ours, theirs = (
    files.read_npz(run / 'predictions.npz')['accuracy_A']
    for run in (tmp_path / 'runs/nb', small)
  )
  np.testing.assert_array_equal(ours, theirs)
  assert rank.main(['--run', 'runs/nb']) == 0
  with pytest.raises(ValueError, match=r'add resume=True .* another workdir\.'):
    jaxnas.run_experiment(experiment, 'runs/nb', table=table)


@pytest.mark.parametrize(
  ('said', 'in_python'),
  [
    ('give the --data.dir of its own.', 'give the data.dir of its own.'),
    ("'--resume' (or --table FILE).", "'resume=True' (or table FILE)."),
    # Paths and commands stay what they are.
    ('/x/a--resume is no folder.', None),
    ('make it: jaxnas.measure --run R --latency.', None),
    ('start one with ray start --head.', None),
  ],
)
@pytest.mark.parametrize('error', [ValueError, FileNotFoundError])
def test_errors_in_python_name_keywords(error, said, in_python, tmp_path):
  for end in (errors.CALL.usage(), errors.CALL.outcome(tmp_path)):
    with pytest.raises(error) as raised, end:
      raise error(said)
    assert str(raised.value) == (in_python or said)


def test_a_signal_in_a_notebook_says_how_to_go_on(monkeypatch, tmp_path):
  def stopped(*args, **kwargs):
    raise errors.Stopped

  monkeypatch.setattr(start, 'finish', stopped)
  with pytest.raises(errors.Stopped, match='goes on, with resume=True'):
    jaxnas.run_experiment(config.Config(), tmp_path)
  assert not [*lock.kept(tmp_path / 'x')]


def test_signals_are_left_to_the_main_thread():
  done = []

  def work():
    with preemption.Preemption() as stop:
      done.append(stop.asked())

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert done == [False]


@pytest.mark.parametrize('own', [None, 'mine'])
def test_programs_are_kept_where_jax_was_told(own, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  before = jax.config.jax_compilation_cache_dir
  own = own and str(tmp_path / own)
  jax.config.update('jax_compilation_cache_dir', own)
  try:
    startup.prepare_process()
    kept = jax.config.jax_compilation_cache_dir
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
  assert kept == (own or str(cache.folder('compiled')))


CALL = 'guards.check_main()'
# A script, and the line of it that each worker would run again.
SCRIPTS = [
  (f'{CALL}', 2),
  (f'for _ in range(1):\n  {CALL}', 3),
  (f'def f():\n  {CALL}\nf()', 4),
  (f'if True:\n  {CALL}', 3),
  (f"if __name__ == '__main__':\n  pass\n{CALL}", 4),
  (f"if __name__ == '__main__':\n  {CALL}", None),
  (f"if '__main__' == __name__:\n  {CALL}", None),
  (f"def f():\n  {CALL}\nif __name__ == '__main__':\n  f()", None),
]


@pytest.mark.parametrize(('text', 'line'), SCRIPTS)
def test_a_script_without_a_guard_is_told_so(text, line, tmp_path):
  file = tmp_path / 'script.py'
  file.write_text(f'from jaxnas.runtime import guards\n{text}\n')
  ended = subprocess.run(
    [sys.executable, str(file)], capture_output=True, text=True, check=False
  )
  if line is None:
    assert ended.returncode == 0, ended.stderr
    return
  said = ended.stderr.splitlines()[-1]
  assert said.startswith(f'ValueError: line {line} of {file} starts worker')
  assert "if __name__ == '__main__':" in said and 'data.workers to 0' in said


def test_code_without_a_file_needs_no_guard():
  code = f'from jaxnas.runtime import guards; {CALL}'
  subprocess.run([sys.executable, '-c', code], check=True)


SCRIPT = """
import jaxnas
from jaxnas import Config, Data, Ranking
given = Config(
  space='nas_bench_201', warmup_epochs=1, epochs=0,
  data=Data(name='imagenet', dir='images', size=8, batch_size=8, workers=1),
  ranking=Ranking(archs=2, batch_size=8))
jaxnas.run_experiment(given, 'run')
"""


@pytest.mark.slow
def test_workers_of_a_script_without_a_guard_are_never_started(tmp_path):
  (tmp_path / 'script.py').write_text(SCRIPT)
  ended = subprocess.run(
    [sys.executable, 'script.py'],
    cwd=tmp_path, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert ended.returncode == 1
  assert 'line 8 of ' in ended.stderr.splitlines()[-1]
  assert not (tmp_path / 'run').exists()
