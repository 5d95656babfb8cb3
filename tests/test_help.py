"""Help that fits a screen, and suggestions that mean what was typed."""

import importlib
import subprocess
import sys
import time

import pytest

from jaxnas import __main__ as command_line

MAIN = {
  name: importlib.import_module(command_line.module_of(name))
  for name in command_line.COMMANDS
}


def said(capsys, command, *flags):
  """Returns what a command prints, and its exit code."""
  with pytest.raises(SystemExit) as end:
    MAIN[command].main([*flags])
  out, err = capsys.readouterr()
  return out + err, end.value.code or 0


@pytest.mark.parametrize('command', MAIN)
def test_help_fits_a_screen(command, capsys):
  text, code = said(capsys, command, '--help')
  lines = text.splitlines()
  assert code == 0 and '--help_all' in lines[-1]
  assert len(lines) <= 40 and max(map(len, lines)) < 80
  whole, code = said(capsys, command, '--help_all')
  # A command may be a module or a package, which is run alike.
  assert code == 0 and f'usage: python -m jaxnas.{command} ' in whole
  for line in lines:
    if line.startswith('--'):
      assert line.split()[0] in whole


def test_help_of_a_section(capsys):
  for flags in (['--help', 'debias'], ['--epochs', '3', '--help=debias']):
    text, code = said(capsys, 'train', *flags)
    assert code == 0 and '--debias.candidates' in text
    assert '(now None)' in text and '--data.name' not in text
  text, _ = said(capsys, 'train', '--config', 'macro.py', '--help', 'data')
  assert 'Data set' in text and '(now cifar10)' in text
  text, _ = said(capsys, 'train', '--help', 'density')
  assert 'One of inverse_mean_distance, kde, prototypes.' in ' '.join(
    text.split()
  )
  text, code = said(capsys, 'train', '--help', 'debia')
  assert code == 2 and 'Did you mean debias?' in text


def test_the_command_lists_all_commands(capsys):
  for flags in ([], ['--help'], ['-h']):
    assert command_line.main(flags) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) < 24
    for name in MAIN:
      assert sum(line.split()[:1] == [name] for line in lines) == 1
  assert command_line.main(['trian']) == 2
  assert 'Did you mean train?' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    command_line.main(['train', '--help', 'mesh'])
  assert '--mesh.paths' in capsys.readouterr().out


def test_help_is_quick():
  start = time.monotonic()
  subprocess.run(
    [sys.executable, '-m', 'jaxnas', 'train', '--help'],
    check=True,
    capture_output=True,
  )
  assert time.monotonic() - start < 3  # 0.4 s where nothing else runs


@pytest.mark.parametrize(
  ('flag', 'meant'),
  [
    ('--epoch', '--epochs'),
    ('--resum', '--resume'),
    ('--no_resumee', '--no_resume'),
    ('--no-resumee', '--no_resume'),
    ('--no_debias.baseline', '--debias.no_baseline'),
    ('--debias.no_baselin', '--debias.no_baseline'),
    ('--baseline', '--debias.baseline'),
    ('--no_flip', '--data.no_flip'),
    ('--no_epochs', None),
  ],
)
def test_suggestions_do_not_say_the_opposite(flag, meant, capsys):
  text, code = said(capsys, 'train', '--config', 'quickstart.py', flag)
  assert code == 2 and f"'{flag}' is no flag here" in text
  assert (
    'Did you mean' not in text
    if meant is None
    else (f'Did you mean {meant}?' in text)
  )


@pytest.mark.parametrize(
  ('flags', 'meant'),
  [
    (['--density.estimator', 'kd'], 'kde'),
    (['--supernet.activation', 'relu8'], 'relu'),
    (['--sampler.name', 'unifrom'], 'uniform'),
    (['--precision', 'bfloat'], 'bfloat16'),
  ],
)
def test_values_have_suggestions(flags, meant, capsys):
  text, code = said(capsys, 'train', '--config', 'quickstart.py', *flags)
  assert code == 2 and f'Did you mean {meant}' in text


def test_flags_alone_are_of_the_default_config(capsys):
  from jaxnas.config import Config, flags
  from jaxnas.train import Train

  given = flags.parse(Train, ['--epochs', '3', '--workdir', 'x'])
  assert given.experiment == Config(epochs=3)
  for argv in (
    [],
    ['--workdir', 'x'],
    ['--resume'],
    ['--epochs=3', '--resume'],
  ):
    text, code = said(capsys, 'train', *argv)
    assert code == 2 and 'no experiment' in text
