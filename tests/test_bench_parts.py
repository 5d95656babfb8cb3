"""Parts of the benchmark: each side runs, and both do the same."""

import importlib
import inspect
import io
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnas import density, supernets, train
from jaxnas.bench import data, end_to_end, inputs, products, rank
from jaxnas.bench.cases import Options
from jaxnas.config import flags
from jaxnas.data import crops, encoded, folders
from jaxnas.density.features import Gradients, read
from jaxnas.experiment import build
from jaxnas.runtime import ledger
from jaxnas.runtime.rng import generator
from support.small_run import SPACE

torch = pytest.importorskip('torch', reason='baselines need the torch extra')

from jaxnas.bench import torch_data, torch_end_to_end, torch_rank  # noqa: E402
from jaxnas.supernets import torch_nets, torch_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures('small_space')

RANKED = {'space': 'small', 'archs': 9, 'images': 8, 'seed': 0}
PHOTOS = {'photos': 4, 'size': 16, 'batch_size': 2, 'workers': 0, 'seed': 0}
CIFAR = {'images': 64, 'batch_size': 16, 'seed': 0}
RUN = {
  'space': 'small',
  'archs': 9,
  'images': 64,
  'ranked_on': 30,
  'epochs': 2,
  'batch_size': 16,
  'seed': 0,
}
OF_ONE = {'shape': [3, 8, 16, 4], 'batch_size': 2, 'seed': 0}
PIECES = {'steps': 4, 'gradients': 3, 'ranked': 3}


@pytest.fixture(autouse=True)
def as_it_was():
  """Threads are this process's, and other tests have it next."""
  threads = torch.get_num_threads()
  yield
  torch.set_num_threads(threads)


def options(**changes):
  given = {
    'seed': 0,
    'archs': None,
    'batch_size': None,
    'images': None,
    'data_dir': None,
  }
  return Options(**given | changes)


@pytest.mark.parametrize('part', [products, rank, data, end_to_end])
def test_cases_name_functions_and_their_arguments(part):
  cases = part.cases(options())
  assert cases and len({case.case for case in cases}) == len(cases)
  for case in cases:
    assert f'jaxnas.bench.{case.part}' == part.__name__
    for side in (case.ours, case.baseline):
      assert json.loads(json.dumps(side.kwargs)) == side.kwargs
      module, _, name = side.function.partition(':')
      function = getattr(importlib.import_module(module), name)
      inspect.signature(function).bind(**side.kwargs)


def test_options_make_cases_smaller():
  subset = options(archs=7, images=80, batch_size=20, seed=3)
  for case in rank.cases(subset):
    dtype = case.ours.kwargs['dtype']
    assert dtype in case.case
    assert case.ours.kwargs == {
      'space': 'nas_bench_macro',
      'archs': 7,
      'images': 80,
      'seed': 3,
      'dtype': dtype,
    }
    assert case.ours.kwargs.items() <= case.baseline.kwargs.items()
  (case,) = end_to_end.cases(subset)
  wanted = {'archs': 7, 'images': 80, 'ranked_on': 6, 'batch_size': 20}
  assert wanted.items() <= case.ours.kwargs.items()
  assert wanted.items() <= case.baseline.kwargs.items()
  photos, cifar = data.cases(subset)
  assert photos.ours.kwargs['photos'] == cifar.ours.kwargs['images'] == 80
  assert photos.ours.kwargs == photos.baseline.kwargs


@pytest.mark.parametrize(
  ('side', 'kwargs'),
  [
    (rank.ours, RANKED),
    (rank.ours_by_path, {**RANKED, 'every': 2, 'dtype': 'bfloat16'}),
    (products.convolution, {**OF_ONE, 'number': 2}),
    (products.product, {**OF_ONE, 'number': 1}),
    (torch_rank.theirs_by_path, {**RANKED, 'every': 4}),
    (torch_rank.theirs_by_walk, {**RANKED, 'archs': None}),
    (torch_rank.theirs_by_walk, {**RANKED, 'dtype': 'bfloat16'}),
    (data.ours_photos, PHOTOS),
    (torch_data.theirs_photos, PHOTOS),
    (data.ours_cifar, CIFAR),
    (torch_data.theirs_cifar, {**CIFAR, 'workers': 0}),
    (torch_end_to_end.theirs, {**RUN, **PIECES}),
  ],
  ids=lambda value: getattr(value, '__qualname__', ''),
)
def test_a_side_measures_again_and_again(side, kwargs):
  measure = side(**kwargs)
  for value in (measure(), measure()):
    assert isinstance(value, float) and 0 < value < float('inf')


