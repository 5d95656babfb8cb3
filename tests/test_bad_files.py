"""Files that are not what they should be: one line, and nothing is written.

A command finds most of them before any work, and ends with exit code 2; what
a run reads while it goes on ends it with 1.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxnas import config, spaces, truth
from jaxnas.config import run_folder
from jaxnas.runtime import files, jsonl
from jaxnas.training.checkpoint import Checkpoints
from support import runs
from support.refusals import Refusal, contents, refused

TRAIN = '--config {config} --workdir {tmp}/run'
DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()


def put(name, content):
  """Writes a file, of bytes, text, arrays or what JSON is made of."""

  def make(folder):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
      file.write_bytes(content)
    elif isinstance(content, str):
      file.write_text(content)
    elif name.endswith('.npz'):
      np.savez(file, **content)
    else:
      file.write_text(json.dumps(content))

  return make


RETRAINED = {'arch': '0120', 'accuracy': 0.5, 'seeds': []}


def result(name, value):
  """Writes JSON as a result of the run beside it."""

  def make(root):
    (root / name).parent.mkdir(exist_ok=True)
    runs.write_result(root / 'run', name.removeprefix('run/'), value)

  return make


def folder(name):
  return lambda root: (root / name).mkdir(parents=True)


def row(make, command, words, *says, id):
  assert len(says) >= 2, f'{id}: a value and a remedy'
  return pytest.param(make, Refusal(command, words, says), id=id)


def table(
  content, value, *, id, name='t.json', remedy='give a table of digits, such as'
):
  words = f'{TRAIN} --table {{tmp}}/{name}'
  return row(put(name, content), 'train', words, value, remedy, id=id)


def own(**changes):
  accuracy = {DIGITS.format(arch_E): [0.5] for arch_E in ARCHS_AxE}
  return {'space': 'digits', 'data': 'digits', 'accuracy': accuracy | changes}


TABLES = [
  table('', 'Expecting value', id='empty table'),
  table('[' * 100_000, 'nested too deeply', id='nested table'),
  table(b'\xff\x00\xfe', "'utf-8' codec", id='table of bytes'),
  table('{"a": 1e999}', "['a'] is inf, no finite", id='infinite table'),
  table('{"a": 1, "a": 2}', "'a' stands there twice", id='table with twins'),
  table(own() | {'space': 'pooling'}, "'pooling', not 'digits'", id='space'),
  table(own() | {'data': 'cifar10'}, "'cifar10', not 'digits'", id='images'),
  table(own(**{'0120': [50.0]}), "'0120' has accuracy 50.0", id='percent'),
  table(own(**{'0123': [0.5]}), "'0123' is no arch", id='another arch'),
  table(b'PK\x03\x04', 't.npz: an npz is of space nas_bench_201, not digits',
        name='t.npz', id='npz of cells'),
]  # fmt: skip


def noise(count, *, size=8, channels=1):
  shape = count, size, size, channels
  return np.random.default_rng(count).integers(0, 256, shape, np.uint8)


def arrays(**changes):
  return {
    'x_train': noise(20),
    'y_train': np.arange(20) % 10,
    'x_test': noise(10),
    'y_test': np.arange(10),
  } | changes


# Labels of which both halves have all classes, as the seed divides them.
DIVIDED = np.array([0, 1, 0, 1, 2, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 9])


def by_channel(count, channels):
  return np.random.default_rng(1).integers(
    0, 256, (count, channels, 8, 8), np.uint8
  )


def images(content, value, remedy, *, id, name='own.npz', of='arrays'):
  words = f'{TRAIN} --data.name {of} --data.dir {{tmp}}/own.npz'
  return row(put(name, content), 'train', words, value, remedy, id=id)


def lacking(key):
  return {name: a for name, a in arrays().items() if name != key}


REMEDY = 'put back what was written'
ARRAYS = [
  images(b'', 'own.npz is not a readable npz', REMEDY, id='empty npz'),
  images(b'PK\x03\x04', 'own.npz is not a', REMEDY, id='no zip for images'),
  images(b'\x80\x04N.', 'own.npz is not a', REMEDY, id='pickle for images'),
  images(arrays(y_test=np.array([{}], object)), 'without pickled objects',
         REMEDY, id='objects'),
  images(arrays(y_train=np.arange(20).astype(object)), 'y_train holds Python',
         'save y_train.astype(TYPE)', id='labels as objects'),
  images(lacking('y_test'), 'own.npz lacks y_test', 'or incomplete',
         id='without labels'),
  images(arrays(x_train=noise(20).astype(float)), 'x_train has whole numbers',
         'save x.astype(np.uint8)', id='bytes as floats'),
  images(arrays(x_train=noise(20).astype(int)), 'x_train is int64',
         'it must be uint8 or floats', id='integers'),
  images(arrays(x_train=noise(20) / 255), 'x_train is float32 and x_test uint8',
         'must agree', id='floats to train on and bytes to test'),
  images(arrays(x_test=np.full((10, 8, 8, 1), np.nan)), 'x_test has values',
         'not finite', id='floats that are none'),
  images(arrays(x_train=noise(20)[..., 0]), '(20, 8, 8)', 'of shape (N, H, W, '
         'C)', id='without channels'),
  images(arrays(x_train=noise(0), y_train=np.zeros(0, int)), '(0, 8, 8, 1)',
         'none of them 0', id='no images'),
  images(arrays(y_train=np.arange(20.0)), 'y_train is float64',
         'it must be integers', id='labels of floats'),
  images(arrays(y_train=np.arange(19)), '(19,)', 'of shape (20,)',
         id='fewer labels'),
  images(arrays(y_train=np.arange(20) - 1), 'are -1 to 18',
         'must count the classes from 0', id='negative labels'),
  images(arrays(y_test=np.arange(10) * 10**8), 'of class 100000000, 200000000',
         'take them out', id='huge labels'),
  images(arrays(y_train=np.arange(20) % 4 + 1, y_test=np.arange(10) % 4 + 1),
         'has 4 labels, 1, 2, 3, 4; they must be 0 to 3', 'searchsorted',
         id='labels from 1'),
  images(arrays(y_train=np.arange(20) // 5 * 10 + 10, y_test=np.full(10, 20)),
         'labels, 10, 20, 30, 40;', 'searchsorted', id='labels of tens'),
  images(arrays(y_train=np.zeros(20, int), y_test=np.zeros(10, int)),
         'all training images are of class 0', 'two classes at least',
         id='one class'),
  images(arrays(y_train=np.arange(20) % 3, y_test=np.arange(10) % 4),
         '2 test images of class 3', 'take them out',
         id='a class of test images alone'),
  images(arrays(), 'leaves class 0 without a training image, of 2',
         'give data.holdout', id='a class of validation images alone'),
  *(
    images(arrays(x_train=by_channel(20, c), x_test=by_channel(10, c)),
           f'of shape (20, {c}, 8, 8) has its channels first',
           'x.transpose(0, 2, 3, 1)', id=f'{c} channels first')
    for c in (1, 3)
  ),
  *(
    images(arrays(x_train=np.repeat(by_channel(20, c), 2, axis),
                  x_test=np.repeat(by_channel(10, c), 2, axis)),
           'has its channels first', 'x.transpose(0, 2, 3, 1)',
           id=f'{c} channels first, twice as {word}')
    for c in (1, 3)
    for axis, word in ((2, 'high'), (3, 'wide'))
  ),
  images(arrays(x_train=noise(20).reshape(20, -1)), '(20, 64)',
         'save x_train.reshape(-1, H, W, C)', id='flat images'),
  images(arrays(y_train=np.arange(20).astype(str)), 'y_train is <U21',
         'save np.searchsorted(np.unique(y_train), y_train)',
         id='labels of text'),
  images(arrays(y_train=np.where(np.arange(20) == 7, np.nan, 1.0)),
         'image 7 has nan', 'leave out what has no label', id='no label'),
  images(arrays(y_test=np.full(10, 2**40)), '1099511627776',
         'as int32', id='labels beyond int32'),
  images(arrays(x_test=noise(10, size=9)), '(9, 9, 1)', 'must agree',
         id='other test images'),
  images(arrays(x_train=np.zeros((20, 8, 8, 1), np.uint8)), 'channel 0',
         'leave it out', id='constant images'),
  images(arrays(y_train=DIVIDED), 'batch_size 250', 'the 10 training images',
         id='few images'),
  images({}, 'no cifar10 in {tmp}', 'python -m jaxnas.prepare cifar10 --dir',
         of='cifar10', id='npz for cifar10'),
  images({}, 'no imagenet16_120.npz in {tmp}', '--trust_pickle makes it',
         of='imagenet16_120', id='npz for imagenet16'),
  images({}, 'own.npz has neither', 'train/CLASS/FILE', of='imagenet',
         id='npz for imagenet'),
  images(arrays(), '{tmp}/own.npz is no file', 'give by --data.dir the npz',
         name='other.npz', id='no npz'),
]  # fmt: skip


def together(*makers):
  def make(root):
    for maker in makers:
      maker(root)

  return make


def photo(name):
  return put(name, b'a photo')


def streamed(make, value, remedy, *, id, of='imagenet'):
  words = f'{TRAIN} --data.name {of} --data.dir {{tmp}}/D'
  return row(make, 'train', words, value, remedy, id=id)


INFO = 'D/dataset_info.json'
FOLDERS = [
  streamed(together(photo('D/train/a/1.jpg'), photo('D/val/a/1.jpg')),
           'all training images are of class 0', 'two classes at least',
           id='one class of photos'),
  streamed(together(photo('D/train/train/a/1.jpg'), folder('D/train/val/a'),
                    folder('D/val')),
           'D/train holds train, val', '--data.dir {tmp}/D/train',
           id='unpacked too deep'),
  streamed(together(photo('D/train/a/1.jpg'), photo('D/train/b/1.jpg'),
                    photo('D/val/1.jpg')),
           'D/val has no folders', 'into that of its class',
           id='photos beside classes'),
  streamed(folder('D'), 'data.dir {tmp}/D has', 'train/CLASS/FILE',
           id='empty folder'),
  streamed(folder('D/train/a'), 'but none of val', 'to rank on',
           id='no validation folder'),
  streamed(together(folder('D/train'), folder('D/val/a')), 'D/train has no',
           'one for each class', id='no classes'),
  streamed(together(folder('D/train/a'), folder('D/val/a')), 'train/a has no',
           'fill it', id='no photos'),
  streamed(together(put('D/train/a/1.jpg', b'x'), put('D/val/b/1.jpg', b'x')),
           'class b of val', 'train lacks', id='another class'),
  streamed(put(INFO, '{'), 'dataset_info.json is no', 'Expecting property',
           id='cut dataset_info'),
  streamed(put(INFO, '[]'), 'dataset_info.json is no', "'list'",
           id='list of dataset_info'),
  streamed(put(INFO, {'fileFormat': 'tfrecord'}), 'tfrecord files',
           '--out_file_format=array_record', id='tfrecords'),
  streamed(put(INFO, {'fileFormat': 'array_record'}), '{tmp}/D is no tfds',
           'data set', id='no features'),
  streamed(put('D/cifar10/3.0.2/dataset_info.json', '{}'), 'cifar10/3.0.2',
           '--out_file_format=array_record', of='cifar10', id='no cifar10'),
  streamed(put('D/imagenet16_120.npz', arrays(y_test=np.arange(10) + 111)),
           'y_test goes to 120', 'labels are 0 to 119', of='imagenet16_120',
           id='labels of imagenet16'),
  streamed(put('D/imagenet16_120.npz', b''), 'imagenet16_120.npz is not',
           REMEDY, of='imagenet16_120', id='empty imagenet16'),
]  # fmt: skip


@pytest.mark.parametrize(('make', 'refusal'), TABLES + ARRAYS + FOLDERS)
def test_tables_and_images(make, refusal, tmp_path, capsys):
  make(tmp_path)
  refused(refusal, tmp_path, capsys)


def saved(**changes):
  """A config.json with other fields."""
  return json.loads(config.to_json(config.Config())) | changes


DATA = saved()['data']
BACK = 'put back what jaxnas wrote'
SAVED = [
  ('', 'Expecting value', BACK),
  ('{', 'Expecting property name', BACK),
  ('[]', 'it is []', 'an object with the fields of Config'),
  ('3', 'it is 3', 'an object with the fields of Config'),
  ('null', 'it is None', 'an object with the fields of Config'),
  (b'\x93NUMPY', "can't decode", BACK),
  ('[' * 100_000, 'nested too deeply', BACK),
  ('{"seed": 1, "seed": 2}', "'seed' stands there twice", BACK),
  ('{"debias": {"candidates": NaN}}', "['debias']['candidates'] is nan", BACK),
  ('{"optimizer": {"peak_lr": 1e999}}', 'is inf, no finite number', BACK),
  ('{"seed": ' + '9' * 5000 + '}', 'digits', BACK),
  (saved(colour='red'), "'colour'", 'is none of seed, space'),
  (saved(epoch=3), "'epoch'", 'Did you mean epochs?'),
  (saved(data=DATA | {'nam': 'x'}), "'data.nam'", 'Did you mean data.name?'),
  (saved(data=None), 'data is None', 'an object with the fields of Data'),
  (saved(data=['digits']), "data is ['digits']", 'the fields of Data'),
  (saved(epochs='3'), "epochs is '3'", 'it must be an integer'),
  (saved(epochs=True), 'epochs is True', 'it must be an integer'),
  (saved(epochs=1.5), 'epochs is 1.5', 'it must be an integer'),
  (saved(epochs=None), 'epochs is None', 'it must be an integer'),
  (saved(space=['digits']), "space is ['digits']", 'it must be text'),
  (saved(precision='half'), "precision is 'half'", 'float32, bfloat16'),
  (saved(data=DATA | {'flip': 1}), 'data.flip is 1', 'true or false'),
  (saved(data=DATA | {'dir': 1}), 'data.dir is 1', 'text or None'),
]  # fmt: skip


@pytest.mark.parametrize(
  ('content', 'value', 'remedy'), SAVED, ids=[c[1][:40] for c in SAVED]
)
def test_config_json(content, value, remedy, tmp_path, capsys):
  put('run/config.json', content)(tmp_path)
  says = ('{tmp}/run/config.json', value, remedy)
  refused(Refusal('rank', '--run {tmp}/run', says), tmp_path, capsys)


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    ('train', '--workdir {tmp}/run --resume'),
    ('measure', '--run {tmp}/run'),
    ('search', '--run {tmp}/run'),
    ('export', '--run {tmp}/run --arch best'),
    ('retrain', '--run {tmp}/run --arch best'),
    ('compare', '--workdir {tmp}/run --resume'),
  ],
)
def test_every_command_reads_config_json_alike(
  command, words, tmp_path, capsys
):
  for make, says in (
    (put('run/config.json', saved(epochs='3')), "epochs is '3'"),
    (folder('run/config.json'), 'Is a directory'),
  ):
    shutil.rmtree(tmp_path / 'run', ignore_errors=True)
    make(tmp_path)
    refused(
      Refusal(command, words, ('config.json cannot be read', says)),
      tmp_path,
      capsys,
    )


def of_run(make, command, words, *says, id):
  return row(make, command, f'--run {{tmp}}/run {words}', *says, id=id)


def gone(name):
  return lambda root: shutil.rmtree(root / 'run' / name)


def reseeded(root):
  """Changes the seed in the run's config.json, as an editor would."""
  file = root / 'run' / 'config.json'
  file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))


