"""Limits of trust: pickles, archives, network, secrets; see the README."""

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxnas
from jaxnas.runtime import environment
from support.refusals import CONFIG

ROOT = Path(jaxnas.__file__).parent
FILES = sorted(ROOT.rglob('*.py'))
# Behind --trust_pickle, and no function that a pickle may name acts.
PICKLES = 'runtime/pickles.py'
# A config file is code, and says so.
CONFIGS = 'config/files.py'
FORBIDDEN = {
  'eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen',
  'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'dill.load', 'dill.loads',
  'cloudpickle.load', 'cloudpickle.loads', 'joblib.load', 'marshal.load',
  'marshal.loads', 'shelve.open', 'torch.load', 'yaml.load', 'tempfile.mktemp',
  'shutil.unpack_archive',
}  # fmt: skip


def name_of(node):
  """'a.b.c' of an expression that is one, else ''."""
  if isinstance(node, ast.Attribute):
    return f'{name_of(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def keyword(call, name):
  """The constant that a call gives by this name; None where it gives none."""
  found = [k.value for k in call.keywords if k.arg == name]
  return (
    found[0].value if found and isinstance(found[0], ast.Constant) else None
  )


def problems(source, where=''):
  """Lists calls that may run code, or write where an archive says."""
  tree, out = ast.parse(source), []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import | ast.ImportFrom):
      names = [alias.name for alias in node.names]
      modules = names if isinstance(node, ast.Import) else [node.module]
      if where != PICKLES:
        out += [m for m in modules if m in ('pickle', 'dill', 'marshal')]
    if not isinstance(node, ast.Call):
      continue
    name = name_of(node.func)
    last = name.rpartition('.')[2]
    unpickles = keyword(node, 'weights_only') is not True
    if name in FORBIDDEN and where != PICKLES and unpickles:
      out.append(name)
    if name in ('np.load', 'numpy.load') and (
      keyword(node, 'allow_pickle') is not False
    ):
      out.append(f'{name} without allow_pickle=False')
    if name in ('np.save', 'np.savez', 'np.savez_compressed') and (
      keyword(node, 'allow_pickle') is not False
    ):
      out.append(f'{name} without allow_pickle=False')
    if last in ('extract', 'extractall') and keyword(node, 'filter') != 'data':
      out.append(f'{name} without filter="data"')
    if keyword(node, 'shell'):
      out.append(f'{name} through a shell')
    if last == 'exec_module' and where != CONFIGS:
      out.append(name)
  return out


@pytest.mark.smoke
@pytest.mark.parametrize(
  'file', FILES, ids=lambda file: str(file.relative_to(ROOT))
)
def test_nothing_that_is_read_can_run(file):
  assert not problems(file.read_text(), str(file.relative_to(ROOT)))


@pytest.mark.parametrize(
  'source',
  [
    'import pickle', 'from pickle import loads', 'eval("1")', 'exec(text)',
    'np.load(f)', 'np.load(f, allow_pickle=True)', 'np.savez(f, a=1)',
    'np.load(f, allow_pickle=flag)', 'tar.extractall(d)', 'tar.extract(m, d)',
    'tar.extractall(d, filter="tar")', 'run(c, shell=True)', 'os.system(c)',
    'spec.loader.exec_module(m)', 'torch.load(f)',
  ],
)  # fmt: skip
def test_what_could_run_would_be_found(source):
  assert problems(source)
  assert not problems(
    'np.load(f, allow_pickle=False)\nnet.eval()\nre.compile(x)\n'
    'torch.load(f, weights_only=True)'
  )


def test_pickles_are_behind_a_flag():
  """Only `prepare` and what it converts with import the reader of pickles."""
  importers = [
    str(file.relative_to(ROOT))
    for file in FILES
    if any(
      isinstance(node, ast.ImportFrom)
      and node.module == 'jaxnas.runtime'
      and any(alias.name == 'pickles' for alias in node.names)
      for node in ast.walk(ast.parse(file.read_text()))
    )
  ]
  assert sorted(importers) == [
    'data/imagenet16.py',
    'data/preparation.py',
    'prepare.py',
    'truth/nats.py',
    'truth/preparation.py',
  ]


