"""Tables and images, converted from pickles."""

import bz2
import collections
import dataclasses
import io
import os
import pickle

import numpy as np
import pytest

from jaxnas import data, prepare, spaces, truth
from jaxnas.data import imagenet16
from jaxnas.data import preparation as images
from jaxnas.runtime import pickles
from jaxnas.truth import nats
from jaxnas.truth import preparation as tables

SPACE = spaces.get('nas_bench_201')
# Its cells of two ops: 64 of them.
SMALL = dataclasses.replace(SPACE, ops=(SPACE.ops[0][:2],) * 6)
BATCHES = [*(f'train_data_batch_{i}' for i in range(1, 11)), 'val_data']


def failure(capsys, argv, code):
  """The one line that a failing command prints."""
  with pytest.raises(SystemExit) as caught:
    prepare.main(argv)
  assert caught.value.code == code
  out, err = capsys.readouterr()
  lines = [line for line in err.splitlines() if line.strip()]
  assert out == '' and len(lines) == 1
  return lines[0]


# Pickles


def old_numpy(pickled):
  """Protocols below 4 write names as lines, so that they can be replaced."""
  assert b'numpy._core.multiarray\n' in pickled
  return pickled.replace(b'numpy._core.', b'numpy.core.')


VALUES = {
  'text': 'é',
  b'bytes': [1, 2.5, None, True, {3}, (4,)],
  'ordered': collections.OrderedDict(a=np.float64(0.5)),
  'array': np.arange(6, dtype=np.uint8).reshape(2, 3),
}


@pytest.mark.parametrize(
  ('protocol', 'change'),
  [(2, bytes), (3, bytes), (4, bytes), (2, old_numpy), (3, old_numpy)],
)
def test_pickles_of_numbers_and_arrays_are_read(protocol, change):
  # Sets are a call to a builtin before protocol 4.
  values = VALUES if protocol == 4 else VALUES | {b'bytes': [1, 2.5, None]}
  out = pickles.load(io.BytesIO(change(pickle.dumps(values, protocol))))
  np.testing.assert_array_equal(out.pop('array'), values['array'])
  assert out == {k: v for k, v in values.items() if k != 'array'}
  assert isinstance(out['ordered'], collections.OrderedDict)


def test_text_of_python_2_is_str():
  # SHORT_BINSTRING, as its protocol 2 writes every text.
  assert pickles.load(io.BytesIO(b'\x80\x02U\x04data.')) == 'data'


class Call:
  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize(
  ('call', 'name'),
  [
    (lambda file: Call(os.system, f'touch {file}'), f'{os.name}.system'),
    (lambda file: Call(os.mkdir, str(file)), f'{os.name}.mkdir'),
    (lambda file: Call(eval, f'open({str(file)!r}, "w")'), r'\w+\.eval'),
    (lambda file: Call(np.save, str(file), np.zeros(1)), r'numpy\.save'),
  ],
)
def test_functions_that_act_are_refused_and_named(
  call, name, protocol, tmp_path
):
  file = tmp_path / 'ran'
  pickled = pickle.dumps([call(file)], protocol)
  with pytest.raises(ValueError, match=f'{name} is refused') as caught:
    pickles.load(io.BytesIO(pickled))
  assert '\n' not in str(caught.value)
  assert list(tmp_path.iterdir()) == []
  # It would have run.
  pickle.loads(pickled)
  assert [path.name.split('.')[0] for path in tmp_path.iterdir()] == ['ran']


def test_only_the_encoding_of_protocol_2_is_allowed():
  import _codecs

  good, bad = (Call(_codecs.encode, 'é', e) for e in ('latin1', 'utf-8'))
  assert pickles.load(io.BytesIO(pickle.dumps(good))) == b'\xe9'
  with pytest.raises(ValueError, match="encoding 'utf-8' is refused"):
    pickles.load(io.BytesIO(pickle.dumps(bad)))


PICKLED = pickle.dumps(VALUES, 4)


@pytest.mark.parametrize(
  'content', [b'', *(PICKLED[:n] for n in (1, 20, -1)), PICKLED + b'.']
)
def test_damaged_pickles_are_one_line_with_the_file(content, tmp_path):
  file = tmp_path / 'x.pickle'
  file.write_bytes(content)
  with pytest.raises(ValueError, match=r'x\.pickle: no readable') as caught:
    pickles.read(file)
  assert '\n' not in str(caught.value)