def rewritten(owner):
  """Makes the run a folder that this command might have begun."""
  if owner == 'train':
    return lambda root: None
  return together(gone('checkpoints'), put(f'run/{owner}.json', '{}'))


def kept(**changes):
  """A search.json with other fields."""
  return {
    'run': 'run', 'searcher': 'random', 'population': 2, 'generations': 1,
    'ranking': {'images': 20},
  } | changes  # fmt: skip


def search(content, value, remedy, *, id):
  return row(
    put('s/search.json', content), 'search', '--workdir {tmp}/s --resume',
    '{tmp}/s/search.json', value, remedy, id=id,
  )  # fmt: skip


def compared(content, value, remedy, *, id):
  make = together(put('run/compare.json', content))
  words = '--workdir {tmp}/run --resume'
  return row(make, 'compare', words, value, remedy, id=id)


COMPARED = {'samplers': ['uniform'], 'seeds': 1, 'budget': 'paths'}
DENSITY = {'archs_AxE': ARCHS_AxE, 'alpha_A': np.linspace(1, 2, 81)}


def density(value, remedy, *, id, **changes):
  words = f'{TRAIN.replace("/run", "/new")} --debias.temperature 1 '
  words += '--density.file {tmp}/d.npz'
  return row(put('d.npz', DENSITY | changes), 'train', words, value, remedy,
             id=id)  # fmt: skip


