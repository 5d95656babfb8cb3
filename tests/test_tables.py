import json
from pathlib import Path

import numpy as np
import pytest

from jaxnas import spaces, tables

DIGITS = spaces.get('digits')
POOLING = spaces.get('pooling')
MACRO = spaces.get('nas_bench_macro')

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
    return tables.load(space, file)

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
  table = tables.load(POOLING)
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
  ],
)
def test_no_shipped_table(space, says):
  assert not tables.shipped(space)
  with pytest.raises(FileNotFoundError, match=says):
    tables.load(space)


def test_no_such_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'gone\.json'):
    tables.load(DIGITS, tmp_path / 'gone.json')
  with pytest.raises(FileNotFoundError, match=tmp_path.name):
    tables.load(DIGITS, tmp_path)


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
  table = tables.load(MACRO, benchmark_file)
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
    tables.load(DIGITS, benchmark_file)


@pytest.mark.parametrize(
  ('values', 'says'),
  [
    ([1.0001, 0.5], '1.0001; it must be a number in [0, 1]'),
    ([-0.1, 0.5], '-0.1'),
    ([93.1, 92.2], '93.1'),
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


def test_every_architecture_and_no_other(refused):
  for content, path in ((own(), ('accuracy', '0120')), (macro(), ('0120',))):
    lacking(content, *path)
    refused(content, "architecture '0120' is missing")
  refused(own(**{'0130': [0.5, 0.5]}), "'0130' is no architecture of digits")
  refused(macro(**{'012': macro()['0000']}), "'012' is no architecture")


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
    ('{}', "'0000' is missing"),
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
    tables.load(DIGITS, file)


def test_dump_is_read_back(tmp_path):
  seeds_AxS = np.random.default_rng(0).random((81, 3))
  table = tables.from_seeds(DIGITS, seeds_AxS)
  np.testing.assert_allclose(table.accuracy_A, seeds_AxS.mean(axis=1))
  files = [tmp_path / 'a.json', tmp_path / 'b.json']
  facts = {'versions': {'b': '2', 'a': '1'}, 'command': 'x', 'agreement': 0.7}
  tables.dump(table, files[0], **facts)
  tables.dump(table, files[1], **dict(reversed(facts.items())))
  assert files[0].read_bytes() == files[1].read_bytes()
  np.testing.assert_array_equal(
    tables.load(DIGITS, files[0]).seeds_AxS, seeds_AxS
  )
  content = json.loads(files[0].read_text())
  assert {key: content[key] for key in facts} == facts
  assert list(content) == sorted(content)
  assert list(content['versions']) == ['a', 'b']


def test_facts_never_replace_the_table(tmp_path):
  table = tables.from_seeds(DIGITS, np.full((81, 1), 0.5))
  tables.dump(table, tmp_path / 't.json', space='pooling', accuracy={})
  np.testing.assert_array_equal(
    tables.load(DIGITS, tmp_path / 't.json').accuracy_A, table.accuracy_A
  )


def test_failed_dump_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  file = tmp_path / 't.json'
  table = tables.from_seeds(DIGITS, np.full((81, 1), 0.5))
  tables.dump(table, file)
  before = file.read_bytes()
  with pytest.raises(ValueError):
    tables.dump(table, file, agreement=float('nan'))
  assert file.read_bytes() == before

  def torn(self, text, *args, **kwargs):
    self.write_bytes(text[:100].encode())
    raise OSError('disk full')

  monkeypatch.setattr(Path, 'write_text', torn)
  with pytest.raises(OSError, match='disk full'):
    tables.dump(tables.from_seeds(DIGITS, np.ones((81, 1))), file)
  assert file.read_bytes() == before
