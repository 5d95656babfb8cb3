"""Variables of JAX and XLA that end a process, or change what it computes."""

import os
import subprocess
import sys

import jax
import pytest

from jaxnas.runtime import jax_settings, startup
from support.refusals import COMMANDS

# Values of XLA_FLAGS, and what a line says about them.
REFUSED = [
  ('--xla_no_such=3', 'Unknown flag in XLA_FLAGS: --xla_no_such=3'),
  ('--xla_no_such --xla_nor_this', '--xla_no_such --xla_nor_this'),
  ('--xla_dump_max_hlo_modules=x', "Couldn't interpret value x"),
  ('no/such/file', 'Could not open file "no/such/file"'),
]


@pytest.mark.parametrize(('flags', 'says'), REFUSED)
def test_flags_that_xla_refuses(flags, says, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', flags)
  with pytest.raises(ValueError, match=r'^[^\n]*$') as no:
    startup.prepare_process()
  line = str(no.value)
  assert line.startswith(f"XLA_FLAGS is '{flags}', which jaxlib ")
  assert says in line and ': unset it, or keep ' in line


@pytest.mark.parametrize(
  'flags', ['', ' ', '--xla_force_host_platform_device_count=2']
)
def test_flags_that_xla_knows(flags, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', flags)
  jax_settings.check_xla_flags()


def test_no_process_is_asked_where_there_are_no_flags(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.setattr(subprocess, 'run', None)
  jax_settings.check_xla_flags()


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('jax_enable_x64', True),
    ('jax_default_prng_impl', 'rbg'),
    ('jax_threefry_partitionable', False),
    ('jax_numpy_dtype_promotion', 'strict'),
    ('jax_numpy_rank_promotion', 'raise'),
  ],
)
def test_options_that_change_what_is_computed(name, value, monkeypatch):
  assert name in jax_settings.EXPECTED
  usual = getattr(jax.config, name)
  monkeypatch.delenv(name.upper(), raising=False)
  jax.config.update(name, value)
  try:
    with pytest.raises(ValueError, match=r'^[^\n]*$') as called:
      startup.prepare_process()
    monkeypatch.setenv(name.upper(), str(value))
    with pytest.raises(ValueError, match=f': unset {name.upper()}.$'):
      startup.prepare_process()
  finally:
    jax.config.update(name, usual)
  assert f'option {name} is {value}, and' in str(called.value)
  expected = jax_settings.EXPECTED[name][0]
  assert f"jax.config.update('{name}', {expected!r})" in str(called.value)
  jax_settings.check_options()


@pytest.mark.parametrize(
  ('variable', 'value', 'command', 'flags'),
  [
    ('JAX_ENABLE_X64', 'maybe', 'train', '--config quickstart.py'),
    ('JAX_DEFAULT_MATMUL_PRECISION', 'high5', 'report', 'none'),
  ],
)
def test_variables_with_which_jax_cannot_be_imported(
  variable, value, command, flags, tmp_path
):
  done = subprocess.run(
    [sys.executable, '-m', f'jaxnas.{command}', *flags.split()],
    env={**os.environ, variable: value},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert command in COMMANDS and done.returncode == 2
  *_, line = done.stderr.splitlines()
  assert line.startswith(
    f'error: JAX cannot be imported with {variable}={value}'
  )
  assert line.endswith('): unset it, or give a value that JAX takes.')
  assert 'Traceback' not in done.stderr and not [*tmp_path.iterdir()]