def test_damaged_bz2_is_one_line_with_the_file(tmp_path):
  file = tmp_path / 'x.pickle.pbz2'
  for content in (bz2.compress(pickle.dumps(VALUES))[:-9], b'no bz2', b''):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'x\.pickle\.pbz2: no readable'):
      pickles.read(file)


# ImageNet16-120


def batch(seed, labels):
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (len(labels), 768), np.uint8)
  return {'data': pixels, 'labels': labels, 'mean': pixels.mean(axis=0)}


def batches():
  return {
    name: batch(i, [i % 10 + 1, 121, 120, 1000])
    for i, name in enumerate(BATCHES)
  }


def write(folder, contents, protocol=4):
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    (folder / name).write_bytes(pickle.dumps(content, protocol))


def imagenet(tmp_path):
  return [
    *('imagenet16_120', '--from', str(tmp_path / 'B')),
    *('--dir', str(tmp_path / 'D'), '--trust_pickle'),
  ]


def nested(folder):
  for part, names in (('train', BATCHES[:-1]), ('val', BATCHES[-1:])):
    write(folder / f'Imagenet16_{part}', {n: batches()[n] for n in names})


def with_bytes(folder):
  contents = {
    name: {key.encode(): value for key, value in content.items()}
    for name, content in batches().items()
  }
  write(folder, contents, 2)


def with_arrays(folder):
  contents = batches()
  for content in contents.values():
    content['labels'] = np.array(content['labels'])
  write(folder, contents, 3)


@pytest.mark.parametrize('layout', [nested, with_bytes, with_arrays])
def test_imagenet16_becomes_what_load_reads(layout, tmp_path, capsys):
  layout(tmp_path / 'B')
  prepare.main(imagenet(tmp_path))
  file = tmp_path / 'D' / 'imagenet16_120.npz'
  assert capsys.readouterr().out == f'{file}: written\n'
  assert list(file.parent.iterdir()) == [file]
  images = data.load('imagenet16_120', str(tmp_path / 'D'))
  assert images.classes == 120
  assert images.x_train.shape == (20, 16, 16, 3)
  # Two images of each batch are of the first 120 classes.
  labels = [label for i in range(11) for label in (i % 10, 119)]
  np.testing.assert_array_equal(images.y_train, labels[:20])
  np.testing.assert_array_equal(images.y_test, labels[20:])
  for name, x in (
    (BATCHES[3], images.x_train[6:8]),
    ('val_data', images.x_test),
  ):
    for row, image in zip((0, 2), x, strict=True):
      pixels = batches()[name]['data'][row]
      for channel in range(3):
        plane = pixels[256 * channel :][:256]
        np.testing.assert_array_equal(image[..., channel].ravel(), plane)
  pixels = images.x_train.reshape(-1, 3) / 255
  np.testing.assert_allclose(images.mean_C, pixels.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(images.std_C, pixels.std(axis=0), rtol=1e-12)


def test_prepared_imagenet16_is_left_alone_or_in_the_way(tmp_path, capsys):
  write(tmp_path / 'B', batches())
  prepare.main(imagenet(tmp_path))
  (tmp_path / 'B' / 'val_data').unlink()
  prepare.main(imagenet(tmp_path))
  assert capsys.readouterr().out.endswith('there already, left alone\n')
  file = tmp_path / 'D' / 'imagenet16_120.npz'
  np.savez(file, x_train=np.zeros(1))
  line = failure(capsys, imagenet(tmp_path), 1)
  assert f'{file} is in the way and no npz with x_train, y_train' in line
  file.write_bytes(b'no zip')
  assert 'is in the way and no npz' in failure(capsys, imagenet(tmp_path), 1)


def changed(name, **entries):
  def change(contents):
    contents[name] = contents[name] | entries

  return change


def no_labels(contents):
  del contents['val_data']['labels']


def a_list(contents):
  contents['val_data'] = [1]


def acts(contents):
  contents['val_data']['mean'] = Call(os.system, 'exit 1')


def ragged(contents):
  contents['val_data']['labels'] = [1, [2], 3, 4]


PIXELS = np.zeros((4, 768), np.uint8)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (changed('val_data', labels=[121, 1000, 500, 400]), 'no test images'),
    (no_labels, "val_data holds no dict with 'labels'"),
    (a_list, "val_data holds no dict with 'data'"),
    (acts, f'val_data: no readable pickle (UnpicklingError: {os.name}.system'),
    (ragged, "val_data: 'labels' is no array"),
    (changed('val_data', data=PIXELS[:, 1:]), 'uint8 of shape (4, 767)'),
    (changed('val_data', data=PIXELS.ravel()), 'of shape (3072,)'),
    (changed('val_data', data=np.int64(3)), "'data' is int64 of shape ()"),
    (changed('val_data', data=PIXELS.astype(int)), 'int64 of shape (4, 768)'),
    (changed('val_data', labels=[1, 2]), "'labels' is int64 of shape (2,)"),
    (changed('val_data', labels=[1.0] * 4), "'labels' is float64"),
    (
      changed('train_data_batch_2', labels=[3, 1001, 1, 1]),
      'train_data_batch_2: image 1 has label 1001; labels are 1 to 1000',
    ),
    (
      changed('train_data_batch_2', labels=[3, 3, 0, 1]),
      'image 2 has label 0',
    ),
  ],
)
def test_batches_that_are_not_imagenets_are_refused(
  change, message, tmp_path, capsys
):
  contents = batches()
  change(contents)
  write(tmp_path / 'B', contents)
  assert message in failure(capsys, imagenet(tmp_path), 1)
  assert [path.name for path in tmp_path.iterdir()] == ['B']


