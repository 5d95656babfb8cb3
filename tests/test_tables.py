import json
import os

import numpy as np
import pytest

from jaxnas import spaces, truth

DIGITS = spaces.get('digits')
POOLING = spaces.get('pooling')
MACRO = spaces.get('nas_bench_macro')
CELLS = spaces.get('nas_bench_201')
# All architectures, in another order than the space's.
OPS = np.random.default_rng(0).permutation(CELLS.enumerate()).astype(np.int8)
PERCENT = (
  np.random.default_rng(1).uniform(2, 100, (3, 15625)).astype(np.float32)
)

# Published, in percent, lexicographic in the two blocks that pool.
PUBLISHED = """
87.45 87.69 87.89 88.60 89.38 90.13 90.16 89.41 88.78 89.03 90.42 90.57
90.89 91.01 90.22 89.10 89.70 90.61 90.92 90.88 90.14 89.68 90.34 90.52
90.85 89.71 91.05 90.96 91.55 89.84 91.78 91.83 90.96 92.01 90.47 89.99
"""


def own(**changes):
  names = map(DIGITS.format, DIGITS.enumerate())
  accuracy = {name: [0.5 + i / 1000, 0.25] for i, name in enumerate(names)}
  return {'space': 'digits', 'data': 'digits', 'accuracy': accuracy | changes}


def macro(**changes):
  values = [90.0, 91.0, 92.0]
  names = map(DIGITS.format, DIGITS.enumerate())
  content = {
    name: {
      'test_acc': values,
      'mean_acc': 91.0,
      'std': 0.816,
      'params': 1,
      'flops': 2,
    }
    for name in names
  }
  return content | changes


def lacking(content, *path):
  for key in path[:-1]:
    content = content[key]
  del content[path[-1]]


@pytest.fixture
def load(tmp_path):
  def load(content, space=DIGITS):
    file = tmp_path / 'truth.json'
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text)
    return truth.load(space, file)

  return load


@pytest.fixture
def refused(load):
  def refused(content, *says):
    with pytest.raises(ValueError) as error:
      load(content)
    assert all(part in str(error.value) for part in ('truth.json', *says)), (
      error.value
    )

  return refused


def test_shipped_pooling_is_the_published_table():
  table = truth.load(POOLING)
  published_A = np.array([float(value) for value in PUBLISHED.split()])
  np.testing.assert_allclose(100 * table.accuracy_A, published_A, atol=1e-12)
  archs_AxE = np.stack([POOLING.parse(t) for t in ('7,8', '3,4', '1,2')])
  np.testing.assert_allclose(
    table.accuracy(archs_AxE), [0.9201, 0.8910, 0.8745]
  )


@pytest.mark.parametrize(
  ('space', 'says'),
  [
    (MACRO, 'python -m jaxnas.prepare nas_bench_macro --dir'),
    (MACRO, '--table FILE'),
    (CELLS, r'prepare nas_bench_201 --from NATS --dir D --trust_pickle'),
  ],
)
def test_no_shipped_table(space, says):
  assert not truth.shipped(space)
  with pytest.raises(FileNotFoundError, match=says):
    truth.load(space)


def test_no_such_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'gone\.json'):
    truth.load(DIGITS, tmp_path / 'gone.json')
  with pytest.raises(ValueError, match='is a folder: give a file'):
    truth.load(DIGITS, tmp_path)


def test_own_format(load):
  table = load(own(agreement=0.7) | {'accuracy': own()['accuracy']})
  assert table.seeds_AxS.shape == (81, 2)
  assert table.seeds_AxS.dtype == table.accuracy_A.dtype == np.float64
  first = (0.5 + 0.25) / 2
  np.testing.assert_allclose(
    table.accuracy_A, first + np.arange(81) / 2000, rtol=1e-14
  )


def test_entries_come_in_any_order(load):
  content = own()
  backwards = dict(reversed(content['accuracy'].items()))
  np.testing.assert_array_equal(
    load(content | {'accuracy': backwards}).seeds_AxS, load(content).seeds_AxS
  )


