import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxnas
from jaxnas import config, density, spaces
from jaxnas.config import Config, types, validation
from jaxnas.config.flags import parse
from jaxnas.experiment import densities
from jaxnas.many import values
from jaxnas.train import Train

CONFIGS = sorted((Path(__file__).parent.parent / 'configs').glob('*.py'))


@pytest.mark.smoke
@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.name)
def test_every_shipped_config_loads_and_says_what_it_is(file):
  loaded = config.load(file.name)
  validation.validate(loaded)
  assert config.from_json(config.to_json(loaded)) == loaded
  words = file.read_text().partition('"""')[2].partition('"""')[0]
  for word in ('Command:', 'Hardware and time:', 'Result:'):
    assert word in words


def test_a_config_is_found_as_a_path_then_in_configs_then_in_the_package(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert config.find('quickstart.py').parent.name == 'configs'
  (tmp_path / 'configs').mkdir()
  mine = tmp_path / 'configs' / 'quickstart.py'
  mine.write_text('')
  assert config.find('quickstart.py').samefile(mine)
  here = tmp_path / 'quickstart.py'
  here.write_text('')
  assert config.find('quickstart.py').samefile(here)


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('def get_config(:', 'SyntaxError'),
    ('', 'get_config'),
    ('def get_config(): return 3', 'returns int'),
    ('def get_config(): return 1 / 0', 'ZeroDivisionError'),
  ],
)
def test_a_config_that_does_not_load(tmp_path, text, says):
  file = tmp_path / 'broken.py'
  file.write_text(text)
  with pytest.raises(ValueError, match=says) as caught:
    config.load(str(file))
  assert '\n' not in str(caught.value)


def test_every_field_is_in_help(capsys):
  with pytest.raises(SystemExit) as ended:
    parse(Train, ['--config', 'pooling.py', '--help_all'])
  assert ended.value.code == 0
  out = capsys.readouterr().out
  for name in config.flatten(Config()):
    assert f'--{name}' in out
  # The config's value, not the default of the field.
  assert '512' in out


def test_overrides_and_the_field_that_they_replace():
  args = parse(Train, ['--config', 'macro.py', '--debias.temperature', '7'])
  assert args.experiment.debias.temperature == 7
  assert args.experiment.debias.effective_fraction is None
  args = parse(
    Train, ['--config', 'macro.py', '--debias.effective_fraction', 'None']
  )
  assert not args.experiment.debiases


def test_off_replaces_nothing(tmp_path):
  file = tmp_path / 'warm.py'
  file.write_text(
    'from jaxnas.config import Config, Debias\n'
    'def get_config():\n'
    '  return Config(debias=Debias(temperature=2.0))\n'
  )
  args = parse(
    Train, ['--config', str(file), '--debias.effective_fraction', 'None']
  )
  assert args.experiment.debias.temperature == 2.0


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--optimizer.peek_lr', '1'], '--optimizer.peak_lr'),
    (['--epochs', 'many'], 'many'),
    (['--ranking.split', 'train'], 'validation'),
  ],
)
def test_typos_are_refused_with_a_suggestion(capsys, flags, says):
  with pytest.raises(SystemExit) as ended:
    parse(Train, ['--config', 'quickstart.py', *flags])
  assert ended.value.code == 2
  assert says in capsys.readouterr().err


BAD = [
  (['--config', 'quikstart.py'], 'quickstart.py'),
  (['--config', 'quickstart.py', '--epochs', '-1'], 'epochs is -1'),
  (['--config', 'quickstart.py', '--data.train_fraction', '0'], 'above 0'),
  (['--config', 'quickstart.py', '--data.train_fraction', '1.5'], 'in [0, 1]'),
  (['--config', 'quickstart.py', '--optimizer.peak_lr', 'nan'], 'is nan'),
  (['--config', 'quickstart.py', '--optimizer.floor_lr', '9'], 'above'),
  (['--config', 'quickstart.py', '--debias.temperature', '0'], 'above 0'),
  (
    ['--config', 'quickstart.py', '--debias.temperature', '1',
     '--debias.effective_fraction', '0.5'],
    'exclude each other',
  ),
  (
    ['--config', 'quickstart.py', '--debias.effective_fraction', 'None'],
    'debias.baseline needs',
  ),
  (
    ['--config', 'quickstart.py', '--density.file_digest', 'abc'],
    'density.file_digest abc is of no density.file',
  ),
  (
    ['--config', 'quickstart.py', '--density.file', 'x.npz',
     '--density.batches', '2'],
    'density.file replaces',
  ),
  (
    ['--config', 'quickstart.py', '--density.layers', 'head'],
    'density.layers is of density.measure representational',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.name', 'fair',
     '--sampler.members', '3'],
    'sampler.members is of sampler.name mixture',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.name', 'fair',
     '--sampler.variant', 'both'],
    'sampler.variant is of sampler.name importance and tree',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.name', 'tree',
     '--sampler.rebuilds', '2'],
    'sampler.rebuilds is of sampler.variant iterative and hierarchical; '
    'sampler.variant None',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.name', 'tree',
     '--sampler.variant', 'prioritized', '--sampler.rebuilds', '2'],
    'sampler.variant prioritized does not use it',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.members', '3'],
    'sampler.members is of sampler.name mixture',
  ),
  (
    ['--config', 'quickstart.py', '--sampler.name', 'mixture',
     '--sampler.members', '1'],
    'sampler.members is 1',
  ),
  (
    ['--config', 'quickstart.py', '--density.bandwidth', '1'],
    'density.bandwidth is of density.estimator kde',
  ),
  (
    ['--config', 'quickstart.py', '--density.estimator', 'prototypes',
     '--density.absent', 'skip'],
    'clusters vectors',
  ),
  (
    ['--config', 'quickstart.py', '--density.estimator', 'prototypes',
     '--density.file', 'x.npz'],
    'density.file replaces',
  ),
  (
    ['--config', 'macro.py', '--density.absent', 'skip',
     '--density.combine', 'concatenate'],
    'density.absent skip',
  ),
  (
    ['--config', 'macro.py', '--optimizer.nesterov',
     '--optimizer.momentum', '0'],
    'optimizer.nesterov',
  ),
  ([], 'quickstart.py'),
  (['--workdir', 'nothing', '--resume'], 'holds no run'),
]  # fmt: skip