def test_a_batch_that_is_missing_is_named_before_any_is_read(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(pickles, 'load', lambda stream: pytest.fail('read'))
  write(tmp_path / 'B', batches())
  (tmp_path / 'B' / 'train_data_batch_7').unlink()
  line = failure(capsys, imagenet(tmp_path), 2)
  assert 'B lacks train_data_batch_7' in line and 'give the folder' in line
  assert [path.name for path in tmp_path.iterdir()] == ['B']


def test_a_batch_that_is_there_twice_is_refused(tmp_path):
  write(tmp_path, batches())
  write(tmp_path / 'copy', {'val_data': batches()['val_data']})
  with pytest.raises(ValueError, match='val_data is there a second time, as'):
    imagenet16.read(tmp_path)


def test_imagenet16_that_is_not_as_prepared_is_refused(tmp_path):
  command = r'prepare imagenet16_120 --dir {} --from BATCHES --trust_pickle ma'
  with pytest.raises(FileNotFoundError, match=command.format('D')):
    data.load('imagenet16_120')
  with pytest.raises(FileNotFoundError, match=command.format(tmp_path)):
    data.load('imagenet16_120', str(tmp_path))
  write(tmp_path / 'B', batches())
  arrays = imagenet16.read(tmp_path / 'B')
  arrays['y_test'][1] = 120
  np.savez(tmp_path / 'imagenet16_120.npz', **arrays)
  with pytest.raises(ValueError, match='y_test goes to 120; labels are 0 to'):
    data.load('imagenet16_120', str(tmp_path))


# NAS-Bench-201


def result(arch, rng, seeds=(777, 888)):
  """An architecture's, as the benchmark has it, but for much else."""
  parts = {
    'cifar10-valid': ('x-valid', 'ori-test'),
    'cifar10': ('ori-test',),
    'cifar100': ('ori-test', 'x-valid', 'x-test'),
    'ImageNet16-120': ('ori-test', 'x-valid', 'x-test'),
  }
  results = {
    (name, seed): {
      'eval_acc1es': {
        f'{part}@{epoch}': float(value)
        for part in parts[name]
        for epoch, value in zip((198, 199), rng.uniform(5, 95, 2), strict=True)
      }
    }
    for name in parts
    for seed in seeds
  }
  return collections.OrderedDict(
    {
      '12': {'arch_str': arch, 'all_results': {}},
      '200': {'arch_str': arch, 'all_results': results},
    }
  )


def benchmark(space=SMALL, seed=0, **kwargs):
  """Architectures in no order, and their results."""
  rng = np.random.default_rng(seed)
  archs = [space.format(arch_E) for arch_E in space.enumerate()]
  rng.shuffle(archs)
  return archs, {a: result(arch, rng, **kwargs) for a, arch in enumerate(archs)}


def write_file(tmp_path, archs, infos):
  content = {
    'meta_archs': archs,
    'arch2infos': infos,
    'evaluated_indexes': set(infos),
  }
  file = tmp_path / 'NATS-tss-v1_0-3ffb9.pickle.pbz2'
  file.write_bytes(bz2.compress(pickle.dumps(content, 4), 1))
  return file


def write_folder(tmp_path, archs, infos):
  folder = tmp_path / 'NATS-tss-v1_0-3ffb9-simple'
  folder.mkdir()
  meta = {'meta_archs': archs, 'arch2infos': None, 'evaluated_indexes': set()}
  contents = {'meta': meta} | {f'{a:06d}': info for a, info in infos.items()}
  for name, content in contents.items():
    pickled = bz2.compress(pickle.dumps(content, 4))
    (folder / f'{name}.pickle.pbz2').write_bytes(pickled)
  return folder


@pytest.mark.parametrize('write', [write_file, write_folder])
def test_nats_becomes_arrays(write, tmp_path):
  archs, infos = benchmark()
  arrays = nats.read(write(tmp_path, archs, infos), SMALL)
  assert arrays['op_names'].tolist() == ['none', 'skip_connect']
  assert arrays['ops'].dtype == np.int8
  for arch_E, arch in zip(arrays['ops'], archs, strict=True):
    assert SMALL.format(arch_E) == arch
  for column, name, part in (
    ('cifar10_test', 'cifar10', 'ori-test'),
    ('cifar100_test', 'cifar100', 'x-test'),
    ('imagenet16_test', 'ImageNet16-120', 'x-test'),
  ):
    assert arrays[column].dtype == np.float32
    expected = [
      np.mean(
        [
          infos[a]['200']['all_results'][name, seed]['eval_acc1es'][
            f'{part}@199'
          ]
          for seed in (777, 888)
        ]
      )
      for a in range(64)
    ]
    np.testing.assert_allclose(arrays[column], expected, rtol=1e-6)


@pytest.mark.slow
def test_the_whole_benchmark_becomes_a_table(tmp_path, capsys):
  archs, infos = benchmark(SPACE, seeds=(777,))
  file = write_file(tmp_path, archs, infos)
  argv = ['nas_bench_201', '--from', str(file), '--dir', str(tmp_path / 'D')]
  prepare.main([*argv, '--trust_pickle'])
  final = tmp_path / 'D' / 'nas_bench_201.npz'
  assert capsys.readouterr().out == f'{final}: written\n'
  accuracies = infos[3]['200']['all_results']['cifar100', 777]['eval_acc1es']
  table = truth.load(SPACE, final, 'cifar100')
  np.testing.assert_allclose(
    table.accuracy(SPACE.parse(archs[3])[None]),
    [accuracies['x-test@199'] / 100],
    rtol=1e-6,
  )
  file.write_bytes(b'')
  prepare.main([*argv, '--trust_pickle'])
  assert capsys.readouterr().out.endswith('there already, left alone\n')


def deleted(*path):
  def change(archs, infos):
    inner = infos
    for key in path[:-1]:
      inner = inner[key]
    del inner[path[-1]]

  return change


def replaced(value, *path):
  def change(archs, infos):
    inner = infos
    for key in path[:-1]:
      inner = inner[key]
    inner[path[-1]] = value

  return change


def without_data(archs, infos):
  results = infos[5]['200']['all_results']
  for seed in (777, 888):
    del results['cifar100', seed]


def another_op(archs, infos):
  archs[5] = archs[5].replace('none', 'conv_7x7')


def twice(archs, infos):
  archs[5] = archs[6]


def exchanged(archs, infos):
  infos[5], infos[6] = infos[6], infos[5]


ACCURACY = (5, '200', 'all_results', ('cifar10', 888), 'eval_acc1es')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (deleted(5), r'architecture 5, \|.*\|, is missing'),
    (deleted(5, '200'), "architecture 5 lacks '200'"),
    (replaced([], 5, '200'), "architecture 5 has a list at '200'"),
    (deleted(5, '200', 'all_results'), "architecture 5 lacks 'all_results'"),
    (without_data, "architecture 5 lacks 'cifar100'"),
    (
      deleted(*ACCURACY, 'ori-test@199'),
      "architecture 5, cifar10, seed 888 lacks 'ori-test@199'",
    ),
    (replaced(100.1, *ACCURACY, 'ori-test@199'), '888 has 100.1 at'),
    (replaced(float('nan'), *ACCURACY, 'ori-test@199'), '888 has nan at'),
    (replaced('93', *ACCURACY, 'ori-test@199'), '888 has a str at'),
    (another_op, "architecture 5: op 'conv_7x7' at position"),
    (twice, 'is there more than once'),
    (exchanged, r'architecture 5 is announced as \|.* and is \|'),
  ],
)
def test_incomplete_benchmarks_are_refused(change, message, tmp_path):
  archs, infos = benchmark()
  change(archs, infos)
  file = write_file(tmp_path, archs, infos)
  with pytest.raises(ValueError, match=message) as caught:
    nats.read(file, SMALL)
  assert str(file) in str(caught.value) and '\n' not in str(caught.value)


