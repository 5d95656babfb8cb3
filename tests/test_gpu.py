"""Tests of what a GPU alone can show; without one none of them has run.

A machine with a GPU runs them by `pytest -n 0 --on_gpu -m gpu`.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.bench import inputs, step
from jaxnas.nn import gpu as kernels
from jaxnas.runtime import graphs

pytestmark = pytest.mark.gpu

SPACES = ('digits', 'nas_bench_macro', 'pooling', 'nas_bench_201')
STEPS = 4


@pytest.fixture(scope='module', autouse=True)
def gpu():
  if jax.default_backend() != 'gpu':
    pytest.skip(f'the device is a {jax.default_backend()}')


def trained(space, dtype):
  """Losses of some steps and the parameters after them."""
  of = spaces.get(space)
  state, run, batch = step.training_step(
    of, inputs.archs(of, STEPS, 0), batch_size=64, seed=0, dtype=dtype
  )
  losses = []
  for _ in range(STEPS):
    state, metrics = run(state, batch)
    losses.append(float(metrics.loss))
  return losses, jax.device_get(state.params)


@pytest.mark.parametrize('space', SPACES)
def test_graphs_compute_what_is_computed_without_them(space, monkeypatch):
  losses, params = trained(space, 'float32')
  assert graphs.describe()['graphs'] == 'on', 'capturing failed'
  monkeypatch.setenv(graphs.SWITCH, '0')
  jax.clear_caches()
  plain_losses, plain = trained(space, 'float32')
  np.testing.assert_allclose(losses, plain_losses, rtol=1e-4)
  for a, b in zip(*map(jax.tree.leaves, (params, plain)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('space', SPACES)
def test_bfloat16_trains_as_float32_does(space):
  narrow, _ = trained(space, 'bfloat16')
  wide, _ = trained(space, 'float32')
  np.testing.assert_allclose(narrow[0], wide[0], rtol=2e-2)
  np.testing.assert_allclose(narrow, wide, rtol=0.2)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('space', ['digits', 'nas_bench_macro'])
def test_kernels_of_ours_train_as_those_of_xla(space, dtype, monkeypatch):
  losses, params = trained(space, dtype)
  monkeypatch.setenv(kernels.SWITCH, '1')
  jax.clear_caches()
  by_ours, params_by_ours = trained(space, dtype)
  assert graphs.describe()['graphs'] == 'on', 'capturing failed'
  first, rest = (1e-4, 1e-3) if dtype == 'float32' else (2e-2, 0.2)
  np.testing.assert_allclose(by_ours[0], losses[0], rtol=first)
  np.testing.assert_allclose(by_ours, losses, rtol=rest)
  if dtype == 'float32':
    for a, b in zip(
      *map(jax.tree.leaves, (params_by_ours, params)), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
TRAIN = (
  '--config', 'quickstart.py', '--warmup_epochs', 1, '--epochs', 1,
)  # fmt: skip


def words(module, *flags):
  return [sys.executable, '-m', f'jaxnas.{module}', *map(str, flags)]


def command(module, *flags):
  done = subprocess.run(
    words(module, *flags),
    cwd=ROOT,
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('gpu') / 'run'
  command('train', *TRAIN, '--workdir', folder, '--deterministic')
  return folder


def rows(folder):
  return [
    {key: value for key, value in json.loads(line).items() if '_s' not in key}
    for line in (folder / 'metrics.jsonl').read_text().splitlines()
  ]


def test_a_run_goes_on(run, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(run, folder)
  command('train', '--workdir', folder, '--resume')
  assert rows(folder) == rows(run)


def test_two_processes_train_what_one_does(run, tmp_path):
  if len(jax.devices()) < 2:
    pytest.skip('there is one GPU')
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  children = [
    subprocess.Popen(
      [
        *words('train', *TRAIN, '--workdir', tmp_path / 'run'),
        *map(str, ('--deterministic', '--mesh.data', 2)),
        *('--distributed.coordinator', address),
        *('--distributed.num_processes', '2'),
        *('--distributed.process_id', str(rank)),
      ],
      cwd=ROOT,
      env={**ENVIRONMENT, 'CUDA_VISIBLE_DEVICES': str(rank)},
    )
    for rank in range(2)
  ]
  assert [child.wait() for child in children] == [0, 0]
  one, two = (
    [row['loss'] for row in rows(folder) if 'loss' in row]
    for folder in (run, tmp_path / 'run')
  )
  np.testing.assert_allclose(two, one, rtol=0.2)


def test_a_run_says_what_has_computed(run):
  environment = json.loads((run / 'environment.json').read_text())
  assert environment['backend'] == 'gpu'
  assert 'deterministic' in environment['xla_flags']
  assert environment['graphs'] == 'on'


def test_deterministic_runs_have_the_same_bits(run, tmp_path):
  again = '--workdir', tmp_path / 'again', '--deterministic'
  command('train', *TRAIN, *again)
  assert rows(tmp_path / 'again') == rows(run)


@pytest.mark.parametrize(
  ('module', 'flags'),
  [
    ('rank', ['--ranking.split', 'test']),
    ('measure', ['--measure', 'gradient']),
    ('search', []),
    ('export', ['--arch', 'best']),
    (
      'retrain',
      ['--arch', 'best', '--retrain.seeds', 1, '--retrain.epochs', 1],
    ),
  ],
)
def test_commands_read_the_run(module, flags, run, tmp_path):
  command(module, '--run', run, *flags, '--workdir', tmp_path / module)