def test_accuracy_follows_the_archs_asked_for(load):
  table = load(own())
  order = np.random.default_rng(0).permutation(81)[:20]
  np.testing.assert_array_equal(
    table.accuracy(DIGITS.enumerate()[order]), table.accuracy_A[order]
  )
  with pytest.raises(ValueError, match='op 3 at position 1 of arch 0'):
    table.accuracy(np.array([[0, 3, 0, 0]], np.int32))


def test_whole_numbers_are_accuracies_too(load):
  content = own(**{name: [1, 0] for name in own()['accuracy']})
  np.testing.assert_array_equal(load(content).accuracy_A, np.full(81, 0.5))


def test_format_of_the_benchmark(load):
  entry = {'test_acc': [100, 50.0, 0.0], 'mean_acc': 50.0}
  table = load(macro(**{'0120': entry}))
  np.testing.assert_allclose(table.seeds_AxS[0], [0.9, 0.91, 0.92])
  np.testing.assert_allclose(
    table.accuracy(DIGITS.parse('0120')[None]), [0.5], rtol=1e-14
  )


def test_the_benchmark(benchmark_file, benchmark):
  table = truth.load(MACRO, benchmark_file)
  assert table.seeds_AxS.shape == (6561, 3)
  np.testing.assert_allclose(
    table.accuracy_A,
    [benchmark[MACRO.format(a)]['mean_acc'] / 100 for a in MACRO.enumerate()],
    rtol=1e-12,
  )
  best, worst = table.accuracy_A.argmax(), table.accuracy_A.argmin()
  assert MACRO.format(MACRO.enumerate()[best]) in ('22212220', '22212202')
  assert MACRO.format(MACRO.enumerate()[worst]) == '00000000'
  with pytest.raises(ValueError, match="'02012100' is no architecture of dig"):
    truth.load(DIGITS, benchmark_file)


def cells(**changes):
  """NAS-Bench-201's npz."""
  return {
    'ops': OPS,
    'op_names': np.array(CELLS.ops[0]),
    'cifar10_test': PERCENT[0],
    'cifar100_test': PERCENT[1],
    'imagenet16_test': PERCENT[2],
    'genotype': np.array(['not read'], object),
  } | changes


def edited(values, place, value):
  out = np.copy(values)
  out[place] = value
  return out


@pytest.mark.parametrize(
  ('images', 'row'), [('cifar10', 0), ('cifar100', 1), ('imagenet16_120', 2)]
)
def test_the_column_of_cells_follows_the_images(images, row, tmp_path):
  np.savez(tmp_path / 't.npz', **cells())
  table = truth.load(CELLS, tmp_path / 't.npz', images)
  assert table.seeds_AxS.shape == (15625, 1)
  np.testing.assert_array_equal(
    table.accuracy(OPS.astype(np.int32)), PERCENT[row].astype(float) / 100
  )
  # Other columns are not needed.
  kept = ('ops', 'op_names', list(cells())[2 + row])
  np.savez(tmp_path / 'u.npz', **{key: cells()[key] for key in kept})
  np.testing.assert_array_equal(
    truth.load(CELLS, tmp_path / 'u.npz', images).accuracy_A, table.accuracy_A
  )