def test_missing_architectures_of_the_benchmark_are_named(tmp_path):
  archs, infos = benchmark()
  last = archs.pop()
  file = write_file(tmp_path, archs, infos)
  with pytest.raises(ValueError) as caught:
    nats.read(file, SMALL)
  assert f'architecture {last} is missing' in str(caught.value)


def test_missing_files_of_the_folder_are_named(tmp_path):
  folder = write_folder(tmp_path, *benchmark())
  (folder / '000005.pickle.pbz2').unlink()
  with pytest.raises(FileNotFoundError, match=r'000005\.pickle\.pbz2 does not'):
    nats.read(folder, SMALL)
  (folder / 'meta.pickle.pbz2').unlink()
  with pytest.raises(FileNotFoundError, match=r'meta\.pickle\.pbz2 does not'):
    nats.read(folder, SMALL)


def test_pickles_of_something_else_are_refused(tmp_path):
  file = tmp_path / 'x.pickle.pbz2'
  for content, message in (
    ([1], "lacks 'meta_archs'"),
    ({'meta_archs': None}, "has a NoneType at 'meta_archs'"),
    ({'meta_archs': [3]}, "architecture 0: '3' has 1 op"),
  ):
    file.write_bytes(bz2.compress(pickle.dumps(content)))
    with pytest.raises(ValueError, match=message):
      nats.read(file, SMALL)


