"""Tables of a further cost: read, as limits, as an objective, and measured."""

import json

import numpy as np
import pytest

from jaxnas import search, spaces
from jaxnas.config import run_folder
from jaxnas.config.registry import SEARCHERS
from jaxnas.experiment import latency
from jaxnas.runtime import files
from jaxnas.searchers import Limits, cost_table, findings, selection
from jaxnas.searchers.base import State
from jaxnas.searchers.draws import draws, listed
from jaxnas.searchers.limits import check, extremes, idle
from support.small_run import SPACE, ARCHS_AxE

MOBILENET = spaces.get('mobilenet')
RNG = np.random.default_rng
COSTS = [[0.5, 1.25, 2.0], [0.0, 3.0, 1.0], [0.125, 0.25, 4.0]]
BASE = 0.75
EXPECTED_A = BASE + sum(
  np.array(row)[ARCHS_AxE[:, e]] for e, row in enumerate(COSTS)
)


def by_op(space, costs, key=lambda names, o: names[o], **more):
  return json.dumps(
    {
      'positions': [
        {key(names, o): cost for o, cost in enumerate(row)}
        for names, row in zip(space.ops, costs, strict=True)
      ],
      **more,
    }
  )


def csv_of(space, key):
  lines = ['position,op,cost']
  for e, row in enumerate(COSTS):
    lines += [f'{e},{key(space.ops[e], o)},{c}' for o, c in enumerate(row)]
  return '\n'.join(lines) + '\n'


def of_archs(costs_A):
  return dict(zip(map(SPACE.format, ARCHS_AxE), costs_A.tolist(), strict=True))


GOOD = {
  'names.json': by_op(SPACE, COSTS, base=BASE, unit='mJ'),
  'numbers.json': by_op(SPACE, COSTS, lambda names, o: str(o), base=BASE),
  'archs.json': json.dumps({'archs': of_archs(EXPECTED_A)}),
  'archs.csv': 'arch,cost\n'
  + ''.join(f'{arch},{cost}\n' for arch, cost in of_archs(EXPECTED_A).items()),
}


@pytest.mark.parametrize('name', GOOD)
def test_a_table_gives_every_architecture_its_cost(name, tmp_path):
  (tmp_path / name).write_text(GOOD[name])
  table = cost_table.load(tmp_path / name, SPACE)
  np.testing.assert_allclose(table.of(ARCHS_AxE), EXPECTED_A)
  assert table.unit == ('mJ' if name == 'names.json' else 'cost')


@pytest.mark.parametrize('key', [lambda names, o: names[o], lambda _, o: o])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_csv_of_ops_has_no_base(key, encoding, tmp_path):
  (tmp_path / 'ops.csv').write_text(csv_of(SPACE, key), encoding)
  table = cost_table.load(tmp_path / 'ops.csv', SPACE)
  np.testing.assert_allclose(table.of(ARCHS_AxE), EXPECTED_A - BASE)


BAD = [
  ('a.json', '{}', 'either positions or archs'),
  ('a.json', by_op(SPACE, COSTS, archs={}), 'either positions or archs'),
  ('a.json', by_op(SPACE, [*COSTS[:2], [1, 2]]), 'its ops at position 2 are'),
  ('a.json', json.dumps({'positions': [{'0': 1}]}), 'has 1 positions; small'),
  ('a.json', by_op(SPACE, COSTS, lambda _, o: f'{o}!'), 'it lacks op'),
  ('a.json', by_op(SPACE, COSTS).replace('3.0', '"3"'), "is '3'"),
  ('a.json', json.dumps({'archs': {'000': 1.0}}), 'it lacks 26 of 27'),
  ('a.json', json.dumps({'archs': {'0009': 1.0}}), "'0009'"),
  ('a.csv', 'arch;cost\n', "its first line is 'arch;cost'"),
  ('a.csv', '', "its first line is ''"),
  ('a.csv', 'arch,cost\n000,x\n', 'line 2 is'),
  ('a.csv', 'arch,cost\n000,inf\n', 'the cost of 000 is inf'),
  ('a.csv', 'arch,cost\n000,1\n000,2\n', "line 3 has '000' for the second"),
  ('a.csv', 'position,op,cost\n1,0,2\n', r'its positions are \[1\]'),
]


@pytest.mark.parametrize(('name', 'content', 'said'), BAD)
def test_what_a_table_lacks_is_named(name, content, said, tmp_path):
  (tmp_path / name).write_text(content)
  with pytest.raises(ValueError, match=said):
    cost_table.load(tmp_path / name, SPACE)


def test_a_list_of_architectures_needs_a_space_that_can_be_listed(tmp_path):
  (tmp_path / 'a.json').write_text('{"archs": {}}')
  with pytest.raises(ValueError, match='give costs of positions and ops'):
    cost_table.load(tmp_path / 'a.json', MOBILENET)