FINISHED = [
  # Of any command that reads a run.
  *(
    of_run(make, command, words, value, remedy, id=f'{command}, {name}')
    for command, words in (
      ('rank', ''), ('measure', ''), ('search', ''), ('export', '--arch best')
    )
    for name, make, value, remedy in (
      ('no checkpoints', gone('checkpoints'), '{tmp}/run has no checkpoint',
       '--workdir {tmp}/run --resume'),
      ('a file for checkpoints',
       together(gone('checkpoints'), put('run/checkpoints', '')),
       '{tmp}/run has no checkpoint', '--workdir {tmp}/run --resume'),
    )
  ),
  of_run(put('run/compare.json', '{}'), 'rank', '', 'jaxnas.compare',
         'give a run of jaxnas.train', id='a comparison'),
  of_run(put('run/retrain.json', '{}'), 'search', '', 'jaxnas.retrain',
         'give a run of jaxnas.train', id='a retrained run'),
  *(
    of_run(together(result('run/ledger.json', {'processes': 1, 'seconds': {},
                                               'at': {}}), reseeded),
           command, words, '{tmp}/run/config.json has changed since',
           'put back what jaxnas wrote', id=f'{command} by another seed')
    for command, words in (
      ('rank', ''), ('measure', ''), ('search', ''), ('export', '--arch 0120')
    )
  ),
  # What several commands write is no run, and not what another one goes on
  # with.
  *(
    row(together(rewritten(owner), put('run/uniform/seed_0/checkpoints/1', '')),
        command, words, f'{{tmp}}/run was written by jaxnas.{owner}: ',
        'such as are in it: {tmp}/run/uniform/seed_0.',
        id=f'{command} of {owner}')
    for owner in ('compare', 'sweep')
    for command, words in (
      ('rank', '--run {tmp}/run'),
      ('export', '--run {tmp}/run --arch best'),
      ('retrain', '--run {tmp}/run --arch best'),
      ('calibrate', '--run {tmp}/run --suggest 2'),
      ('report', '{tmp}/run'),
    )
  ),
  *(
    row(rewritten(owner), command, f'--workdir {{tmp}}/run --resume {words}',
        f'{{tmp}}/run was written by jaxnas.{owner}, and jaxnas.{command}',
        'choose another --workdir', id=f'{command} --resume of {owner}')
    for command, words in (
      ('train', ''), ('compare', '--samplers uniform'),
      ('sweep', '--set seed=0'), ('retrain', '--arch 0120'),
    )
    for owner in ('train', 'compare', 'sweep', 'retrain')
    if owner != command
  ),
  *(
    of_run(lambda root: None, command, '--workdir {tmp}/run', '{tmp}/run holds',
           'choose another --workdir', id=f'{command} over a run')
    for command in ('rank', 'measure', 'search')
  ),
  *(
    of_run(lambda root: None, command, '--workdir {config}/w', 'config.py is '
           'no folder', 'choose another --workdir', id=f'{command} in a file')
    for command in ('rank', 'measure', 'search')
  ),
  of_run(lambda root: None, 'export', '--arch best --workdir {config}',
         'config.py is no folder', 'another --workdir', id='export to a file'),
  of_run(lambda root: None, 'export', '--arch best --workdir {config}/w',
         'config.py is no folder', 'another --workdir', id='export in a file'),
  of_run(lambda root: None, 'export', '--arch best --workdir {tmp}/run',
         '{tmp}/run', 'choose another --workdir', id='export over a run'),
  of_run(lambda root: None, 'export', '', 'no architecture', 'give --arch ARCH',
         id='export nothing'),
  of_run(lambda root: None, 'export', '--arch 01', "'01' has 2 digits",
         '4 positions', id='export no arch'),
  of_run(lambda root: None, 'export', '--arch best --seed 0', '--seed',
         'python -m jaxnas.retrain', id='export a seed'),
  of_run(lambda root: None, 'export', '--arch best --batches 0',
         'calibration_batches is 0', 'at least 1', id='export of no batches'),
  of_run(lambda root: None, 'export', '--arch best --batches x', "'x'", 'INT',
         id='export of x batches'),
  # Flags that need a run.
  *(
    of_run(lambda root: None, command, words, value, remedy,
           id=f'{command} {words}'[:60])
    for command, words, value, remedy in (
      ('rank', '--ranking.image 3', "'--ranking.image'",
       'mean --ranking.images?'),
      ('rank', '--ranking.images 501', 'images is 501', 'there are 500'),
      ('rank', '--ranking.images 0', 'images is 0', 'at least 1'),
      ('rank', '--ranking.archs 82', 'archs is 82', 'there are 81'),
      ('rank', '--ranking.bn running', 'bn running', 'bn recalibrate'),
      ('rank', '--ranking.every_epochs 1', '--ranking.every_epochs',
       'is no flag here'),
      ('rank', '--epochs 1', "'--epochs' is no flag", '--help lists all'),
      ('measure', '--measure', '--measure names nothing', 'one or several'),
      ('measure', '--measure gradients', "'gradients'", 'representational'),
      ('measure', '--archs 1', '--archs is 1', 'at least 2'),
      ('measure', '--archs 82', '--archs is 82', '81 architectures'),
      ('measure', '--archs -1', '--archs is -1', 'at least 2'),
      ('measure', '--density.batches 0', 'batches is 0', 'at least 1'),
      ('measure', '--density.memory_gb nan', 'memory_gb is nan', 'above 0'),
      ('measure', '--density.memory_gb 0', 'memory_gb is 0.0', 'above 0'),
      ('measure', '--density.bandwidth 1', 'density.bandwidth', 'kde'),
      ('measure', '--density.batch_size 501', 'is 501', 'there are 500'),
      ('measure', '--estimator prototypes', "'prototypes'", 'kde'),
      ('search', '--searcher evoluton', "'evoluton'", 'evolution'),
      ('search', '--max_macs ٣M', "'٣M'", 'such as 40K or 330M'),
      ('search', '--max_macs 1_0M', "'1_0M'", 'such as 40K or 330M'),
      ('search', '--max_macs 1..2M', "'1..2M'", 'such as 40K or 330M'),
      ('search', '--max_macs=-5', "'-5'", 'such as 40K or 330M'),
      ('search', '--max_macs 1e999', "'1e999'", 'such as 40K or 330M'),
      ('search', '--max_macs 5m', "'5m'", 'such as 40K or 330M'),
      ('search', '--max_params=', "''", 'such as 40K or 330M'),
      ('search', '--max_params 0', 'at most 0 parameters', 'they have'),
      ('search', '--population 0', 'population is 0', '[1, 1000000]'),
      ('search', '--population 1000000000000', 'is 1000000000000',
       '[1, 1000000]'),
      ('search', '--generations 0', 'generations is 0', '[1, 1000000]'),
      ('search', '--parents 0', 'parents is 0', '[1, 1000000]'),
      ('search', '--mutation nan', 'mutation is nan', '[0, 1]'),
      ('search', '--seed -1', '--seed is -1', '[0, 4294967295]'),
      ('search', '--top 0', '--top is 0', 'at least 1'),
      ('search', '--table {tmp}/no.json', '{tmp}/no.json', 'does not exist'),
      ('search', '--resum', "'--resum'", 'Did you mean --resume?'),
    )
  ),
  # Files of a run.
  of_run(result('run/correlation.json', {}), 'export', '--arch best',
         'correlation.json lacks best_arch', 'go on with --resume',
         id='no best arch'),
  of_run(result('run/correlation.json', {'best_arch': 3}), 'retrain',
         '--arch best', '(best_arch is 3)', BACK, id='best arch of 3'),
  of_run(put('run/search/best.json', '{"arch": '), 'export', '--arch best',
         'search/best.json cannot be read', BACK, id='cut best.json'),
  of_run(result('run/search/best.json', {'arch': '../0'}), 'export',
         '--arch best', "'../0' is not all digits", '4 positions',
         id='best arch of another space'),
  of_run(put('run/retrain.json', '{"arch": 3}'), 'export', '', '(arch is 3)',
         BACK, id='retrained 3'),
  of_run(put('run/retrain.json', '[]'), 'export', '', '(it is [], no object)',
         BACK, id='retrained a list'),
  of_run(put('run/retrain.json', '{"arch": null}'), 'export', '',
         'kept no weights', '--arch ARCH', id='retrained all'),
  of_run(together(put('run/retrain.json', '{"arch": "0120"}'),
                  result('run/result.json', RETRAINED)), 'export', '',
         'result.json has accuracies of 0 seeds', 'choose another --seed',
         id='result without seeds'),
  of_run(put('run/retrain.json', '{"arch": "0120"}'), 'export', '--seed 7',
         '--seed is 7', '{tmp}/run has 0 to 1', id='no such seed'),
  of_run(put('run/retrain.json', '{"arch": "0120"}'), 'export', '--seed -1',
         '--seed is -1', '{tmp}/run has 0 to 1', id='negative seed'),
  row(put('run/retrain.json', '{"arch": 3}'), 'retrain',
      '--workdir {tmp}/run --resume', '(arch is 3)', BACK, id='resumes 3'),
  row(put('run/table.json', '{}'), 'train', '--workdir {tmp}/run --resume',
      'table {tmp}/run/table.json', 'give a table of', id='kept table'),
  row(lambda root: None, 'train', '--config {config} --workdir {tmp}/run',
      '{tmp}/run holds a run already', 'add --resume', id='overwrite'),
  row(lambda root: None, 'train', '--workdir {tmp}/run --resume --seed 3',
      'with seed 0, not 3', 'resume it as it is', id='another seed'),
  row(lambda root: None, 'train', '--config {config} --workdir {tmp}/new '
      '--seed 3 --warmup_from {tmp}/run', 'with seed 0, not 3',
      'choose another --warmup_from', id='another warm-up'),
  # Of a search.
  search('', 'Expecting value', BACK, id='empty search'),
  search('[]', 'it is []', 'with the fields of', id='search of a list'),
  search('{}', 'it lacks run', BACK, id='search without a run'),
  search(kept(run=3), 'run is 3', 'must be a path', id='search of run 3'),
  row(put('s/search.json', kept(run='/no/run')), 'search',
      '--workdir {tmp}/s --resume', '/no/run holds no run', '--config FILE',
      id='search elsewhere'),
  search(kept(ranking=[]), 'ranking is []', 'fields of Ranking',
         id='search ranks a list'),
  search(kept(ranking={'image': 3}), "'ranking.image'",
         'Did you mean ranking.images?', id='search ranks image'),
  search(kept(population='2'), "population is '2'", 'an integer',
         id='search of text'),
  search(kept(searcher='annealing'), "'annealing'", 'exhaustive',
         id='search by annealing'),
  search(kept(color=1), "'color'", 'is none of', id='search in color'),
  # Of a comparison.
  compared('', 'compare.json cannot be read', BACK, id='empty comparison'),
  compared({}, '(it lacks samplers)', BACK, id='comparison of nothing'),
  compared(COMPARED | {'samplers': 'tree'}, "(samplers is 'tree')", BACK,
           id='comparison of text'),
  compared(COMPARED | {'samplers': [3]}, 'compares [3]', 'another --workdir',
           id='comparison of 3'),
  compared(COMPARED | {'samplers': []}, 'compares []', 'another --workdir',
           id='comparison of none'),
  compared(COMPARED | {'samplers': ['../../x']}, "'../../x'", 'is none of',
           id='comparison outside'),
  compared(COMPARED | {'samplers': ['tree:/x']}, "'/x'", 'prioritized',
           id='variant outside'),
  compared(COMPARED | {'seeds': True}, '(seeds is True)', BACK,
           id='comparison of True seeds'),
  compared(COMPARED | {'budget': 'p'}, "the budget 'p'", 'of paths, steps',
           id='comparison under p'),
  # Densities.
  density('alpha_A is <U1', 'must be floats of shape (81)', id='text',
          alpha_A=np.array(['a'] * 81)),
  density('alpha_A is not one', 'take it away', id='infinite density',
          alpha_A=np.full(81, np.inf)),
  density('archs_AxE is float64', 'must be integers of shape',
          id='float archs',
          archs_AxE=ARCHS_AxE * 1.0),
  density('of shape ()', 'must be integers of shape', id='no archs',
          archs_AxE=np.array(3), alpha_A=np.array(1.0)),
  density('holds densities of 81', 'another space or order', id='order',
          archs_AxE=ARCHS_AxE[::-1]),
  density('Expecting property', 'd.npz', id='density of no facts',
          facts=np.array('{')),
  density('it is [1]', 'take it away', id='density of a list',
          facts=np.array('[1]')),
]  # fmt: skip