def test_the_whole_benchmark_of_cells(data_folder, tmp_path):
  file = data_folder / 'nas_bench_201.npz'
  table = truth.load(CELLS, file)
  archs = [
    '|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+'
    '|nor_conv_1x1~0|skip_connect~1|skip_connect~2|',
    '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|',
  ]
  archs_AxE = np.stack([CELLS.parse(arch) for arch in archs])
  # The mean of the benchmark's own first file: 85.79, 85.62 and 86.18.
  np.testing.assert_allclose(
    table.accuracy(archs_AxE), [0.8586333, 0.1], rtol=1e-6
  )
  # Of the first arch, and the best of all that the paper reports.
  for images, accuracy, best in (
    ('cifar10', 0.85863335, 0.9437),
    ('cifar100', 0.52913334, 0.7351),
    ('imagenet16_120', 0.26633333, 0.4731),
  ):
    other = truth.load(CELLS, file, images)
    np.testing.assert_allclose(
      other.accuracy(archs_AxE[:1]), [accuracy], rtol=1e-6
    )
    assert round(other.accuracy_A.max(), 4) == best
  truth.dump(table, tmp_path / 'table.json', data='cifar10')
  again = truth.load(CELLS, tmp_path / 'table.json')
  np.testing.assert_array_equal(again.seeds_AxS, table.seeds_AxS)


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'ops': edited(OPS, (7, 3), 5)}, 'op 5 at position 3 of arch 7'),
    ({'ops': edited(OPS, (7, 3), -1)}, 'op -1 at position 3 of arch 7'),
    ({'ops': OPS[:, :5]}, 'archs of shape (15625, 5)'),
    ({'ops': OPS.ravel()}, 'archs of shape (93750,)'),
    ({'ops': OPS.astype(float)}, 'archs of dtype float64'),
    ({'ops': OPS[1:]}, 'must be floats of shape (15624,)'),
    ({'ops': OPS[:0], 'cifar10_test': PERCENT[0][:0]}, 'has no architectures'),
    (
      {'ops': edited(OPS, 3, OPS[9])},
      f'architecture {CELLS.format(OPS[9])} is there more than once',
    ),
    (
      {'op_names': edited(np.array(CELLS.ops[0]), 3, 'nor_conv_7x7')},
      'op_names are none, skip_connect, nor_conv_1x1, nor_conv_7x7, avg_pool',
    ),
    ({'op_names': np.array(CELLS.ops[0][::-1])}, 'they must be none, skip_con'),
    ({'op_names': np.arange(5)}, 'op_names are 0, 1, 2, 3, 4'),
    ({'op_names': np.array([{}], object)}, 'without pickled objects'),
    ({'cifar10_test': PERCENT[0][1:]}, 'cifar10_test is float32 of shape (156'),
    ({'cifar10_test': PERCENT[:1]}, 'of shape (1, 15625)'),
    ({'cifar10_test': np.zeros(15625, int)}, 'cifar10_test is int64'),
    *(
      (
        {'cifar10_test': edited(PERCENT[0], 11, value)},
        f'cifar10_test of {CELLS.format(OPS[11])} has accuracy {value}; it '
        'must be in [0, 1] or [0, 100]',
      )
      for value in (np.nan, np.inf, -0.5, 100.5)
    ),
  ],
)
def test_wrong_npz(changes, says, tmp_path):
  file = tmp_path / 't.npz'
  np.savez(file, **cells(**changes))
  with pytest.raises(ValueError) as caught:
    truth.load(CELLS, file)
  assert says in str(caught.value) and str(file) in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('images', ['arrays', 'imagenet', 'cifar10'])
@pytest.mark.parametrize(
  ('column', 'row'),
  [
    ('cifar10_test', 0), ('cifar100_test', 1), ('imagenet16_test', 2),
    # By their images, too.
    ('cifar100', 1), ('imagenet16_120', 2),
  ],
)  # fmt: skip
def test_a_column_is_named_for_other_images(images, column, row, tmp_path):
  file = tmp_path / 't.npz'
  np.savez(file, **cells())
  table = truth.find(CELLS, images, file, None, column)
  np.testing.assert_array_equal(
    table.accuracy(OPS.astype(np.int32)), PERCENT[row].astype(float) / 100
  )
  assert str(table).startswith(f'table {file}, {column}: ')


def test_columns_that_are_not_there(tmp_path):
  file = tmp_path / 't.npz'
  np.savez(file, **cells())
  with pytest.raises(ValueError, match=r't\.npz lacks cifar9_test'):
    truth.load(CELLS, file, 'arrays', 'cifar9_test')
  with pytest.raises(ValueError, match='--table_column takes others'):
    truth.load(CELLS, file, 'arrays')
  with pytest.raises(
    ValueError, match=r'--table_column a is of .* --table FILE'
  ):
    truth.find(DIGITS, 'digits', None, None, 'a')