GUARD = """
import sys
from support import loopback
loopback.guard()
"""
IMPORT_ALL = """
import importlib, pkgutil, jaxnas
torch = importlib.util.find_spec('torch')
for module in pkgutil.walk_packages(jaxnas.__path__, 'jaxnas.'):
  if module.name.endswith('__main__') or 'torch' in module.name and not torch:
    continue
  importlib.import_module(module.name)
command = importlib.import_module(sys.argv[1])
assert not command.main(sys.argv[2:])
"""
SECRET = 'a1b2c3d4e5f60718293a4b5c6d7e8f9012345678'


def everything(command, words, folder):
  """Imports all modules and runs a command; what it wrote and what it said."""
  done = subprocess.run(
    [sys.executable, '-c', GUARD + IMPORT_ALL, command, *words],
    capture_output=True, text=True, check=False, cwd=folder,
    env={**os.environ, 'WANDB_API_KEY': SECRET, 'MY_PASSWORD': SECRET},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'network:' not in done.stderr
  assert SECRET not in done.stdout + done.stderr
  written = [path for path in folder.rglob('*') if path.is_file()]
  for path in written:
    assert SECRET.encode() not in path.read_bytes(), path
  return {path.name for path in written}


def test_no_import_needs_the_network(tmp_path):
  """Every module imports without it, and a command ends as it does with it."""
  table = tmp_path / 'table.json'
  table.write_text('{}')
  digest = hashlib.sha256(b'{}').hexdigest()
  words = ['nas_bench_macro', '--dir', 'D', '--url', table.as_uri()]
  everything('jaxnas.prepare', [*words, '--sha256', digest], tmp_path)
  assert (tmp_path / 'D' / 'nas-bench-macro_cifar10.json').exists()


@pytest.mark.slow
def test_no_run_needs_the_network_or_keeps_a_secret(tmp_path):
  """Trained, ranked and written."""
  (tmp_path / 'config.py').write_text(CONFIG)
  words = ['--config', 'config.py', '--workdir', 'run']
  written = everything('jaxnas.train', words, tmp_path)
  assert {'environment.json', 'correlation.json', 'metrics.jsonl'} <= written


def test_the_guard_lets_nothing_out():
  """It would be noticed."""
  code = GUARD + (
    'import socket\n'
    'socket.create_server(("127.0.0.1", 0)).close()\n'
    'socket.create_connection(("192.0.2.1", 80), timeout=1)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 1 and 'network: socket.' in done.stderr


def test_no_test_reaches_beyond_this_machine():
  """conftest guards the sockets of this session."""
  import socket

  with pytest.raises(PermissionError, match=r'192\.0\.2\.1'):
    socket.create_connection(('192.0.2.1', 80), timeout=1)
  with pytest.raises(PermissionError, match=r'example\.org'):
    socket.getaddrinfo('example.org', 80)


@pytest.mark.parametrize(
  ('given', 'kept'),
  [
    ('https://me:pass@host/x.gz', 'https://***@host/x.gz'),
    ('http://token@host/x', 'http://***@host/x'),
    (
      '--url=https://me:p4ss@host/x --dir D',
      '--url=https://***@host/x --dir D',
    ),
    ('WANDB_API_KEY=abc --seed 3', 'WANDB_API_KEY=*** --seed 3'),
    ('my_token=abc', 'my_token=***'),
    ('--password=abc --x 1', '--password=*** --x 1'),
    ('--api_key abc --x 1', '--api_key *** --x 1'),
    ('--config macro.py --data.dir a@b', '--config macro.py --data.dir a@b'),
    ('https://host/a@b', 'https://host/a@b'),
  ],
)
def test_secrets_are_not_kept(given, kept):
  assert environment.without_secrets(given) == kept


def test_the_command_is_logged_without_secrets(monkeypatch):
  words = ['python', '-m', 'jaxnas.train', '--x', f'https://me:{SECRET}@host/']
  monkeypatch.setattr(sys, 'orig_argv', words)
  monkeypatch.setenv('WANDB_API_KEY', SECRET)
  logged = json.dumps(environment.environment())
  assert SECRET not in logged and 'https://***@host/' in logged


def test_an_address_is_told_without_its_password(tmp_path, capsys):
  from jaxnas import prepare

  for scheme in ('http', 'ftp'):
    url = f'{scheme}://me:{SECRET}@127.0.0.1:9/c.gz'
    with pytest.raises(SystemExit) as ended:
      prepare.main(['cifar10', '--dir', str(tmp_path / 'D'), '--url', url])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert '***@' in err and SECRET not in err and err.count('\n') == 1
