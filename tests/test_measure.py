"""The real command, in process, on a run of a few batches of digits."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.image import imread

from jaxnas import config, density, measure, spaces, train
from jaxnas.config import run_flags, run_folder
from jaxnas.config.flags import parse
from jaxnas.experiment import build, densities, measuring, trained
from jaxnas.report import figures, text
from jaxnas.runtime import errors, files, preemption
from jaxnas.runtime.rng import generator
from jaxnas.training.checkpoint import Checkpoints

DIGITS = spaces.get('digits')
# Backward passes through the head alone compile fast.
LINEAR = 'head/linear/kernel'
ALL = ('gradient', 'representational', 'functional', 'encoding')

TINY = """
from jaxnas.config import *
def get_config():
  return Config(
    warmup_epochs=1,
    epochs=1,
    data=Data(batch_size=100),
    debias=Debias(temperature=0.1),
    density=Density(batch_size=50, tensors='head/linear/kernel'),
    optimizer=Optimizer(peak_lr=0.02),
    ranking=Ranking(images=50, archs=9, batch_size=50),
  )
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('measured')
  (folder / 'tiny.py').write_text(TINY)
  out = folder / 'run'
  train.main(['--config', str(folder / 'tiny.py'), '--workdir', str(out)])
  return out


def call(run, workdir, *more):
  assert measure.main(
    ['--run', str(run), '--workdir', str(workdir), *more]
  ) == 0  # fmt: skip


def untrained(folder, given, *, save=True):
  """A run directory as `train` leaves it before the first step."""
  run_folder.open_run(folder, given, resume=False)
  if save:
    with Checkpoints(folder / 'checkpoints') as checkpoints:
      checkpoints.save(build.experiment(given).init_state(), {})
  return folder


def final(run, **fields):
  """The run's last weights on the held-out images, and its config."""
  given = run_folder.read_config(run)
  given = dataclasses.replace(
    given.undebiased(), density=config.Density(**fields)
  )
  experiment = build.experiment(given)
  state = trained.newest(experiment, run)
  assert int(state.step) == 10
  return densities.snapshot(experiment, state), given


def test_all_measures_in_one_call(run, capsys, monkeypatch):
  drawn = {}
  draw = figures.matrix

  def matrix(distance_AxA, file, *, title):
    drawn[title.split()[0]] = distance_AxA
    draw(distance_AxA, file, title=title)

  monkeypatch.setattr(figures, 'matrix', matrix)
  assert measure.main(['--run', str(run), '--measure', *ALL]) == 0
  out, workdir = capsys.readouterr().out, run / 'measure'
  assert f'{run}: the checkpoint is at step 10 of 10\n' in out

  alphas = {}
  for name in ALL:
    tensors = LINEAR if name == 'gradient' else None
    snapshot, given = final(run, batch_size=50, measure=name, tensors=tensors)
    expected = densities.estimate(given.density, snapshot)
    file = workdir / f'density-{name}-inverse_mean_distance.npz'
    saved = density.load(file, DIGITS.enumerate())
    np.testing.assert_allclose(saved.alpha_A, expected.alpha_A, rtol=1e-5)
    alphas[name] = saved.alpha_A
    # Rows densest first, and columns with them.
    mean_A = drawn[name].sum(axis=1) / 80
    np.testing.assert_allclose(1 / mean_A, np.sort(saved.alpha_A)[::-1], 1e-4)
    np.testing.assert_array_equal(drawn[name], drawn[name].T)
    for figure in ('density.png', f'distances-{name}.png'):
      assert imread(workdir / figure).std() > 0.05
    low, high = saved.alpha_A.min(), saved.alpha_A.max()
    assert f'{text.aligned(low)} to {text.aligned(high)}' in out
    best = DIGITS.format(saved.archs_AxE[saved.alpha_A.argmax()])
    assert f'1   {best}' in out
  assert len({*map(bytes, alphas.values())}) == len(ALL)

  environment = json.loads((workdir / 'measure.json').read_text())
  assert (environment['step'], environment['images']) == (10, 50)
  assert environment['run'] == str(run)
  assert 'Spearman' in out
  assert '5   run at step 5' in out
  # All encodings are as dense.
  assert out.split('1   encoding')[1].split('\n')[0].split()[1:] == ['-'] * 5