def test_the_data_of_a_json_is_named_for_other_images(tmp_path):
  file = tmp_path / 'table.json'
  truth.dump(truth.load(DIGITS), file, data='digits')
  for images in ('arrays', 'digits'):
    table = truth.load(DIGITS, file, images, 'digits')
    np.testing.assert_array_equal(
      table.accuracy_A, truth.load(DIGITS).accuracy_A
    )
  with pytest.raises(ValueError, match=r"'digits', not 'arrays'; --table"):
    truth.load(DIGITS, file, 'arrays')
  with pytest.raises(ValueError, match="'digits', not 'cifar10'"):
    truth.load(DIGITS, file, 'digits', 'cifar10')


def test_npz_of_another_space_or_without_the_images(tmp_path):
  file = tmp_path / 't.npz'
  np.savez(file, **cells())
  with pytest.raises(ValueError, match='space nas_bench_201, not digits'):
    truth.load(DIGITS, file)
  with pytest.raises(
    ValueError, match="on 'arrays', only on cifar10, cifar100, imagenet16_120"
  ):
    truth.load(CELLS, file, 'arrays')
  np.savez(file, cifar100_test=PERCENT[1])
  with pytest.raises(ValueError, match='lacks ops, op_names, cifar10_test'):
    truth.load(CELLS, file)
  file.write_bytes(b'no zip')
  with pytest.raises(ValueError, match='not a readable npz'):
    truth.load(CELLS, file)


@pytest.mark.parametrize(
  ('values', 'says'),
  [
    ([1.0001, 0.5], '1.0001; among fractions: give one unit for all'),
    ([-0.1, 0.5], '-0.1; it must be in [0, 1] or [0, 100]'),
    ([93.1, 92.2], '93.1; among fractions: give one unit for all'),
    ([101, 0.5], '101.0; it must be in [0, 1] or [0, 100]'),
    (['0.5', 0.5], "'0.5'"),
    ([True, 0.5], 'True'),
    ([None, 0.5], 'None'),
    ([[0.5], 0.5], '[0.5]'),
    ([], '[], not a list of accuracies'),
    (0.5, '0.5, not a list of accuracies'),
    ({'mean': 0.5}, 'not a list of accuracies'),
    ([0.5], "'0120' has 1 seeds, '0000' 2"),
    ([0.5, float('nan')], "['0120'][1] is nan, no finite number"),
    ([float('inf'), 0.5], "['0120'][0] is inf"),
  ],
)
def test_wrong_accuracies(refused, values, says):
  refused(own(**{'0120': values}), '0120', says)


@pytest.mark.parametrize(
  ('entry', 'says'),
  [
    ({'test_acc': [90.0, 91.0, 92.0]}, "lacks 'mean_acc'"),
    ({'mean_acc': 91.0}, "lacks 'test_acc'"),
    ({'test_acc': [90.0, 91.0, 92.0], 'mean_acc': 91.00001}, 'mean_acc 91.0'),
    ({'test_acc': [90.0, 91.0, 92.0], 'mean_acc': '91'}, "'91'"),
    ({'test_acc': [90.0, 91.0, 101.0], 'mean_acc': 94.0}, '101.0'),
    ({'test_acc': 91.0, 'mean_acc': 91.0}, 'not a list'),
    ({'test_acc': [91.0] * 2, 'mean_acc': 91.0}, 'has 2 seeds'),
    ([91.0], 'not an object'),
    (None, 'None, not an object'),
    (
      {'test_acc': [91.0], 'mean_acc': 91.0, 'std': float('nan')},
      "['std'] is nan",
    ),
  ],
)
def test_wrong_entries_of_the_benchmark(refused, entry, says):
  refused(macro(**{'0120': entry}), '0120', says)


