import contextlib
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxnas.nn import uninitialised
from jaxnas.runtime import cache, progress, startup
from support import loopback

# Child processes find the package that is tested, and tests/support.
TESTS = Path(__file__).parent
os.environ['PYTHONPATH'] = os.pathsep.join(
  [str(TESTS.parent), str(TESTS), os.environ.get('PYTHONPATH', '')]
).rstrip(os.pathsep)

# No test reaches beyond this machine: what it asks for raises.
loopback.guard()

START_S = time.monotonic()

# For each mark, instead of pyproject.toml's; 0 is without end.
TIMEOUT_S = {'slow': 1800, 'long': 0, 'soak': 0}

# Programs that tests have compiled are dropped after two weeks.
KEPT_S = 14 * 24 * 3600

# Parts of a program would be compiled at once, but the other worker has the
# other core.
QUICKLY = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true '
  '--xla_cpu_parallel_codegen_split_count=1'
)
# The older emitters halve the time that a loop takes. Later versions lack them,
# and XLA ends a process that is given a flag it does not know.
if jax.__version_info__ < (0, 11, 1):
  QUICKLY += ' --xla_cpu_use_fusion_emitters=false'

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
  parser.addoption(
    '--on_gpu',
    action='store_true',
    help='tests run on what JAX finds; without it on the CPU, whatever is here',
  )


def pytest_configure(config):
  """Pins the CPU, unless asked, and has programs compiled with less care.

  What tests expect is what CPUs compute. All but slow tests run for a blink:
  what counts is how long they take to compile. On a GPU child processes find
  memory left.
  """
  if config.option.on_gpu:
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  else:
    os.environ['JAX_PLATFORMS'] = 'cpu'
    jax.config.update('jax_platforms', 'cpu')
  if config.option.markexpr not in TIMEOUT_S:
    os.environ['XLA_FLAGS'] = f'{QUICKLY} {os.environ.get("XLA_FLAGS", "")}'


def pytest_collection_modifyitems(config, items):
  for item in items:
    if item.get_closest_marker('gpu') and not config.getoption('--on_gpu'):
      item.add_marker(pytest.mark.skip('needs a GPU, and --on_gpu'))
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
def compiled():
  """One cache for all sessions: a second one compiles only what changed.

  Most of the time of a first session goes to compiling.
  """
  kept = cache.folder('compiled-by-tests')
  for file in kept.glob('*'):
    # Another worker may have dropped it by now.
    with contextlib.suppress(FileNotFoundError):
      if time.time() - file.stat().st_mtime > KEPT_S:
        file.unlink()
  folder = str(kept)
  # For child processes, and for JAX, which is imported and has compiled by now.
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  jax.config.update('jax_compilation_cache_dir', folder)
  compilation_cache.reset_cache()
  startup.prepare_process()


@pytest.fixture(scope='session', autouse=True)
def patient():
  """No word of what takes long, which would hang on the machine's speed."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress, 'LONG_S', 3600.0)
    yield


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


@pytest.fixture(scope='session')
def finished(tmp_path_factory) -> Path:
  """A run as if its steps were done, not to be written to."""
  from support import refusals

  return refusals.write_finished(tmp_path_factory.mktemp('finished'))


@pytest.fixture
def small_space():
  """`small_run.SPACE` is known by its name."""
  from support import small_run

  with small_run.registered():
    yield small_run.SPACE


@pytest.fixture(scope='session')
def small(tmp_path_factory) -> Path:
  """A finished run on it, not to be written to."""
  from support import small_run

  with small_run.registered():
    return small_run.train_in(tmp_path_factory.mktemp('small'))


@pytest.fixture
def unread_is_nan(monkeypatch):
  """Fills uninitialised memory with NaN, which shows in whatever reads it."""

  def extend(x_N, size, number):
    del number
    return jnp.pad(x_N, (0, size - x_N.size), constant_values=jnp.nan)

  monkeypatch.setattr(uninitialised.unwritten, 'takes', lambda x_N: True)
  monkeypatch.setattr(uninitialised.unwritten, 'extend', extend)
