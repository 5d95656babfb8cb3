"""Machines that lack devices, memory, a home or letters.

Each lack is one line, in every command where it applies.
"""

import errno
import io
import os
import pwd
import shutil
import subprocess
import sys
import types

import jax
import pytest

from jaxnas import train
from jaxnas.bench import rivals
from jaxnas.report import __main__ as report
from jaxnas.runtime import (
  cache,
  errors,
  files,
  loading,
  memory,
  startup,
  streams,
)
from support.refusals import COMMANDS, CONFIG

# Flags of every command that computes; {run} is a finished run.
COMPUTING = {
  'train': '--config {config} --workdir {tmp}/new',
  'retrain': '--config {config} --workdir {tmp}/new --arch 0000',
  'compare': '--config {config} --workdir {tmp}/new --samplers uniform',
  # Other images than in training, whose ranking is kept.
  'rank': '--run {run} --workdir {tmp}/new --ranking.images 7',
  'search': '--run {run} --workdir {tmp}/new --population 2 --parents 2 '
  '--generations 1',
  'measure': '--run {run} --workdir {tmp}/new --archs 3',
  'export': '--run {run} --workdir {tmp}/new --arch best --batches 1',
}  # fmt: skip


@pytest.fixture
def call(tmp_path, small, small_space):
  """Calls a command by its name, on a run or a config."""
  (tmp_path / 'config.py').write_text(CONFIG)

  def calls(command, run=small):
    words = COMPUTING[command].split()
    places = {'tmp': tmp_path, 'config': tmp_path / 'config.py', 'run': run}
    return COMMANDS[command].main([word.format(**places) for word in words])

  return calls


def slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


def only_line(capture):
  """Returns the one line of an error, on a slow machine the second."""
  err = capture.readouterr().err.removeprefix(loading.SAYS)
  assert err.startswith('error: ') and err.count('\n') == 1, err
  return err


def raising(error):
  def raises(*args, **kwargs):
    raise error

  return raises


# JAX_PLATFORMS, what JAX raises, and the way out.
NO_DEVICE = [
  ('cuda', AssertionError(), "pip install 'jaxnas[cuda12]'"),
  ('tpu', RuntimeError("cannot initialize 'tpu': no\nlibtpu.so"),
   "pip install 'jaxnas[tpu]'"),
  ('rocm', RuntimeError("'rocm' is unknown"), "'rocm' is unknown): unset it"),
  (None, RuntimeError('the driver is too old'), 'JAX_PLATFORMS=cpu'),
]  # fmt: skip


@pytest.mark.parametrize(('asked', 'error', 'says'), NO_DEVICE)
def test_a_device_that_is_not_there(asked, error, says, monkeypatch):
  monkeypatch.setattr(jax, 'devices', raising(error))
  before = jax.config.jax_platforms
  jax.config.update('jax_platforms', asked)
  try:
    with pytest.raises(ValueError, match=r'^[^\n]*$') as no:
      startup.check_devices()
  finally:
    jax.config.update('jax_platforms', before)
  assert says in str(no.value)
  assert asked is None or f'JAX_PLATFORMS is {asked}, ' in str(no.value)


