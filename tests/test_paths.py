"""Paths: a home for ~, the same from any folder, and runs that were moved."""

import json
import os
import shutil

import numpy as np
import pytest

import jaxnas
from jaxnas import config, data, debug
from jaxnas.config import Config, Data, Density, flags, run_flags, run_folder
from jaxnas.plan import __main__ as plan
from jaxnas.report import __main__ as report
from jaxnas.reproduce import __main__ as reproduce
from jaxnas.runtime import paths
from support import small_run
from support.refusals import COMMANDS, refused, row

TRAIN = '--config ~/config.py --workdir ~/run'

# A flag of a path that is not there, with the place in which it was sought.
HOMES = [
  row('train', '--config ~/no.py', '~/no.py', 'quickstart.py'),
  row('train', f'{TRAIN} --table ~/no.json', '{tmp}/no.json', 'not exist'),
  row('train', f'{TRAIN} --table=~/no.json', '{tmp}/no.json', 'not exist'),
  row('train', f'{TRAIN} --warmup_from ~/no', '{tmp}/no holds', 'no run'),
  row('train', '--workdir ~/no --resume', '{tmp}/no holds', 'no run'),
  row('train', '--config ~/config.py --workdir ~/config.py',
      '{tmp}/config.py is no folder', 'choose another'),
  row('train', f'{TRAIN} --data.name cifar10 --data.dir ~/no', 'in {tmp}/no:',
      'jaxnas.prepare cifar10 --dir {tmp}/no'),
  row('train', f'{TRAIN} --data.name arrays --data.dir ~/no', '{tmp}/no is no',
      'x_train'),
  row('train', f'{TRAIN} --density.file ~/no.npz --debias.temperature 1',
      '{tmp}/no.npz', 'does not exist'),
  row('train', f'{TRAIN} --table ~nobody_has_this_name/t.json',
      'home of ~nobody_has_this_name', 'give the whole path'),
  row('train', f'{TRAIN} --data.dir ~nobody_has_this_name/t',
      'home of ~nobody_has_this_name', 'give the whole path'),
  row('train', '--workdir ~nobody_has_this_name/t --resume',
      'home of ~nobody_has_this_name', 'give the whole path'),
  row('compare', f'{TRAIN} --samplers uniform --table ~/no.json',
      '{tmp}/no.json', 'not exist'),
  row('retrain', '--run ~/no --arch best', '{tmp}/no holds', 'no run'),
  *(
    row(command, '--run ~/no', '{tmp}/no holds', 'no run')
    for command in ('rank', 'measure', 'search', 'export')
  ),
  row('prepare', 'cifar10 --dir ~/config.py', '{tmp}/config.py is', '--dir'),
  row('prepare', 'imagenet16_120 --dir ~/D --from ~/no --trust_pickle',
      '{tmp}/no does', 'not exist'),
]  # fmt: skip


@pytest.mark.parametrize('refusal', HOMES)
def test_a_home_for_flags(
  refusal, tmp_path, tmp_path_factory, monkeypatch, capsys
):
  monkeypatch.setenv('HOME', str(tmp_path))
  # Libraries leave something there when they are imported.
  for name in ('MPLCONFIGDIR', 'XDG_CACHE_HOME'):
    monkeypatch.setenv(name, str(tmp_path_factory.mktemp('cache')))
  refused(refusal, tmp_path, capsys)