def test_kde_with_settings_of_its_own_beside_another_density(
  run, tmp_path, capsys
):
  images = ['--density.batches', '3', '--density.batch_size', '20']
  call(run, tmp_path, '--measure', 'encoding', *images)
  assert capsys.readouterr().out.count('Spearman') == 1
  call(
    run, tmp_path, '--measure', 'gradient', '--estimator', 'kde',
    '--density.bandwidth', '0.5', '--density.tensors', 'deep', *images,
  )  # fmt: skip
  snapshot, _ = final(run, batches=3, batch_size=20)
  net, params, archs_AxE, *_ = snapshot
  compared = density.gradient(net, params, archs_AxE, tensors='deep')
  expected = density.estimate(snapshot, compared, 'kde', bandwidth=0.5)
  saved = density.load(tmp_path / 'density-gradient-kde.npz', archs_AxE)
  np.testing.assert_array_equal(saved.alpha_A, expected.alpha_A)
  out = capsys.readouterr().out
  assert '1   encoding' in out and '2   gradient kde' in out
  environment = json.loads((tmp_path / 'measure.json').read_text())
  assert environment['images'] == 60


def test_a_saved_density_is_one_that_a_run_takes(run, tmp_path):
  call(run, tmp_path, '--measure', 'functional')
  file = tmp_path / 'density-functional-inverse_mean_distance.npz'
  given = dataclasses.replace(
    run_folder.read_config(run), density=config.Density(file=str(file))
  )
  build.experiment(given)
  # However the config would have estimated one.
  (tmp_path / 'mine.py').write_text(TINY)
  flags = ['--config', str(tmp_path / 'mine.py'), '--density.file', str(file)]
  parsed = parse(train.Train, flags).experiment
  assert parsed.density == config.Density(file=str(file))
  call(run, tmp_path, '--measure', 'functional', '--archs', '80')
  with pytest.raises(ValueError, match='of 80 architectures'):
    build.experiment(given)


def test_some_architectures_have_no_density_of_all_beside_them(
  run, tmp_path, capsys
):
  call(run, tmp_path, '--measure', 'encoding')
  capsys.readouterr()
  call(run, tmp_path, '--archs', '7', '--measure', 'functional')
  out = capsys.readouterr().out
  assert 'Spearman' not in out and '...' not in out
  saved, metadata = density.read_file(
    tmp_path / 'density-functional-inverse_mean_distance.npz'
  )
  assert (
    metadata['step'] == 10 and metadata['density']['measure'] == 'functional'
  )
  assert all(DIGITS.format(arch_E) in out for arch_E in saved.archs_AxE)
  np.testing.assert_array_equal(
    saved.archs_AxE,
    measuring.choose(DIGITS, 7, run_folder.read_config(run).seed),
  )


