"""Tests that a run is held to the images that it was made of."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from jaxnas import config, data, debug
from jaxnas.data import fingerprint
from jaxnas.experiment import build, contents, dump, outcomes
from jaxnas.runtime import files
from jaxnas.training.checkpoint import Checkpoints
from support import refusals
from support.small_run import registered

CONFIG = """
from jaxnas.config import *
def get_config():
  return Config(
    space='small',
    warmup_epochs=1,
    epochs=1,
    data=Data(name='arrays', dir={dir!r}, batch_size=20),
    density=Density(batch_size=10),
    ranking=Ranking(images=10, archs=9, batch_size=10),
    retrain=Retrain(epochs=1, seeds=1),
  )
"""


def arrays(count=80):
  rng = np.random.default_rng(0)
  return {
    'x_train': rng.integers(0, 256, (count, 8, 8, 1), np.uint8),
    'y_train': np.arange(count) % 10,
    'x_test': rng.integers(0, 256, (20, 8, 8, 1), np.uint8),
    'y_test': np.arange(20) % 10,
  }


def added(a, front):
  x, y = a['x_train'], a['y_train']
  order = (x[:1] ^ 1, x) if front else (x, x[:1] ^ 1)
  labels = (y[:1], y) if front else (y, y[:1])
  return a | {
    'x_train': np.concatenate(order), 'y_train': np.concatenate(labels)
  }  # fmt: skip


def changed(a, name, index):
  out = a[name].copy()
  out[index] = out[index] + 1
  return a | {name: out}


def swapped(a):
  out = a['y_train'].copy()
  out[[0, 1]] = out[[1, 0]]
  return a | {'y_train': out}


# (what happened to the images, what the line says of it)
CHANGES = {
  'an image was added': (
    lambda a: added(a, False), 'train has 81 images, not 80'
  ),
  'an image was put first': (
    lambda a: added(a, True), 'train has 81 images, not 80'
  ),
  'a pixel is another': (
    lambda a: changed(a, 'x_train', (79, 7, 7, 0)), 'pixels of train are others'
  ),
  'a pixel of the tests is another': (
    lambda a: changed(a, 'x_test', (3, 0, 0, 0)), 'pixels of test are others'
  ),
  'a label is another': (
    lambda a: changed(a, 'y_train', 0), 'class 0 of train has 7 images, not 8'
  ),
  'labels are swapped': (swapped, 'labels of train are others'),
  'a test image is missing': (
    lambda a: a | {'x_test': a['x_test'][:19], 'y_test': a['y_test'][:19]},
    'test has 19 images, not 20',
  ),
  'a class is new': (
    lambda a: a | {'y_train': np.arange(80) % 11}, 'classes is 11, not 10'
  ),
  'they are larger': (
    lambda a: a | {k: a[k].repeat(2, 1).repeat(2, 2) for k in a if 'x' in k},
    'image_shape is [16, 16, 1], not [8, 8, 1]',
  ),
}  # fmt: skip


@pytest.mark.parametrize('what', CHANGES)
def test_every_change_of_images_is_named(what, tmp_path):
  change, says = CHANGES[what]
  prints = []
  for name, content in (('a', arrays()), ('b', change(arrays()))):
    np.savez(tmp_path / f'{name}.npz', **content)
    loaded = data.load('arrays', str(tmp_path / f'{name}.npz'))
    prints.append(fingerprint.of(loaded))
  ours, theirs = prints
  assert fingerprint.difference(theirs, ours) == says
  assert fingerprint.difference(ours, ours) is None


def test_the_same_images_may_lie_elsewhere(tmp_path):
  (tmp_path / 'b').mkdir()
  np.savez(tmp_path / 'a.npz', **arrays())
  np.savez_compressed(tmp_path / 'b' / 'other.npz', **arrays())
  one, other = (
    fingerprint.of(data.load('arrays', str(tmp_path / name)))
    for name in ('a.npz', 'b/other.npz')
  )
  assert one == other


def photos(root, *, colour=0, name='2.png'):
  for split, label, file in (
    ('train', 'a', '1.png'), ('train', 'b', name), ('val', 'a', '1.png')
  ):  # fmt: skip
    stream = io.BytesIO()
    red = colour if split == 'train' and label == 'b' else 9
    Image.new('RGB', (8, 8), (red, 0, 0)).save(stream, 'PNG')
    at = root / split / label / file
    at.parent.mkdir(parents=True)
    at.write_bytes(stream.getvalue())
  (root / 'train' / 'a' / 'notes.txt').touch()
  return data.load('imagenet', str(root), size=32)


def test_files_of_images_are_told_apart_and_counted(tmp_path):
  first = photos(tmp_path / '0')
  ours = fingerprint.of(first)
  assert fingerprint.difference(ours, fingerprint.of(photos(tmp_path / '1')))\
    is None  # fmt: skip
  for number, (other, says) in enumerate(
    [
      (photos(tmp_path / '2', colour=1), 'pixels of train are others'),
      (photos(tmp_path / '3', name='3.png'), 'names of train are others'),
    ]
  ):
    assert fingerprint.difference(fingerprint.of(other), ours) == says, number
  given = config.Config(data=config.Data(name='imagenet', train_fraction=1.0))
  assert str(contents.of(given, first)) == (
    '2 train, 0 validation, 1 test images of 32x32x3 in 2 classes, 1 file '
    'ignored (1 ending in .txt)'
  )


def doubled(a, of_train=(), of_test=()):
  """Copies the first training image over others."""
  out = {name: a[name].copy() for name in a}
  out['x_train'][[*of_train]] = a['x_train'][0]
  out['x_test'][[*of_test]] = a['x_train'][0]
  return out


# (arrays, what the line ends with): images 0 and 1 to 3 are told apart by
# whether they are trained on.
SAID = {
  'nothing': (arrays(), 'in 10 classes'),
  'twice in training': (doubled(arrays(), of_train=(1,)), 'in 10 classes'),
  'in training and in validation': (
    doubled(arrays(), of_train=(60, 79)),
    'classes; trained on too: 2 of 40 validation images, which are the same',
  ),
  'in training and in the test': (
    doubled(arrays(), of_test=(3,)),
    'classes; trained on too: 1 of 20 test images, which are the same',
  ),
  'in all': (
    doubled(arrays(), of_train=(60,), of_test=(3, 4)),
    'trained on too: 1 of 40 validation images and 2 of 20 test images, which '
    'are the same',
  ),
  'further arrays': (
    arrays() | {'x_val': np.zeros(3), 'a\x1b[2J': np.zeros(1)},
    "classes, 'x_val' and 'a\\x1b[2J' ignored",
  ),
}


@pytest.mark.parametrize('what', SAID)
def test_what_a_user_may_not_mean_is_said_in_one_line(
  what, tmp_path, monkeypatch
):
  given, ends = SAID[what]
  np.savez(tmp_path / 'own.npz', **given)
  loaded = data.load('arrays', str(tmp_path / 'own.npz'))
  halves = np.arange(40), np.arange(40, 80)
  monkeypatch.setattr(contents.datasets, 'divide', lambda *_: halves)
  said = str(contents.of(config.Config(), loaded))
  assert said.endswith(ends) and '\n' not in said


def test_of_many_pixels_a_sample_is_hashed(tmp_path, monkeypatch):
  np.savez(tmp_path / 'a.npz', **arrays())
  loaded = data.load('arrays', str(tmp_path / 'a.npz'))
  monkeypatch.setattr(fingerprint, 'LARGEST', 64 * 20)
  ours = fingerprint.of(loaded)
  for index, seen in ((0, True), (1, False), (4, True), (76, True)):
    x = loaded.x_train.copy()
    x[index] ^= 1
    other = fingerprint.of(dataclasses.replace(loaded, x_train=x))
    assert (fingerprint.difference(other, ours) is not None) == seen, index


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Runs as if they were done, of images that have changed since."""
  root = tmp_path_factory.mktemp('made')
  file = root / 'own.npz'
  np.savez(file, **arrays())
  (root / 'config.py').write_text(CONFIG.format(dir=str(file)))
  given = config.load(str(root / 'config.py'))
  with registered():
    experiment = build.experiment(given)
    state = experiment.init_state()
    for name in ('run', 'compared'):
      run = root / name
      contents.open_run(run, given, experiment.images, resume=False)
      with Checkpoints(run / 'checkpoints') as checkpoints:
        for step in (experiment.warmup_steps, experiment.steps):
          checkpoints.save(
            dataclasses.replace(state, step=state.step + step), {}, wait=True
          )
    files.write_json(root / 'compared' / 'compare.json', {
      'samplers': ['uniform'], 'seeds': 1, 'budget': 'paths',
    })  # fmt: skip
    built = build.stand_alone(given, '000')
    alone = root / 'alone'
    contents.open_run(alone, given, built.images, resume=False)
    files.write_json(alone / 'retrain.json', {'arch': '000'})
    outcomes.write_result(
      built, '000', np.array([0.5]), alone / outcomes.RESULT
    )
    dump.write(dump.Dump(3, [], 'nan'), experiment, root / 'run')
    dump.write(dump.Dump(3, ['000'], 'nan', seed=0), built, alone)
  for name in ('run', 'compared', 'alone'):
    (root / name / '.lock').unlink(missing_ok=True)
  np.savez(file, **added(arrays(), True))
  return root


COMMANDS = (
  'train --workdir {}/run --resume',
  'train --config {}/config.py --warmup_from {}/run --workdir {}/new',
  'rank --run {}/run',
  'search --run {}/run',
  'measure --run {}/run',
  'export --run {}/run --arch 000',
  'export --run {}/alone',
  'retrain --run {}/run --arch 000 --workdir {}/new',
  'retrain --workdir {}/alone --resume',
  'compare --workdir {}/compared --resume',
  'debug {}/run/dump-3',
  'debug {}/alone/dump-3',
)


@pytest.mark.parametrize('words', COMMANDS)
def test_other_images_are_refused_to_a_run(words, made, small_space, capsys):
  name, *argv = words.replace('{}', str(made)).split()
  command = {**refusals.COMMANDS, 'debug': debug}[name]
  before = refusals.contents(made)
  with pytest.raises(SystemExit) as ended:
    command.main(argv)
  said = capsys.readouterr()
  assert ended.value.code == 2, said
  assert said.err.count('\n') == 1 and said.err.startswith('error: '), said
  for part in ('other images', 'train has 81 images, not 80', '--data.dir'):
    assert part in said.err, said
  assert refusals.contents(made) == before