KINDS = [
  *(
    getattr(module, name)
    for module, name in (
      (COMMANDS['train'], 'Train'), (COMMANDS['retrain'], 'Retrain'),
      (COMMANDS['compare'], 'Compare'), (COMMANDS['prepare'], 'Prepare'),
      (COMMANDS['bench'], 'Bench'), (reproduce, 'Reproduce'),
      (report, 'Report'), (plan, 'Plan'), (debug, 'Debug'),
    )
  ),
  run_flags.RunCommand,
]  # fmt: skip
# What else must be given.
REQUIRED = {
  'Prepare': ['cifar10', '--dir', 'D'], 'Reproduce': ['all', '--out', 'O'],
  'Report': ['~/run'], 'Debug': ['~/dump'], 'RunCommand': ['--run', 'R'],
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_every_flag_of_a_path_has_a_home(kind, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  default = None
  if issubclass(kind, flags.OfExperiment):
    default = kind(experiment=Config())
  for flag in sorted(flags.of_paths(kind)):
    args = flags.read(
      kind, [*REQUIRED.get(kind.__name__, []), flag, '~/x'], default
    )
    assert str(tmp_path / 'x') in str(args), flag
    assert "'~" not in str(args)


def test_a_home_in_what_stands_without_a_flag(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  args = flags.read(report.Report, ['~/one', 'two'])
  assert [*map(str, args.runs)] == [str(tmp_path / 'one'), 'two']
  args = flags.read(debug.Debug, ['~/dump'])
  assert args.dump == tmp_path / 'dump'


@pytest.mark.parametrize('make', [
  lambda path: Data(dir=path).dir,
  lambda path: Density(file=path).file,
  lambda path: run_flags.Data(dir=path).dir,
  lambda path: config.from_json(
    config.to_json(Config()).replace('"dir": null', f'"dir": "{path}"')
  ).data.dir,
])  # fmt: skip
def test_sections_hold_paths_that_mean_the_same_everywhere(
  make, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', '/home/me')
  assert make('~/x') == '/home/me/x'
  assert make('x/../y') == str(tmp_path / 'y')
  assert make('/data/x') == '/data/x'
  assert make('gs://bucket/x') == 'gs://bucket/x'
  with pytest.raises(ValueError, match='nobody here knows the home of ~no_one'):
    make('~no_one/x')
  with pytest.raises(ValueError, match='a path is empty'):
    make('')


def test_a_home_in_config_files_and_in_notebooks(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'mine.py').write_text(
    'from jaxnas.config import *\n'
    "def get_config(): return Config(data=Data(name='arrays', dir='~/x.npz'))"
  )
  assert config.load('~/mine.py').data.dir == str(tmp_path / 'x.npz')
  with pytest.raises(FileNotFoundError, match=str(tmp_path / 'x.npz')):
    data.load('arrays', '~/x.npz')
  assert paths.expanded('./~') == './~'


@pytest.mark.parametrize(
  'call',
  [
    lambda: jaxnas.run_experiment('quickstart.py', ''),
    lambda: jaxnas.run_experiment('quickstart.py', 'new', table=''),
    lambda: jaxnas.run_experiment('quickstart.py', 'new', warmup_from=''),
    lambda: jaxnas.compare_samplers('quickstart.py', ['uniform'], ''),
    lambda: jaxnas.open_run(''),
    lambda: jaxnas.load_config(''),
  ],
)
def test_no_text_is_no_path_in_python_either(call, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=r'^a path is empty: give one, or None'):
    call()
  assert not [*tmp_path.iterdir()]


@pytest.fixture(scope='module')
def moved(tmp_path_factory):
  """A run of one's own npz, given by a relative path; both lie elsewhere now.

  Returns (the run, the npz, where the npz was).
  """
  before, after = (tmp_path_factory.mktemp(name) for name in ('old', 'new'))
  images = data.load('digits')
  np.savez(
    before / 'mine.npz',
    **{key: getattr(images, key) for key in data.npz.ARRAYS},
  )
  with pytest.MonkeyPatch.context() as patch, small_run.registered():
    patch.chdir(before)
    small_run.train_in(
      before, '--data.name', 'arrays', '--data.dir', 'mine.npz'
    )
  os.rename(before / 'run', after / 'run')
  os.rename(before / 'mine.npz', after / 'mine.npz')
  return after / 'run', after / 'mine.npz', before / 'mine.npz'


@pytest.mark.slow
def test_a_run_keeps_an_absolute_path(moved):
  run, _, before = moved
  assert run_folder.read_config(run).data.dir == str(before)


# What reads the images of a run.
READING = [
  ('train', '--workdir {run} --resume'),
  ('rank', '--run {run} --workdir {tmp}/new'),
  ('search', '--run {run} --workdir {tmp}/new --population 2 --parents 2 '
   '--generations 1'),
  ('measure', '--run {run} --workdir {tmp}/new --archs 3'),
  ('export', '--run {run} --workdir {tmp}/new --arch best --batches 1'),
  ('retrain', '--run {run} --workdir {tmp}/new --arch best '
       '--retrain.epochs 1 --retrain.seeds 1'),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(('command', 'words'), READING)
def test_a_command_is_told_where_images_lie_now(
  command, words, moved, small_space, tmp_path, capsys
):
  run, images, before = moved
  shutil.copytree(run, tmp_path / 'run')
  call = COMMANDS[command].main
  argv = words.format(run=tmp_path / 'run', tmp=tmp_path).split()
  with pytest.raises(SystemExit) as ended:
    call(argv)
  assert ended.value.code == 2
  assert f'data.dir {before} is no file' in capsys.readouterr().err
  assert call([*argv, '--data.dir', str(images)]) == 0
  if command == 'search':
    kept = json.loads((tmp_path / 'new' / 'search.json').read_text())
    assert kept['data'] == {'dir': str(images), 'workers': None,
                            'on_error': None}  # fmt: skip
    # A search goes on by itself from where it read, or from another place.
    again = ['--workdir', str(tmp_path / 'new'), '--resume']
    assert call(again) == 0
    other = shutil.copy(images, tmp_path / 'other.npz')
    assert call([*again, '--data.dir', str(other)]) == 0
    os.rename(tmp_path / 'run', tmp_path / 'elsewhere')
    assert call([*again, '--run', str(tmp_path / 'elsewhere')]) == 0


# The same, and what replays a run.
ASKING = {
  'train': '--workdir {run} --resume',
  'compare': '--workdir {run} --resume --samplers uniform',
  'retrain': '--run {run} --workdir {tmp}/new --arch 000',
  'rank': '--run {run} --workdir {tmp}/new',
  'search': '--run {run} --workdir {tmp}/new',
  'measure': '--run {run} --workdir {tmp}/new',
  'export': '--run {run} --workdir {tmp}/new --arch 000',
  'debug': '{run}',
}


@pytest.fixture
def asked(tmp_path, small_space, monkeypatch):
  """Calls a command on a run whose images are gone; returns what it read."""
  run, seen = tmp_path / 'run', []
  run.mkdir()
  given = Config(space='small', data=Data(name='arrays', dir='/gone.npz'))
  (run / 'config.json').write_text(config.to_json(given))
  (run / 'dump.json').write_text('{"step": 3, "archs": [], "error": "x"}')

  def load(name, dir, **options):
    seen.append(dir)
    raise FileNotFoundError('no images')

  monkeypatch.setattr(data, 'load', load)

  def call(command, *more):
    argv = ASKING[command].format(run=run, tmp=tmp_path).split()
    with pytest.raises(SystemExit) as ended:
      {**COMMANDS, 'debug': debug}[command].main([*argv, *more])
    assert ended.value.code == 2
    return seen

  return call


@pytest.mark.parametrize('command', ASKING)
def test_every_command_takes_the_place_of_images(command, asked):
  asked(command)
  assert asked(command, '--data.dir', '/new.npz') == ['/gone.npz', '/new.npz']


@pytest.mark.parametrize(
  'words', [['--data.workers', '2'], ['--data.on_error', 'skip']]
)
@pytest.mark.parametrize('command', ASKING)
def test_a_flag_that_the_data_set_does_not_use(command, words, asked, capsys):
  assert asked(command, *words) == []
  said = f'{words[0][2:]} is of data.name imagenet; data.name arrays does not'
  assert said in capsys.readouterr().err


def test_how_images_are_read_may_change():
  run = Config(data=Data(name='imagenet', dir='/old', workers=8))
  given = run_flags.Data(dir='/new', workers=0, on_error='skip')
  read = run_flags.read_from(run, given).data
  assert (read.dir, read.workers, read.on_error) == ('/new', 0, 'skip')
  assert run_flags.read_from(run, run_flags.AS_IN_RUN) is run
  for wrong in (-1, 5000):
    with pytest.raises(ValueError, match=r'data\.workers is .* in \[0, 4096\]'):
      run_flags.read_from(run, run_flags.Data(workers=wrong))