def test_seconds_of_some_are_scaled_to_all(monkeypatch):
  seen, clock = [], iter(range(100))
  monkeypatch.setattr(rank.time, 'perf_counter', lambda: next(clock))
  archs_AxE = SPACE.subset(generator(0, 'archs'), 10)
  measure = rank.timed(seen.append, archs_AxE, every=4)
  assert measure() == pytest.approx(10 / 3)
  np.testing.assert_array_equal(seen[1], archs_AxE[[0, 4, 8]])


def test_a_walk_counts_what_paths_count():
  archs_AxE = SPACE.subset(generator(0, 'archs'), 20)
  images = inputs.images(SPACE, 100, 1)
  snapshot = rank.Snapshot(SPACE, archs_AxE, *images, 1)
  hits_A = rank.walk(snapshot)(archs_AxE)
  np.testing.assert_array_equal(rank.by_path(snapshot)(archs_AxE), hits_A)
  assert len(np.unique(hits_A)) > 5


# Data.


def test_photos_are_as_large_as_those_of_imagenet():
  contents = [data.photo(0, index) for index in range(2)]
  sizes = [Image.open(io.BytesIO(content)).size for content in contents]
  assert sizes == [(375, 500), (500, 375)]
  assert all(80e3 < len(content) < 140e3 for content in contents)
  assert data.photo(0, 0) == contents[0] != data.photo(1, 0)


@pytest.fixture
def photos():
  with data.write_photos(3, 0) as folder:
    train, _, classes = encoded.load(folder)
    assert classes == 2 and len(train) == 3
    yield train


def test_photos_are_cropped_as_ours(photos):
  dataset = torch_data.Photos(photos, 16, 5)
  rng = np.random.default_rng(5)
  for index in (2, 0, 2):
    image = crops.decode(photos.read(index))
    x_HxWxC, y = dataset[index]
    np.testing.assert_array_equal(
      x_HxWxC, crops.random_resized_crop(image, rng, 16, flip=True)
    )
    assert y == photos.labels_N[index]


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
def test_workers_crop_differently(photos):
  """A copy of the data set each would else draw the same numbers."""
  same = folders.Files(photos.root, photos.files_N[:1], photos.labels_N[:1])
  batches = torch_data.batches(
    torch_data.Photos(same, 16, 0),
    np.zeros(3),
    np.ones(3),
    batch_size=1,
    workers=2,
    device='cpu',
  )
  (one, _), (other, _) = itertools.islice(batches, 2)
  batches.close()
  assert one.shape == other.shape == (1, 3, 16, 16)
  assert not torch.equal(one, other)


def test_a_batch_in_memory_is_cropped_image_by_image():
  source = data.noise(6, 0)
  dataset = torch_data.Resident(source.x_train, source.y_train, 4, 7)
  indices = [3, 0, 5, 1, 4, 2] * 3
  x_BxHxWxC, y_B = dataset.__getitems__(indices)
  rng = np.random.default_rng(7)
  corners_Bx2 = rng.integers(9, size=(18, 2))
  mirrored_B = rng.random(18) < 0.5
  assert len(np.unique(corners_Bx2)) == 9 and len(np.unique(mirrored_B)) == 2
  for b, index in enumerate(indices):
    row, column = corners_Bx2[b]
    padded = np.pad(source.x_train[index], ((4, 4), (4, 4), (0, 0)))
    x_HxWxC = padded[row : row + 32, column : column + 32]
    if mirrored_B[b]:
      x_HxWxC = x_HxWxC[:, ::-1]
    np.testing.assert_array_equal(x_BxHxWxC[b], x_HxWxC)
    assert y_B[b] == source.y_train[index]


def test_both_pipelines_give_alike_batches():
  """An epoch has every image once, and pixels have the same moments."""
  source, count = data.noise(512, 0), 8
  training = data.cifar_training(source, 64)
  ours = list(itertools.islice(data.ours(training, 0), count))
  dataset = torch_data.Resident(source.x_train, source.y_train, 4, 0)
  theirs = torch_data.batches(
    dataset,
    source.mean_C,
    source.std_C,
    batch_size=64,
    workers=0,
    device='cpu',
  )
  theirs = list(itertools.islice(theirs, count))
  x_NxHxWxC = np.concatenate([np.asarray(x) for x, _ in ours])
  x = torch.cat([x for x, _ in theirs])
  assert x.is_contiguous(memory_format=torch.channels_last)
  others_NxHxWxC = x.permute(0, 2, 3, 1).numpy()
  assert x_NxHxWxC.shape == others_NxHxWxC.shape == (512, 32, 32, 3)
  assert x_NxHxWxC.dtype == others_NxHxWxC.dtype == np.float32
  for moment in (np.mean, np.std, np.min, np.max):
    np.testing.assert_allclose(
      moment(others_NxHxWxC, axis=(0, 1, 2)),
      moment(x_NxHxWxC, axis=(0, 1, 2)),
      atol=0.02,
    )
  for batches in (ours, theirs):
    y_N = np.concatenate([np.asarray(y) for _, y in batches])
    np.testing.assert_array_equal(np.bincount(y_N), np.bincount(source.y_train))