@pytest.fixture
def table(tmp_path):
  (tmp_path / 't.json').write_text(GOOD['names.json'])
  return cost_table.load(tmp_path / 't.json', SPACE)


def test_a_limit_of_the_table_excludes_and_its_ends_are_named(table):
  within = Limits(max_cost=3.0, table=table)
  np.testing.assert_array_equal(
    listed(SPACE, within), ARCHS_AxE[EXPECTED_A <= 3.0]
  )
  most = EXPECTED_A.max()
  (line,) = idle(SPACE, Limits(max_cost=most, table=table))
  assert line.startswith('--max_cost') and f'{most:.4g} mJ' in line
  with pytest.raises(ValueError, match=r'at most 0\.5 mJ: they have 1\.375 to'):
    check(SPACE, Limits(max_cost=0.5, table=table))
  least_params = int(extremes(SPACE)[0][0])
  dear_A = EXPECTED_A[SPACE.costs(ARCHS_AxE).params_A == least_params]
  if dear_A.min() > 1.5:
    with pytest.raises(ValueError, match='--max_params, --max_cost'):
      check(SPACE, Limits(least_params, None, 1.5, table))


def test_draws_from_a_large_space_are_within_the_table_too(tmp_path):
  rows = [
    RNG(e).uniform(0, 1, n).tolist() for e, n in enumerate(MOBILENET.counts)
  ]
  (tmp_path / 'm.json').write_text(by_op(MOBILENET, rows))
  table = cost_table.load(tmp_path / 'm.json', MOBILENET)
  least, most = extremes(MOBILENET, table)[:, 2]
  cost = float(least + 0.3 * (most - least))
  limits = Limits(None, 350_000_000, cost, table)
  archs_NxE = draws(MOBILENET, limits)(RNG(0), 50)
  assert (table.of(archs_NxE) <= cost).all()
  assert (MOBILENET.costs(archs_NxE).macs_A <= 350_000_000).all()
  assert len(np.unique(archs_NxE, axis=0)) == 50


def test_the_table_is_an_objective(table):
  """The least of its cost is on the front, whatever its accuracy."""
  cheap = int(EXPECTED_A.argmin())
  accuracy_A = SPACE.costs(ARCHS_AxE).macs_A / 1e9
  accuracy_A[cheap] = -1.0
  found = State(ARCHS_AxE, accuracy_A, np.ones(27, np.int32), np.int32(1), ())
  assert cheap in findings.front(SPACE, found, table)
  chosen_N = selection.parents(
    SPACE, ARCHS_AxE, accuracy_A, select='pareto', count=27, pool=27,
    table=table,
  )  # fmt: skip
  assert len(chosen_N) == 27
  row = findings.rows(SPACE, found, table)[cheap]
  assert row['cost'] == EXPECTED_A[cheap]
  assert 'cost' not in findings.rows(SPACE, found)[0]


@pytest.mark.parametrize('name', ['random', 'evolution', 'tree', 'exhaustive'])
def test_every_searcher_keeps_to_the_table(name, table):
  limits = Limits(max_cost=3.0, table=table)
  searcher = SEARCHERS.get(name)(SPACE, limits)
  archs_NxE = searcher.propose(searcher.init(), RNG(0))
  assert len(archs_NxE) and (table.of(archs_NxE) <= 3.0).all()


def test_times_of_ops_are_found_in_times_of_networks():
  base, by_op = latency.fit(SPACE, ARCHS_AxE, EXPECTED_A)
  np.testing.assert_allclose(base, EXPECTED_A.min())
  for cost_O, row in zip(by_op, COSTS, strict=True):
    np.testing.assert_allclose(cost_O, np.array(row) - min(row), atol=1e-9)


@pytest.mark.slow
def test_a_search_by_a_measured_table_goes_on_with_it_alone(
  small_space, small, tmp_path
):
  space, measured = latency.measure(run_folder.read_config(small), 2)
  latency.write(tmp_path, space, measured, batch_size=2, dtype='float32')
  file = tmp_path / latency.FILE
  given = files.read_json(file, cost_table.KIND)
  assert given['batch_size'] == 2 and given['dtype'] == 'float32'
  assert len(given['checked']['measured_ms']) > 1
  flags = ['--run', str(small), '--population', '4', '--generations', '2']
  flags += ['--workdir', str(tmp_path / 's'), '--select', 'pareto']
  assert search.main([*flags, '--cost_table', str(file)]) == 0
  best = files.read_json(tmp_path / 's' / 'best.json', {})
  assert best['cost'] > 0
  given['base'] += 1
  files.write_json(file, given)
  with pytest.raises(SystemExit):
    search.main(['--workdir', str(tmp_path / 's'), '--resume'])
