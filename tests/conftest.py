import os

import pytest

from jaxnas import cli


@pytest.fixture(scope='session', autouse=True)
def compiled(tmp_path_factory):
  """One cache for the session, and none of it left behind."""
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(tmp_path_factory.mktemp('xla'))
  cli.keep_compiled()