@pytest.mark.parametrize(('make', 'refusal'), FINISHED)
def test_runs(make, refusal, finished, tmp_path, capsys):
  shutil.copytree(finished, tmp_path / 'run')
  make(tmp_path)
  refused(refusal, tmp_path, capsys)


PREDICTED = {
  'archs_AxE': ARCHS_AxE[:9],
  'accuracy_A': np.linspace(0, 1, 9),
  'half_HxA': np.zeros((2, 9)),
  'right_AxW': np.zeros((9, 4), np.uint8),
  'skipped_images': np.array(0),
}


def predicted(facts=None, **changes):
  """Writes a ranking that would be that of the run, but for changes."""

  def make(root):
    run = root / 'run'
    given = run_folder.read_config(run)
    with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
      made_of = {
        'config': config.digest(given),
        'ranking': dataclasses.asdict(given.ranking),
        'state': checkpoints.digest(4),
      }
    files.write_npz(
      run / 'predictions.npz', PREDICTED | changes, made_of | (facts or {})
    )

  return make


def scored(**changes):
  """Writes the state of a search that would be of the run, but for changes."""

  def make(root):
    run = root / 'run'
    given = run_folder.read_config(run)
    with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
      made_of = {
        'config': config.digest(given),
        'step': 4,
        'state': checkpoints.digest(4),
        'ranking': dataclasses.asdict(given.ranking),
      }
    (run / 'search').mkdir()
    files.write_npz(run / 'search' / 'state.npz', STATE | changes, made_of)

  return make