def test_some_architectures_and_no_others(load, refused):
  for content, path in ((own(), ('accuracy', '0120')), (macro(), ('0120',))):
    lacking(content, *path)
    table = load(content)
    assert not table.whole
    assert '80 of 81 architectures' in str(table)
    one_1xE = DIGITS.parse('0120')[None]
    assert np.isnan(table.known(one_1xE)).all()
    with pytest.raises(ValueError, match=r'lacks 1 of the 1 that are .* 0120'):
      table.accuracy(one_1xE)
    rest_AxE = np.array([a for a in DIGITS.enumerate() if (a != one_1xE).any()])
    np.testing.assert_array_equal(table.accuracy(rest_AxE), table.accuracy_A)
  refused(own(**{'0130': [0.5, 0.5]}), "'0130' is no architecture of digits")
  refused(macro(**{'012': macro()['0000']}), "'012' is no architecture")


def test_tables_of_spaces_that_nobody_lists(tmp_path):
  space = spaces.get('mobilenet')
  archs_AxE = space.random(np.random.default_rng(0), 7)
  file = tmp_path / 'some.json'
  accuracy = {space.format(a): [0.7 + i / 100] for i, a in enumerate(archs_AxE)}
  file.write_text(json.dumps({'space': space.name, 'accuracy': accuracy}))
  table = truth.load(space, file)
  assert str(table) == (
    f'table {file}: 7 of 2.47e+23 architectures, in fractions'
  )
  np.testing.assert_allclose(
    table.accuracy(archs_AxE[::-1]), np.arange(76, 69, -1) / 100
  )
  truth.dump(table, tmp_path / 'again.json')
  again = truth.load(space, tmp_path / 'again.json')
  np.testing.assert_array_equal(
    again.accuracy(archs_AxE), table.accuracy(archs_AxE)
  )


@pytest.mark.parametrize('images', ['cifar10', 'cifar100', 'imagenet16_120'])
def test_units_are_told_and_said(images, tmp_path):
  columns = {c: p / 100 for c, p in cells().items() if c.endswith('_test')}
  chance = {'cifar10': 10, 'cifar100': 1, 'imagenet16_120': 0.8333333}[images]
  guessing = {
    c: edited(p, slice(0, 9), chance)
    for c, p in cells().items()
    if c in columns
  }
  for name, changes, unit in (
    ('percent', {}, 'percent'),
    ('fractions', columns, 'fractions'),
    ('guessing', guessing, 'percent'),
  ):
    file = tmp_path / f'{name}.npz'
    np.savez(file, **cells(**changes))
    table = truth.load(CELLS, file, images)
    assert table.unit == unit and str(table).endswith(f'in {unit}')
    assert 0.99 < table.accuracy_A.max() <= 1
    if name == 'guessing':
      known = table.accuracy(OPS[:9].astype(np.int32))
      np.testing.assert_allclose(known, chance / 100)


def test_own_percentages_and_fractions_of_the_benchmark(load):
  percent = {k: [100 * v for v in vs] for k, vs in own()['accuracy'].items()}
  table = load(own(**percent))
  assert table.unit == 'percent'
  np.testing.assert_allclose(table.seeds_AxS, load(own()).seeds_AxS)
  entry = {'test_acc': [0.9, 0.91, 0.92], 'mean_acc': 0.91}
  table = load(dict.fromkeys(macro(), entry))
  assert table.unit == 'fractions'
  np.testing.assert_allclose(table.accuracy_A, 0.91)
  assert load(macro()).unit == 'percent'


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    # Fractions among percentages, and the other way round.
    (macro(**{'0120': {'test_acc': [0.9] * 3, 'mean_acc': 0.9}}),
     "'0120' has accuracy 0.9; among percentages: give one unit"),
    (own(**{'0120': [1.5, 0.5]}), "'0120' has accuracy 1.5; among fractions"),
    (own(**{name: [0.005, 0.0093] for name in own()['accuracy']}),
     'the best accuracy is 0.93%, below guessing among 10 classes'),
  ],
)  # fmt: skip
def test_units_that_can_not_be_meant(refused, content, says):
  refused(content, says)