# End to end.


@pytest.mark.parametrize('data_dir', [None, 'D'])
def test_the_command_is_asked_for_a_whole_run(data_dir, monkeypatch):
  asked = []

  def command(argv, workdir):
    asked.append((argv, workdir))
    return {'all': 1.5}

  monkeypatch.setattr(end_to_end, 'command', command)
  measure = end_to_end.ours(**RUN, data_dir=data_dir)
  assert measure() == measure() == 1.5
  assert asked[0][1] != asked[1][1]
  first, second = (
    flags.parse(train.Train, [*argv, f'--workdir={workdir}'])
    for argv, workdir in asked
  )
  config = first.experiment
  assert config == second.experiment and config.debiases
  assert (config.warmup_epochs, config.epochs) == (1, 1)
  assert (config.space, config.data.batch_size) == ('small', 16)
  assert (config.ranking.archs, config.ranking.images) == (9, 30)
  if data_dir is None:
    experiment = build.experiment(config)
    assert experiment.training.images == 64
    assert experiment.training.steps_per_epoch == 4
  else:
    assert (config.data.name, config.data.dir) == (
      'cifar10',
      str(Path('D').absolute()),
    )


def test_all_are_ranked_where_no_number_is_given(monkeypatch):
  asked = []

  def command(argv, workdir):
    asked.append((argv, workdir))
    return {'all': 1.5}

  monkeypatch.setattr(end_to_end, 'command', command)
  end_to_end.ours(**{**RUN, 'archs': None}, data_dir='D')()
  argv, workdir = asked[0]
  config = flags.parse(train.Train, [*argv, f'--workdir={workdir}']).experiment
  assert config.ranking.archs is None


@pytest.mark.slow
def test_the_command_is_run_and_its_pieces_are_timed(capfd):
  """In a process of its own, which knows no space of the tests."""
  assert end_to_end.ours(**{**RUN, 'space': 'digits'}, data_dir=None)() > 0
  out, err = capfd.readouterr()
  assert 'ranking of 9 architectures' in out
  pieces = err.splitlines()[-1]
  assert pieces.startswith('jaxnas: ')
  taken = {
    piece.rsplit(' ', 2)[0]: float(piece.split()[-2])
    for piece in pieces.removeprefix('jaxnas: ').split(', ')
  }
  assert {*taken} == {*ledger.PARTS, 'the rest'}
  assert min(taken.values()) >= 0 and taken['density'] > 0


def test_pieces_are_scaled(monkeypatch, capsys):
  for name in ('_training', '_ranking'):
    monkeypatch.setattr(torch_end_to_end, name, lambda *args: 2.0)
  monkeypatch.setattr(torch_end_to_end, '_gradients', lambda *args: ({}, 2.0))
  whole = torch_end_to_end.Whole(SPACE, 9, 40, 16, 8, 30, 10, 0)
  assert torch_end_to_end.seconds(whole, steps=4, gradients=3, ranked=6) == {
    'training': 20.0,  # 40 steps of 4
    'gradients': 18.0,  # 27 architectures of 3
    'pairs': 0,
    'ranking': 9.0,  # 9 architectures of 6, 30 images of 10
  }


def test_gradients_of_the_head_are_ours():
  """Up to the order of weights: by all products of two."""
  archs_AxE = SPACE.subset(generator(0, 'archs'), 5)
  x_BxHxWxC, y_B = inputs.images(SPACE, 12, 0)
  ours = supernets.build(SPACE)
  params = supernets.init(ours, archs_AxE[0], 0)['params']
  net = torch_nets.build(SPACE)
  torch_weights.load(net, params)
  found = torch_end_to_end.head_gradients(
    net,
    archs_AxE,
    (torch_nets.images(x_BxHxWxC, 'cpu'), torch_nets.labels(y_B, 'cpu')),
  )
  assert all(p.requires_grad for p in net.parameters())
  snapshot = density.Snapshot(
    ours, params, archs_AxE, [jnp.asarray(x_BxHxWxC)], [jnp.asarray(y_B)]
  )
  for name, rows_AxD in found.items():
    tensor = f'head/{name}/kernel'
    u_AxD = torch.nn.functional.normalize(rows_AxD, dim=1)
    expected_AxD = np.zeros(u_AxD.shape)
    for block in read(*snapshot, Gradients((tensor,))):
      rows_A = block.indices_C[block.real_C]
      expected_AxD[rows_A] = jax.device_get(block.values[tensor])[block.real_C]
    products_AxA = expected_AxD @ expected_AxD.T
    assert np.ptp(products_AxA) > 0.01
    np.testing.assert_allclose(u_AxD @ u_AxD.T, products_AxA, atol=1e-5)
