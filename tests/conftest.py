import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import loopback
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxnas import cli
from jaxnas.nn import unread

# No test reaches beyond this machine: what it asks for raises.
loopback.guard()

START_S = time.monotonic()

# For each mark, instead of pyproject.toml's; 0 is without end.
TIMEOUT_S = {'slow': 1800, 'long': 0, 'soak': 0}

# Of the slow tests; with `--within`, others may not be begun.
FIRST = {
  'test_twins.py', 'test_kills.py', 'test_processes.py', 'test_every_space.py',
}  # fmt: skip


def pytest_addoption(parser):
  parser.addoption(
    '--within',
    type=float,
    metavar='MINUTES',
    help='tests that have not begun by then are skipped',
  )


def pytest_collection_modifyitems(config, items):
  for item in items:
    for marker, seconds in TIMEOUT_S.items():
      if item.get_closest_marker(marker):
        item.add_marker(pytest.mark.timeout(seconds))
  if config.getoption('--within') is not None:
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_runtest_setup(item):
  minutes = item.config.getoption('--within')
  if minutes is not None and time.monotonic() - START_S > 60 * minutes:
    pytest.skip(f'not begun within {minutes:g} minutes')


@pytest.fixture(scope='session', autouse=True)
def compiled(tmp_path_factory):
  """One cache for the session, and none of it left behind."""
  folder = str(tmp_path_factory.mktemp('xla'))
  # For child processes, and for JAX, which is imported and has compiled by now.
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  jax.config.update('jax_compilation_cache_dir', folder)
  compilation_cache.reset_cache()
  cli.prepare_process()


@pytest.fixture(scope='module', autouse=True)
def forgotten():
  """Programs of a file, which add up to gigabytes; the cache keeps them."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='session')
def data_folder() -> Path:
  """The folder with CIFAR-10 in tfds/ and NAS-Bench-Macro's json."""
  folder = os.environ.get('JAXNAS_TEST_DATA')
  if folder is None:
    pytest.skip('JAXNAS_TEST_DATA names no folder with the real data')
  return Path(folder)


@pytest.fixture(scope='session')
def benchmark_file(data_folder) -> Path:
  """NAS-Bench-Macro as it is published."""
  return data_folder / 'nas-bench-macro_cifar10.json'


@pytest.fixture(scope='session')
def benchmark(benchmark_file):
  """Its entries."""
  return json.loads(benchmark_file.read_text())


@pytest.fixture
def small_space():
  """`small_run.SPACE` is known by its name."""
  import small_run

  with small_run.registered():
    yield small_run.SPACE


@pytest.fixture(scope='session')
def small(tmp_path_factory) -> Path:
  """A finished run on it, not to be written to."""
  import small_run

  with small_run.registered():
    return small_run.train_in(tmp_path_factory.mktemp('small'))


@pytest.fixture
def unread_is_nan(monkeypatch):
  """What nothing reads is no number, so that it shows who does."""

  def extend(x_N, size, number):
    del number
    return jnp.pad(x_N, (0, size - x_N.size), constant_values=jnp.nan)

  monkeypatch.setattr(unread.unwritten, 'takes', lambda x_N: True)
  monkeypatch.setattr(unread.unwritten, 'extend', extend)