STATE = {
  'archs_VxE': ARCHS_AxE[:2],
  'accuracy_V': np.array([0.5, 0.25]),
  'generation_V': np.array([0, 0]),
  'generation': np.array(1),
}
AGAIN = 'take it away, or put back'
MEANWHILE = [
  *(
    row(make, 'train', '--workdir {tmp}/run --resume',
        '{tmp}/run/predictions.npz', value, remedy, id=f'predictions: {value}')
    for make, value, remedy in (
      (put('run/predictions.npz', b'PK\x05'), 'is not a readable npz', REMEDY),
      (put('run/predictions.npz', {'archs_AxE': ARCHS_AxE}), 'lacks accuracy_A',
       'or incomplete'),
      (put('run/predictions.npz', PREDICTED), 'of which config', AGAIN),
      (predicted(archs_AxE=ARCHS_AxE[:9] + 7), 'op 7 at', AGAIN),
      (predicted(archs_AxE=ARCHS_AxE[:9] * 1.0), 'is float64', AGAIN),
      (predicted(accuracy_A=np.zeros(8)), 'of shape (8,)', AGAIN),
      (predicted(accuracy_A=np.full(9, np.nan)), 'not one number', AGAIN),
      (predicted(accuracy_A=np.full(9, 93.0)), 'not one number', AGAIN),
      (predicted(right_AxW=np.zeros((9, 4))), 'is float64', AGAIN),
      (predicted(skipped_images=np.zeros(2)), 'of shape (2,)', AGAIN),
      (predicted({'config': 'x'}), 'another run: of config', AGAIN),
      (predicted({'ranking': {}}), 'another run: of ranking', AGAIN),
      (predicted({'state': 'x'}), 'another run: of state', AGAIN),
      (predicted(), 'other architectures', AGAIN),
    )
  ),
  of_run(put('run/rank-validation-batch/predictions.part.npz', b''), 'rank', '',
         'predictions.part.npz is not a readable npz', 'or take it away',
         id='half a ranking'),
  *(
    of_run(
      make, 'search',
      '--overwrite --searcher random --population 2 --generations 1',
      '{tmp}/run/search/state.npz', value, remedy, id=f'state: {value}',
    )
    for make, value, remedy in (
      (put('run/search/state.npz', b'PK'), 'is not a readable npz', REMEDY),
      (put('run/search/state.npz', {'accuracy_V': np.zeros(2)}),
       'lacks archs_VxE', 'new --workdir'),
      (put('run/search/state.npz', STATE), 'of which config', 'new --workdir'),
      (scored(accuracy_V=np.zeros((2, 2))), 'of shape', 'new --workdir'),
      (scored(generation=np.array(1.5)), 'is float64', 'new --workdir'),
      (scored(archs_VxE=ARCHS_AxE[:1]), 'of shape (1)', 'new --workdir'),
      (scored(archs_VxE=ARCHS_AxE[:2] + 9), 'op 9', 'new --workdir'),
      (scored(own_1=np.zeros(1)), 'own_0', 'new --workdir'),
    )
  ),
]  # fmt: skip


