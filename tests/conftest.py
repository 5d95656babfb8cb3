import json
import os
from pathlib import Path

import pytest

from jaxnas import cli


@pytest.fixture(scope='session', autouse=True)
def compiled(tmp_path_factory):
  """One cache for the session, and none of it left behind."""
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(tmp_path_factory.mktemp('xla'))
  cli.keep_compiled()


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