# Flags


@pytest.mark.parametrize(
  ('name', 'flags', 'message'),
  [
    ('imagenet16_120', [], 'needs --from: the folder with train_data_batch_1'),
    ('nas_bench_201', ['--trust_pickle'], 'needs --from: NATS-tss-v1_0-3ffb9'),
    ('nas_bench_201', ['--from', '{}'], 'a pickle can run code: add --trust_'),
    ('imagenet16_120', ['--from', '{}'], 'for files that you trust only'),
    ('nas_bench_201', ['--from', '{}/no'], '/no does not exist'),
    ('nas_bench_201', ['--url', 'file:///x'], 'converted and does not use --u'),
    ('imagenet16_120', ['--sha256', 'a'], 'does not use --sha256: leave it'),
    ('nas_bench_macro', ['--from', '{}'], 'downloaded and does not use --from'),
  ],
)
def test_wrong_usage_ends_with_2(name, flags, message, tmp_path, capsys):
  flags = [flag.format(tmp_path) for flag in flags]
  argv = [name, '--dir', str(tmp_path / 'D'), *flags]
  assert message in failure(capsys, argv, 2)


def test_nothing_is_unpickled_without_trust(tmp_path, monkeypatch):
  monkeypatch.setattr(pickles, 'load', lambda stream: pytest.fail('read'))
  write(tmp_path, batches())
  for prepared in (images.imagenet16_120, tables.nas_bench_201):
    with pytest.raises(ValueError, match='add --trust_pickle'):
      prepared(tmp_path / 'D', tmp_path, trust_pickle=False)