@pytest.mark.parametrize(('make', 'refusal'), MEANWHILE)
def test_what_is_read_while_a_run_goes_on(
  make, refusal, finished, tmp_path, capsys
):
  shutil.copytree(finished, tmp_path / 'run')
  make(tmp_path)
  refused(refusal, tmp_path, capsys, code=1)


def test_rows_that_are_none_are_left_out(tmp_path):
  file = tmp_path / 'rows.jsonl'
  good = [{'step': 1, 'loss': 2.0}, {'step': 2}]
  file.write_bytes(
    b'{"step": 1, "loss": 2.0}\n\xff\xfe\n[]\n3\n\n{"step": "1"}\n{"step": NaN}'
    b'\n{"step": true}\n{"loss": 1}\n' + b'[' * 100_000 + b'\n{"step": 2}\n'
    b'{"step": 3'
  )
  assert jsonl.read_rows(file, {'step': int}) == good
  assert jsonl.read_rows(tmp_path / 'none.jsonl', {'step': int}) == []


def test_links_are_followed_where_a_user_put_them(tmp_path, finished):
  """A run, a table or images may well be links to another disk."""
  (tmp_path / 'run').symlink_to(finished)
  assert run_folder.read_config(tmp_path / 'run').seed == 0
  truth.dump(truth.load(DIGITS), tmp_path / 'real.json', data='digits')
  (tmp_path / 't.json').symlink_to(tmp_path / 'real.json')
  assert truth.load(DIGITS, tmp_path / 't.json').accuracy_A.shape == (81,)
  before = contents(tmp_path)
  (tmp_path / 'loop.json').symlink_to('loop.json')
  with pytest.raises(FileNotFoundError, match=r'loop\.json does not exist'):
    truth.load(DIGITS, tmp_path / 'loop.json')
  (tmp_path / 'loop.json').unlink()
  assert contents(tmp_path) == before