def test_architectures_are_chosen_once_and_for_good():
  np.testing.assert_array_equal(
    measuring.choose(DIGITS, None, 0), DIGITS.enumerate()
  )
  np.testing.assert_array_equal(
    measuring.choose(DIGITS, 81, 3), DIGITS.enumerate()
  )
  subset = [measuring.choose(DIGITS, 40, seed) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(subset[0], subset[1])
  assert not np.array_equal(subset[0], subset[2])
  assert len(np.unique(subset[0], axis=0)) == 40
  mobilenet = spaces.get('mobilenet')
  archs_AxE = measuring.choose(mobilenet, 5, 2)
  np.testing.assert_array_equal(
    archs_AxE, mobilenet.random(generator(2, 'measure'), 5)
  )


BAD = [
  (['--archs', '1'], 'archs is 1; digits has 81 architectures'),
  (['--archs', '82'], 'archs is 82; digits has 81 architectures'),
  (['--measure'], '--measure names nothing'),
  (['--density.batches', '11'], 'is 550; there are 500 validation images'),
  (['--density.tensors', 'nothing'], 'matches no weight tensor'),
  (
    ['--measure', 'encoding', 'representational', '--density.layers', 'nix'],
    "density.layers 'nix'",
  ),
  (
    ['--measure', 'encoding', 'gradient', '--estimator', 'kde',
     '--density.memory_gb', '1e-6'],
    'more than density.memory_gb 1e-06',
  ),
  (['--density.bandwidth', '1'], 'density.bandwidth is of'),
  (
    ['--measure', 'functional', '--density.tensors', 'deep'],
    'density.tensors is of',
  ),
  (['--density.batch_size', '1'], 'batch_size is 1'),
]  # fmt: skip


@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_ends_before_any_work(run, tmp_path, capsys, more, says):
  workdir = tmp_path / 'not there'
  with pytest.raises(SystemExit) as ended:
    measure.main(['--run', str(run), '--workdir', str(workdir), *more])
  refused(ended, capsys, says)
  assert not workdir.exists()


def refused(ended, capsys, says):
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err
  assert err.startswith('error: ') and err.count('\n') == 1


def test_what_is_no_run_or_has_no_checkpoint(tmp_path, capsys):
  begun = untrained(tmp_path / 'begun', config.Config(), save=False)
  large = untrained(
    tmp_path / 'large', config.Config(space='mobilenet'), save=False
  )
  for flags, says in (
    ([], 'no run: give --run DIR'),
    (['--run', str(tmp_path / 'nothing')], 'holds no run'),
    (['--run', str(begun)], 'has no checkpoint'),
    (['--run', str(large)], 'mobilenet has 2.5e+23 architectures: set --archs'),
  ):
    with pytest.raises(SystemExit) as ended:
      measure.main(flags)
    refused(ended, capsys, says)
  assert not (begun / 'checkpoints').exists()
  assert not (begun / 'measure').exists()


@pytest.mark.parametrize('name', ['density.prototypes', 'density.file'])
def test_fields_of_training_alone_are_not_taken(run, name, capsys):
  with pytest.raises(SystemExit) as ended:
    measure.main(['--run', str(run), f'--{name}', '3'])
  assert ended.value.code == 2
  assert f"'--{name}' is no flag" in capsys.readouterr().err


@pytest.mark.parametrize(
  'fields',
  [
    {'estimator': 'prototypes', 'prototypes': 5, 'tensors': 'shared'},
    pytest.param({'file': 'no longer there.npz'}, marks=pytest.mark.smoke),
    {'measure': 'representational', 'unbiased': True, 'log_epochs': 1},
  ],
  ids=['prototypes', 'file', 'representational'],
)
def test_an_unfinished_run_whatever_its_own_density(tmp_path, fields, capsys):
  given = config.Config(
    debias=config.Debias(effective_fraction=0.5),
    density=config.Density(**fields),
  )
  if 'file' in fields:
    # Its state is that of any run that lists its architectures.
    untrained(tmp_path / 'run', config.Config())
    files.write_text(tmp_path / 'run' / 'config.json', config.to_json(given))
  else:
    untrained(tmp_path / 'run', given)
  call(
    tmp_path / 'run', tmp_path / 'out', '--measure', 'functional',
    '--density.batch_size', '50',
  )  # fmt: skip
  assert 'is at step 0 of 210' in capsys.readouterr().out
  args, _ = run_flags.parse(
    measure.as_in_run, ['--run', str(tmp_path / 'run')], ''
  )
  assert args.estimator == 'inverse_mean_distance'
  assert args.measure == (given.density.measure,)
  assert args.density.tensors == given.density.tensors
  assert args.density.unbiased == given.density.unbiased


def test_fields_follow_their_measure(run):
  args, given = run_flags.parse(
    measure.as_in_run,
    ['--run', str(run), '--measure', 'functional', 'gradient',
     'representational', '--density.layers', 'head'],
    '',
  )  # fmt: skip
  asked = measure.asked(args, given)
  assert list(asked) == ['functional', 'gradient', 'representational']
  tensors_layers = [(each.tensors, each.layers) for each in asked.values()]
  assert tensors_layers == [(None, None), (LINEAR, None), (None, 'head')]
  assert {each.batch_size for each in asked.values()} == {50}


def test_a_large_matrix_is_not_drawn(run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(measuring, 'DRAWN', 80)
  call(run, tmp_path, '--measure', 'encoding')
  assert not (tmp_path / 'distances-encoding.png').exists()
  assert '81 architectures are many' in capsys.readouterr().out
  monkeypatch.undo()
  # The density streams; its pairs do not fit.
  call(run, tmp_path, '--density.memory_gb', '1e-6')
  assert not (tmp_path / 'distances-gradient.png').exists()
  assert 'density.memory_gb 1e-06' in capsys.readouterr().out
  assert (tmp_path / 'density-gradient-inverse_mean_distance.npz').exists()


def test_a_signal_stops_and_keeps_what_is_done(
  run, tmp_path, capsys, monkeypatch
):
  def check(self):
    if (tmp_path / 'density-encoding-inverse_mean_distance.npz').exists():
      raise errors.Stopped

  monkeypatch.setattr(preemption.Preemption, 'check', check)
  with pytest.raises(SystemExit) as ended:
    call(run, tmp_path, '--measure', 'encoding', 'functional')
  assert ended.value.code == errors.STOPPED
  err = capsys.readouterr().err
  assert 'keeps the densities' in err and '--resume' not in err
  assert len([*tmp_path.glob('*.npz')]) == 1


def test_flat_densities_and_two_architectures_are_drawn(tmp_path):
  figures.histogram({'zero': np.zeros(2)}, tmp_path / 'zero.png')
  figures.matrix(1 - np.eye(2), tmp_path / 'two.png', title='two')


def test_densities_of_other_images_or_steps_are_left_out(run, tmp_path, capsys):
  call(run, tmp_path, '--measure', 'encoding', '--density.batches', '2')
  (tmp_path / 'density-broken-kde.npz').write_bytes(b'PK')
  call(run, tmp_path, '--measure', 'functional')
  out = capsys.readouterr().out.replace('\n', ' ')
  other = 'density-encoding-inverse_mean_distance.npz: it is the result of'
  assert other in out
  assert 'left out' in out and 'density-broken-kde.npz is not a readable' in out
  assert '1   functional' in out and '2   run at step 5' in out