@pytest.mark.parametrize('command', COMPUTING)
def test_a_command_without_its_device(
  command, call, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(jax, 'devices', raising(AssertionError()))
  with pytest.raises(SystemExit) as ended:
    call(command)
  assert ended.value.code == 2
  assert 'JAX finds no ' in only_line(capsys)
  assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_a_process_without_its_device(tmp_path, monkeypatch, capfd):
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  command = [sys.executable, '-m', 'jaxnas.train', '--config', 'quickstart.py']
  assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 2
  assert 'jaxnas[cuda12]' in only_line(capfd)
  assert not [*tmp_path.iterdir()]
  with pytest.raises(SystemExit) as ended:
    rivals.device.__wrapped__()
  assert ended.value.code == 2
  assert 'jaxnas[cuda12]' in only_line(capfd)


FULL = jax.errors.JaxRuntimeError(
  'RESOURCE_EXHAUSTED: Out of memory allocating 17776883376 bytes.'
)
# A command, what finds no memory, and the fields that its line names.
NO_MEMORY = [
  ('train', 'training.loop.turns', 'data.batch_size or sampler.paths'),
  ('retrain', 'training.loop.turns', 'data.batch_size'),
  ('rank', 'supernets.evaluation.right', 'ranking.batch_size'),
  ('search', 'supernets.evaluation.right', 'ranking.batch_size'),
  slow(
    'measure', 'density.estimate', 'density.memory_gb or density.batch_size'
  ),
  ('measure', 'density.matrix', 'density.memory_gb or density.batch_size'),
  ('export', 'supernets.recalibration.statistics', '--batches'),
  slow('export', 'experiment.artifact.write', 'density.memory_gb'),
]


@pytest.mark.parametrize(('command', 'where', 'fields'), NO_MEMORY)
def test_memory_that_runs_out(
  command, where, fields, call, monkeypatch, capsys
):
  monkeypatch.setattr(f'jaxnas.{where}', raising(FULL))
  with pytest.raises(SystemExit) as ended:
    call(command)
  assert ended.value.code == 1
  line = only_line(capsys)
  assert f'{fields}, or take a machine with more.' in line
  assert 'allocating 17776883376 bytes' in line


@pytest.mark.parametrize('command', COMPUTING)
def test_memory_that_runs_out_before_the_work(
  command, call, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr('jaxnas.data.load', raising(MemoryError('80 GiB')))
  with pytest.raises(SystemExit) as ended:
    call(command)
  assert ended.value.code == 2
  assert '80 GiB): lower data.batch_size' in only_line(capsys)
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('command', COMPUTING)
def test_an_address_space_that_is_too_small_for_xla(
  command, call, tmp_path, monkeypatch, capsys
):
  """XLA would end the process by a segmentation fault."""
  monkeypatch.setattr(memory, 'of_process', lambda: 10**8)
  with pytest.raises(SystemExit) as ended:
    call(command)
  assert ended.value.code == 2
  assert 'may take 0.1 GB' in (line := only_line(capsys)) and 'ulimit' in line
  assert not (tmp_path / 'new').exists()


def ready(command, monkeypatch, fails):
  """Makes a command fail once its work has begun; returns its flags."""
  if command == 'prepare':
    monkeypatch.setattr('jaxnas.prepare._preparation', lambda args: fails)
    return ['nas_bench_macro', '--dir', 'new']
  if command == 'bench':
    monkeypatch.setattr('importlib.util.find_spec', lambda name: True)
    monkeypatch.setattr('jaxnas.bench.__main__.find', lambda args: [])
    monkeypatch.setattr('jaxnas.bench.__main__.where', fails)
    return ['step']
  machine = types.SimpleNamespace(name='x')
  built = types.SimpleNamespace(space=types.SimpleNamespace(counts=(2,)))
  for name, value in (
    ('__main__.to_plan', lambda names: [machine]),
    ('compiling.experiment', lambda *args: built),
    ('estimate.estimate', fails),
  ):
    monkeypatch.setattr(f'jaxnas.plan.{name}', value)
  return ['--config', 'quickstart.py', '--topology', 'x']


@pytest.mark.parametrize('command', ['prepare', 'plan', 'bench'])
@pytest.mark.parametrize(
  ('error', 'says'),
  [
    (FULL, 'memory ran out (JaxRuntimeError: RESOURCE_EXHAUSTED'),
    (MemoryError('9 GiB'), 'memory ran out (MemoryError: 9 GiB): '),
    (OSError(errno.ENOSPC, 'No space left on device', 'f'), 'f: No space left'),
  ],
)
def test_a_machine_that_is_too_small_for_other_commands(
  command, error, says, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  words = ready(command, monkeypatch, raising(error))
  with pytest.raises(SystemExit) as ended:
    COMMANDS[command].main(words)
  assert ended.value.code == 1
  *_, line = capsys.readouterr().err.splitlines()
  assert line.startswith(f'error: {says}')
  if says.startswith('memory'):
    assert line.endswith('take a machine with more.')


def test_only_memory_is_taken_for_memory():
  for error in (
    ValueError('memory'),
    jax.errors.JaxRuntimeError('INTERNAL: x'),
  ):
    with pytest.raises(type(error)), errors.memory_of('a'):
      raise error
  caused = RuntimeError('a library')
  caused.__cause__ = FULL
  with (
    pytest.raises(errors.OutOfMemory, match=': lower b, or'),
    errors.memory_of('a'),
    errors.memory_of('b'),
  ):
    raise caused


@pytest.fixture
def no_home(monkeypatch):
  """Nobody knows a home; caches that are made end with the test."""
  for name in ('HOME', 'XDG_CACHE_HOME', 'MPLCONFIGDIR'):
    # So that they are put back where they were not set before.
    monkeypatch.setenv(name, '')
    monkeypatch.delenv(name)
  monkeypatch.setattr(pwd, 'getpwuid', raising(KeyError('uid not found')))
  cache._temporary.cache_clear()
  yield
  if made := os.environ.get('XDG_CACHE_HOME'):
    shutil.rmtree(made, ignore_errors=True)
  cache._temporary.cache_clear()


@pytest.mark.parametrize('home', [None, '', 'a file', 'relative', '/proc'])
def test_without_a_home_caches_are_temporary(
  home, no_home, tmp_path, monkeypatch, capsys
):
  if home == 'a file':
    (tmp_path / home).touch()
    monkeypatch.setenv('HOME', str(tmp_path / home))
  elif home == '/proc':
    # Rights allow root to write there, and the system does not.
    monkeypatch.setenv('HOME', home)
  elif home is not None:
    monkeypatch.setenv('XDG_CACHE_HOME', home)
  for name in ('labels', 'native', 'compiled'):
    folder = cache.folder(name)
    folder.mkdir(parents=True)
    assert not folder.is_relative_to(tmp_path)
    assert folder.parents[1].stat().st_mode & 0o777 == 0o700
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and str(folder.parents[1]) in said
  assert ('no home directory' in said) == (home not in ('a file', '/proc'))
  # What a process starts, and matplotlib, find the same.
  assert os.environ['XDG_CACHE_HOME'] == str(folder.parents[1])
  assert os.environ['MPLCONFIGDIR'].startswith(str(folder.parents[1]))


@pytest.mark.slow
@pytest.mark.parametrize('command', ['rank', 'export', 'measure'])
def test_a_command_without_a_home(command, no_home, call, capsys):
  assert call(command) == 0
  assert capsys.readouterr().err.count('no home directory') == 1


@pytest.fixture
def ascii_terminal(monkeypatch):
  """Standard output of a terminal with few letters."""
  stream = io.TextIOWrapper(io.BytesIO(), encoding='ascii', errors='strict')
  # As commands have it, which `streams.run` calls.
  monkeypatch.setattr(sys, 'stdout', streams._Guarded(stream, print))


@pytest.mark.parametrize(
  'command',
  ['train', 'search', *map(slow, ('rank', 'measure', 'export', 'report'))],
)
def test_a_name_that_the_terminal_cannot_show(
  command, call, small, tmp_path, ascii_terminal
):
  run = tmp_path / 'Läufe ≤ 3'
  shutil.copytree(small, run)
  if command == 'train':
    assert train.main(['--workdir', str(run), '--resume']) == 0
  elif command == 'report':
    assert report.main([str(run)]) == 0
    assert run.name in (run / 'report.html').read_text('utf-8')
  else:
    assert call(command, run) == 0


@pytest.mark.parametrize('flag', ['--workdir', '--run'])
def test_a_folder_whose_name_is_no_text(flag, tmp_path, small, capsys):
  """Libraries that write checkpoints cannot open it."""
  folder, command = tmp_path / 'run-\udcff', COMMANDS['train']
  words = [flag, str(folder), '--config', 'quickstart.py']
  if flag == '--run':
    shutil.copytree(small, folder)
    command, words = COMMANDS['rank'], words[:2]
  with pytest.raises(SystemExit) as ended:
    command.main(words)
  assert ended.value.code == 2
  assert r'run-\udcff is no UTF-8: ' in only_line(capsys)


def test_a_text_that_is_none_is_written_with_escapes(tmp_path):
  files.write_text(tmp_path / 'a.md', 'run-\udcff: ≤')
  assert (tmp_path / 'a.md').read_text('utf-8') == 'run-\\udcff: ≤'