def test_another_space(refused):
  refused(own() | {'space': 'pooling'}, "of space 'pooling', not 'digits'")
  content = own()
  lacking(content, 'space')
  refused(content, 'of space None')


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('', 'Expecting value'),
    ('{"space": "digits"', 'delimiter'),
    ('[]', 'a list, not an object'),
    ('3', 'a int, not an object'),
    ('{}', 'has no architectures'),
    ('{"space": "digits", "accuracy": [0.5]}', "'accuracy' is no object"),
    ('{"0000": 1, "0000": 2}', "'0000' stands there twice"),
    ('{"space": "digits", "space": "digits"}', "'space' stands there twice"),
    ('{"space": "digits", "facts": [1, {"a": 1e999}]}', "['facts'][1]['a']"),
    ('{"space": -Infinity}', "['space'] is -inf, no finite number"),
    ('[' * 100_000, 'nested too deeply'),
    ('{"a": ' + '9' * 5000 + '}', 'digits'),
  ],
  ids=range(12),
)
def test_wrong_files(refused, text, says):
  refused(text, says)


def test_bytes_that_are_no_text(tmp_path):
  file = tmp_path / 'truth.json'
  file.write_bytes(b'{"space": "\xff"}')
  with pytest.raises(ValueError, match=r"truth\.json: 'utf-8' codec"):
    truth.load(DIGITS, file)


def test_dump_is_read_back(tmp_path):
  seeds_AxS = np.random.default_rng(0).random((81, 3))
  table = truth.from_seeds(DIGITS, seeds_AxS)
  np.testing.assert_allclose(table.accuracy_A, seeds_AxS.mean(axis=1))
  files = [tmp_path / 'a.json', tmp_path / 'b.json']
  metadata = {
    'versions': {'b': '2', 'a': '1'},
    'command': 'x',
    'agreement': 0.7,
  }
  truth.dump(table, files[0], **metadata)
  truth.dump(table, files[1], **dict(reversed(metadata.items())))
  assert files[0].read_bytes() == files[1].read_bytes()
  np.testing.assert_array_equal(
    truth.load(DIGITS, files[0]).seeds_AxS, seeds_AxS
  )
  content = json.loads(files[0].read_text())
  assert {key: content[key] for key in metadata} == metadata
  assert list(content) == sorted(content)
  assert list(content['versions']) == ['a', 'b']


def test_facts_never_replace_the_table(tmp_path):
  table = truth.from_seeds(DIGITS, np.full((81, 1), 0.5))
  truth.dump(table, tmp_path / 't.json', space='pooling', accuracy={})
  np.testing.assert_array_equal(
    truth.load(DIGITS, tmp_path / 't.json').accuracy_A, table.accuracy_A
  )


def test_failed_dump_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  file = tmp_path / 't.json'
  table = truth.from_seeds(DIGITS, np.full((81, 1), 0.5))
  truth.dump(table, file)
  before = file.read_bytes()
  with pytest.raises(ValueError):
    truth.dump(table, file, agreement=float('nan'))
  assert file.read_bytes() == before

  def torn(fd):
    os.truncate(fd, 100)
    raise OSError('disk full')

  monkeypatch.setattr(os, 'fsync', torn)
  with pytest.raises(OSError, match='disk full'):
    truth.dump(truth.from_seeds(DIGITS, np.ones((81, 1))), file)
  assert file.read_bytes() == before


def test_a_table_of_other_images_is_refused(tmp_path):
  file = tmp_path / 'table.json'
  table = truth.load(DIGITS)
  truth.dump(table, file, data='digits')
  for images in (None, 'digits'):
    np.testing.assert_array_equal(
      truth.load(DIGITS, file, images).accuracy_A, table.accuracy_A
    )
  with pytest.raises(ValueError, match="of images 'digits', not 'arrays'"):
    truth.load(DIGITS, file, 'arrays')
  assert truth.shipped(DIGITS, 'digits')
  assert not truth.shipped(DIGITS, 'arrays')