@pytest.mark.parametrize(('flags', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_values_end_with_one_line(capsys, flags, says):
  with pytest.raises(SystemExit) as ended:
    parse(Train, flags)
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err
  assert err.startswith('error: ') and err.count('\n') == 1


@pytest.mark.parametrize(
  ('given', 'kept'),
  [
    ({'name': 'fair', 'members': 4}, []),
    ({'name': 'mixture', 'members': 4, 'variant': 'both'}, ['members']),
    ({'name': 'importance', 'variant': 'data'}, ['variant']),
    (
      {'name': 'tree', 'variant': 'iterative', 'rebuilds': 2, 'members': 3},
      ['variant', 'rebuilds'],
    ),
    ({'name': 'tree', 'variant': 'default', 'rebuilds': 2}, ['variant']),
    # Without its variant, what belongs to that goes too.
    ({'name': 'uniform', 'variant': 'iterative', 'rebuilds': 2}, []),
  ],
)
def test_what_the_chosen_sampler_does_not_use_goes_back(given, kept):
  every = {'paths': 5, 'reward_every': 3, 'budget': 'paths'}
  before = Config(
    sampler=config.Sampler(**given, **every),
    # Of another section, and unused there.
    density=config.Density(bandwidth=2.0),
  )
  fields = {'name': given['name'], **{name: given[name] for name in kept}}
  after = validation.without_unused(before, 'sampler')
  assert after == dataclasses.replace(
    before, sampler=config.Sampler(**fields, **every)
  )
  validation.validate(dataclasses.replace(after, density=config.Density()))


def test_a_file_of_densities_is_what_it_holds(tmp_path):
  archs_AxE = spaces.get('digits').enumerate()
  for name, last in (('a', 2), ('b', 2), ('c', 3)):
    alpha_A = np.linspace(1, last, 81)
    density.save(density.Density(archs_AxE, alpha_A), tmp_path / name)
  a, b, c = (
    config.Config(density=config.Density(file=str(tmp_path / name)))
    for name in 'abc'
  )
  assert not config.differences(a, b)
  assert config.digest(a) == config.digest(b) != config.digest(c)
  assert {*config.differences(a, c)} == {'density.file'}
  # A run knows it when the file is gone, or another one.
  kept = config.from_json(config.to_json(a))
  (tmp_path / 'c').replace(tmp_path / 'a')
  assert kept == a
  with pytest.raises(ValueError, match='another density than when the run'):
    densities.of_file(kept.density, spaces.get('digits'))
  moved = validation.without_replaced(kept, {'density.file': 'b'})
  moved = types.replaced(moved, {'density': {'file': str(tmp_path / 'b')}})
  assert not config.differences(moved, b)
  assert densities.of_file(moved.density, spaces.get('digits')).alpha_A[-1] == 2


def test_a_file_of_densities_is_taken_back_by_none(tmp_path):
  (tmp_path / 'd.npz').write_bytes(b'x')
  file = tmp_path / 'own.py'
  file.write_text(
    'from jaxnas.config import Config, Debias, Density\n'
    'def get_config():\n'
    f'  return Config(density=Density(file={str(tmp_path / "d.npz")!r}),\n'
    '                debias=Debias(temperature=2.0))\n'
  )
  assert config.load(str(file)).density.file_digest
  off = ['--density.file', 'None', '--density.batch_size', '50']
  by_flags = parse(Train, ['--config', str(file), *off]).experiment
  wanted = {'file': None, 'batch_size': 50}
  from_python = jaxnas.load_config(file, density=wanted)
  swept, _ = values.combined(
    config.load(str(file)), ['density.file=None', 'density.batch_size=50']
  )
  for made in (by_flags, from_python, *swept.values()):
    assert made.density == config.Density(batch_size=50)


def test_a_saved_config_with_unknown_fields_is_refused():
  values = json.loads(config.to_json(Config()))
  values['data']['colour'] = 'red'
  with pytest.raises(ValueError, match=r'data\.colour'):
    config.from_json(json.dumps(values))


def test_only_the_experiment_is_compared():
  here = Config()
  there = dataclasses.replace(
    here,
    seed=1,
    checkpoint=config.Checkpoint(keep=9),
    data=config.Data(batch_size=9),
  )
  assert config.differences(here, there) == {
    'seed': (0, 1),
    'data.batch_size': (64, 9),
  }


@pytest.mark.smoke
@pytest.mark.parametrize('command', ['train', 'retrain', 'prepare', 'compare'])
def test_help_imports_no_jax(command):
  code = (
    'import sys\n'
    f'from jaxnas import {command}\n'
    'try:\n'
    f"  {command}.main(['--help'])\n"
    'except SystemExit as ended:\n'
    '  assert ended.code == 0\n'
    "assert 'jax' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
