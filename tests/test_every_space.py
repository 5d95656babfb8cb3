"""Each space trains and ranks through the commands, on a few small images."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxnas import config, density, retrain, spaces, train, truth
from jaxnas.config import files as config_files
from jaxnas.config import run_folder
from jaxnas.runtime import errors, files
from jaxnas.training.checkpoint import Checkpoints

CLASSES, SIZE = 3, 8


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """A tree of JPEGs, 8 to train and 2 to test on of each class."""
  root, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
  for part, count in (('train', 8), ('val', 2)):
    for k in range(CLASSES):
      folder = root / part / f'class_{k}'
      folder.mkdir(parents=True)
      for i in range(count):
        x = rng.integers(60 * k, 60 * k + 60, (12, 15, 3)).astype(np.uint8)
        Image.fromarray(x).save(folder / f'{i}.JPEG')
  return root


CELLS = """
from jaxnas.config import *
def get_config():
  return Config(
    space='nas_bench_201',
    data=Data(
      name='imagenet', train_fraction=None, holdout=2, batch_size=6, flip=True,
      size=8, workers=0,
    ),
    warmup_epochs=0,
    epochs=2,
    optimizer=Optimizer(peak_lr=0.02, nesterov=True, label_smoothing=0.1),
    ranking=Ranking(archs=3, batch_size=3),
    logging=Logging(every_steps=2),
    retrain=Retrain(epochs=2, seeds=1),
  )
"""


def flags(folder, content, photos, name='run'):
  (folder / 'mine.py').write_text(content)
  return [
    '--config', str(folder / 'mine.py'), '--data.dir', str(photos),
    '--workdir', str(folder / name),
  ]  # fmt: skip


@pytest.fixture(scope='module')
def cells(tmp_path_factory, photos):
  """Cells trained on streamed images for two epochs of three steps."""
  folder = tmp_path_factory.mktemp('cells')
  assert train.main(flags(folder, CELLS, photos)) == 0
  return folder / 'run'


def last_state(run):
  from jaxnas.experiment import build

  with Checkpoints(run / 'checkpoints') as checkpoints:
    like = build.experiment(run_folder.read_config(run)).init_state()
    return checkpoints.restore(checkpoints.steps()[-1], like)[0]


@pytest.mark.slow
def test_cells_train_on_streamed_images(cells):
  predictions = files.read_npz(cells / 'predictions.npz')
  assert predictions['archs_AxE'].shape == (3, 6)
  # Two images of each class are held out.
  hits_A = predictions['accuracy_A'] * 6
  np.testing.assert_allclose(hits_A, hits_A.round(), atol=1e-9)
  samples = files.read_npz(cells / 'samples.npz')
  assert samples['samples_A'].shape == (15_625,)
  assert samples['samples_A'].sum() == 6
  summary = json.loads((cells / 'correlation.json').read_text())
  assert summary['skipped_images'] == 0 and summary['images'] == 6


@pytest.mark.slow
def test_a_streamed_run_resumes_bit_for_bit(
  cells, tmp_path, photos, monkeypatch
):
  import jax

  from jaxnas.runtime.preemption import Preemption

  words = flags(tmp_path, CELLS, photos)
  asked = []

  def stop_at_the_second_step(self):
    asked.append(1)
    return len(asked) == 3

  with monkeypatch.context() as patch:
    patch.setattr(
      Preemption,
      'requested',
      property(stop_at_the_second_step, lambda self, value: None),
      raising=False,
    )
    with pytest.raises(SystemExit) as ended:
      train.main(words)
  assert ended.value.code == errors.STOPPED
  folder = tmp_path / 'run'
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [2]
  assert train.main(['--workdir', str(folder), '--resume']) == 0
  jax.tree.map(
    np.testing.assert_array_equal, last_state(cells), last_state(folder)
  )


@pytest.mark.slow
def test_an_unreadable_image_is_named_or_replaced(
  tmp_path, photos, cells, capsys
):
  root = tmp_path / 'photos'
  for file in photos.rglob('*.JPEG'):
    copy = root / file.relative_to(photos)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(file.read_bytes())
  bad = root / 'train' / 'class_1' / '3.JPEG'
  bad.write_bytes(bad.read_bytes()[:200])
  words = flags(tmp_path, CELLS, root)
  with pytest.raises(SystemExit) as ended:
    train.main([*words, '--epochs', '3'])
  assert ended.value.code == 1
  err = capsys.readouterr().err.strip().splitlines()[-1]
  assert err.startswith('error: image train/class_1/3.JPEG is unreadable')
  assert '--data.on_error skip' in err
  words = flags(tmp_path, CELLS, root, 'skipping')
  assert train.main([*words, '--data.on_error', 'skip']) == 0
  assert '1 unreadable image replaced by' in capsys.readouterr().out
  summary = json.loads((tmp_path / 'skipping/correlation.json').read_text())
  assert summary['skipped_images'] == 1


ALONE = [
  ('nas_bench_201', '|nor_conv_3x3~0|+|none~0|skip_connect~1|+'
   '|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'),
  ('mobilenet_strict', ','.join(
    ['MB3_K3', 'ID', 'ID', 'ID', 'MB6_K3_SE', 'ID', 'ID', 'ID',
     'MB3_K7', 'ID', 'ID', 'ID', 'MB3_K3', 'ID', 'ID', 'ID',
     'MB3_K3', 'ID', 'ID', 'ID', 'MB3_K3'])),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(('space', 'arch'), ALONE, ids=[a[0] for a in ALONE])
def test_one_architecture_trains_alone(space, arch, tmp_path, photos, capsys):
  words = flags(tmp_path, CELLS, photos)
  options = ['--space', space, '--arch', arch, '--retrain.ema_decay', '0.9']
  assert retrain.main([*words, *options, '--optimizer.decay', 'weights']) == 0
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  fitted = spaces.get(space).on_images((SIZE, SIZE, 3), CLASSES)
  params_A, macs_A = fitted.costs(fitted.parse(arch)[None])
  assert (result['params'], result['macs']) == (params_A[0], macs_A[0])
  assert result['accuracy'] * 6 == pytest.approx(round(result['accuracy'] * 6))
  assert f'{params_A[0]:,} parameters' in capsys.readouterr().out
  # Done is done, and the run knows what it trains.
  run = str(tmp_path / 'run')
  assert retrain.main(['--workdir', run, '--resume']) == 0
  with pytest.raises(SystemExit) as ended:
    retrain.main(['--workdir', run, '--resume', '--all'])
  assert ended.value.code == 2
  assert f'trains {arch}, not several' in capsys.readouterr().err


@pytest.mark.long
def test_mobilenet_trains_and_ranks(tmp_path, photos):
  """All 13^21 architectures in one program: minutes of compilation."""
  words = flags(tmp_path, CELLS, photos)
  words += ['--space', 'mobilenet', '--warmup_epochs', '1', '--epochs', '1']
  words += ['--density.archs', '8', '--density.prototypes', '2']
  assert train.main([*words, '--debias.effective_fraction', '0.9']) == 0
  run = tmp_path / 'run'
  alpha_A = density.read_file(run / 'density.npz')[0].alpha_A
  assert np.ptp(alpha_A) > 0 and len(alpha_A) == 8
  samples_ExO = files.read_npz(run / 'samples.npz')['samples_ExO']
  assert samples_ExO.shape == (21, 13)
  assert (samples_ExO.sum(axis=1) == 6).all()
  assert files.read_npz(run / 'predictions.npz')['archs_AxE'].shape == (3, 21)


BAD = [
  (['--space', 'mobilenet', '--debias.temperature', '1',
    '--density.estimator', 'kde'],
   'too many for the density of each: set density.estimator prototypes'),
  (['--space', 'mobilenet', '--ranking.archs', 'None'], 'set ranking.archs'),
  (['--data.size', '10'], 'sides that 4 divides; these are 10x10'),
  (['--data.holdout', '8'], 'class 0 has 8 images'),
  (['--data.train_fraction', '0.5', '--data.holdout', '2'],
   'exclude each other'),
  (['--data.crop_padding', '4'], 'imagenet is cropped at random anyway'),
  (['--data.name', 'digits', '--space', 'digits'],
   'data.size is of data.name imagenet; data.name digits does not use it'),
  (['--data.name', 'imagnet', '--data.size', '224', '--data.workers', '4'],
   'Did you mean imagenet?'),
  (['--supernet.activation', 'relu6'], 'nas_bench_201 has none'),
]  # fmt: skip


@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_is_one_line(tmp_path, photos, capsys, more, says):
  with pytest.raises(SystemExit) as ended:
    train.main([*flags(tmp_path, CELLS, photos), *more])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err and err.startswith('error: ') and err.count('\n') == 1
  assert not (tmp_path / 'run').exists()


OTHERS = [
  {'on_error': 'skip'}, {'workers': 3}, {'dir': 'elsewhere'},
]  # fmt: skip


@pytest.mark.parametrize('changed', OTHERS, ids=str)
def test_where_images_are_and_who_reads_them_is_not_the_experiment(
  tmp_path, changed
):
  (tmp_path / 'mine.py').write_text(CELLS)
  given = config_files.load(str(tmp_path / 'mine.py'))
  run_folder.open_run(tmp_path / 'run', given, resume=False)

  def with_data(**fields):
    return dataclasses.replace(
      given, data=dataclasses.replace(given.data, **fields)
    )

  run_folder.open_run(tmp_path / 'run', with_data(**changed), resume=True)
  with pytest.raises(ValueError, match=r'data\.size 8, not 12'):
    run_folder.open_run(tmp_path / 'run', with_data(size=12), resume=True)


@pytest.mark.slow
def test_a_finished_run_finds_its_images_elsewhere(cells, capsys):
  words = ['--workdir', str(cells), '--resume']
  assert train.main([*words, '--data.on_error', 'skip']) == 0
  assert train.main([*words, '--data.workers', '3']) == 0
  with pytest.raises(SystemExit):
    train.main([*words, '--data.dir', str(cells)])
  # It is looked for there, and not refused as another experiment.
  assert f'data.dir {cells} has neither' in capsys.readouterr().err


def test_nothing_to_rank_on_is_said_before_any_work(tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    train.main(
      ['--config', 'quickstart.py', '--workdir', str(tmp_path / 'run'),
       '--data.train_fraction', '1.0', '--debias.effective_fraction', 'None',
       '--debias.no_baseline']
    )  # fmt: skip
  assert ended.value.code == 2
  assert 'no validation images' in capsys.readouterr().err


def test_a_truth_of_other_images_is_refused(
  tmp_path, photos, data_folder, capsys
):
  words = flags(tmp_path, CELLS, photos)
  with pytest.raises(SystemExit) as ended:
    train.main([*words, '--table', str(data_folder / 'nas_bench_201.npz')])
  assert ended.value.code == 2
  assert "no accuracies on 'imagenet'" in capsys.readouterr().err


def test_the_truth_follows_the_data_set(data_folder):
  space = spaces.get('nas_bench_201')
  best = {
    images: truth.load(
      space, data_folder / 'nas_bench_201.npz', images
    ).accuracy_A.max()
    for images in ('cifar10', 'cifar100', 'imagenet16_120')
  }
  assert {k: round(100 * v, 2) for k, v in best.items()} == {
    'cifar10': 94.37, 'cifar100': 73.51, 'imagenet16_120': 47.31,
  }  # fmt: skip


@pytest.mark.parametrize('activation', ['relu6', 'hard_swish'])
def test_the_activation_of_blocks_is_an_option(activation):
  import jax

  from jaxnas import supernets
  from jaxnas.experiment import build

  space = spaces.get('digits')
  arch = (1, 2, 1, 2)
  x = jax.random.normal(jax.random.key(0), (20, 8, 8, 1))
  logits = []
  for chosen in (None, activation, 'relu'):
    given = config.Config(supernet=config.Supernet(activation=chosen))
    net = supernets.StandAlone(build.network(given, space), arch)
    logits.append(net.apply(supernets.init(net, arch, 0), x, None, train=True))
  np.testing.assert_array_equal(logits[0], logits[2])
  assert abs(logits[0] - logits[1]).max() > 1e-6
