"""Tables and figures: the runs that they need, what is kept, what is shown."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import small_run

from jaxnas import (
  compare,
  config,
  correlation,
  density_config,
  rank,
  runs,
  tables,
)
from jaxnas.config import Config, Data, Debias, Density, Optimizer, Ranking
from jaxnas.reproduce import (
  items,
  jobs,
  parts,
  plan,
  published,
  store,
  work,
)
from jaxnas.reproduce.__main__ import main
from jaxnas.training.preemption import Preemption

SMALL = Config(
  space='small',
  warmup_epochs=1,
  epochs=1,
  data=Data(batch_size=50),
  debias=Debias(effective_fraction=0.5),
  density=Density(batch_size=20),
  optimizer=Optimizer(peak_lr=0.05),
  ranking=Ranking(images=30, batch_size=10),
)


@pytest.fixture
def small(small_space, monkeypatch, tmp_path):
  """Every config is the small one; returns the flags of a folder."""
  # What differs between the items' spaces is of them alone.
  monkeypatch.setattr(config, 'load', lambda file: SMALL)
  tables.dump(small_run.TABLE, tmp_path / 'truth.json')
  table = tables.load(small_run.SPACE, tmp_path / 'truth.json')
  monkeypatch.setattr(tables, 'shipped', lambda *_: True)
  monkeypatch.setattr(tables, 'load', lambda *_: table)
  return [
    '--out', str(tmp_path / 'out'), '--results', str(tmp_path / 'results'),
  ]  # fmt: skip


@pytest.fixture
def untrained(small, monkeypatch):
  """Runs end at once, with made-up accuracies; returns the configs run."""
  seen, bootstrap = [], correlation.bootstrap
  monkeypatch.setattr(
    correlation,
    'bootstrap',
    lambda *given: bootstrap(*given[:4], 40),
  )

  def attempt(given, run, table, loaded, preemption, *, warmup_from):
    seen.append((given, warmup_from))
    runs.open_run(run, given, resume=True)
    rng = np.random.default_rng(len(seen))
    noise_A = rng.normal(size=27) / 50
    hits_A = np.rint(30 * (small_run.TABLE.accuracy_A + noise_A).clip(0, 1))
    runs.write_npz(
      run / 'predictions.npz',
      {'archs_AxE': small_run.ARCHS_AxE, 'accuracy_A': hits_A / 30},
    )
    runs.write_json(run / 'environment.json', runs.environment(precision='f'))
    found = rank.correlate(
      small_run.SPACE, small_run.ARCHS_AxE, hits_A / 30, small_run.TABLE, rng
    )
    runs.write_json(
      run / 'correlation.json',
      {'images': 30, 'split': 'validation', 'bn': 'batch', **found},
    )
    return found

  monkeypatch.setattr(compare, 'attempt', attempt)
  return seen


def read(folder, name):
  return json.loads((folder / f'{name}.json').read_text())


@pytest.mark.parametrize('scale', ['cpu', 'paper'])
def test_every_row_of_every_item_is_an_experiment(scale):
  for name in plan.chosen(['all'], scale):
    for row, of_row in plan.jobs(items.ITEMS[name], scale):
      assert len(row.names) == len(items.ITEMS[name].columns)
      assert bool(of_row) != bool(row.without)
      assert {*row.published} <= {*items.ITEMS[name].metrics}
      for job in of_row:
        assert job.config.debiases == row.sampler.endswith('+debias')
        assert not job.config.debias.baseline
        assert {*job.parts} <= {*parts.PARTS}


def test_runs_are_shared_between_items():
  def keys(name):
    return {
      job.key
      for _, of_row in plan.jobs(items.ITEMS[name], 'paper', 1)
      for job in of_row
    }

  assert keys('figure1') == keys('table3')
  assert keys('table6') == keys('figure2') < keys('table3')
  assert keys('bse') < keys('table_samplers')
  # The paper's estimator, fraction and measure are those of the configs.
  for name in ('table4', 'table5', 'table_measures', 'table_samplers'):
    assert keys(name) & keys('table3')
  assert len(keys('table_imagenet')) == 4


def test_published_numbers_stand_in_the_rows():
  found = {
    row.names: row.published
    for row, _ in plan.jobs(items.ITEMS['table3'], 'paper')
  }
  assert found['Pooling', 'debiased'] == {'kendall': 0.34, 'spearman': 0.55}
  sweep = {
    row.names: row.published
    for row, _ in plan.jobs(items.ITEMS['table5'], 'paper')
  }
  assert sweep['NAS-Bench-Macro', 'temperature 7'] == {'kendall': 0.74}
  assert sweep['Pooling', 'temperature 7'] == {}


def test_imagenet_is_left_out_of_the_small_scale():
  assert 'table_imagenet' not in plan.chosen(['all'], 'cpu')
  assert 'table_imagenet' in plan.chosen(['all'], 'paper')
  with pytest.raises(ValueError, match='only of --scale paper'):
    plan.chosen(['table_imagenet'], 'cpu')


def test_a_key_is_of_what_a_result_depends_on():
  key = jobs.key(SMALL)
  for changes in (
    {'data.dir': 'x', 'checkpoint.keep': 9, 'logging.every_steps': 1},
    {'retrain.epochs': 7},
  ):
    assert jobs.key(jobs.changed(SMALL, changes)) == key
  for changes in ({'seed': 1}, {'debias.effective_fraction': 0.4}):
    assert jobs.key(jobs.changed(SMALL, changes)) != key
  with pytest.raises(ValueError, match=r'density\.nothing is no field'):
    jobs.changed(SMALL, {'density.nothing': 1})


def test_a_command_trains_the_same():
  """Its flags are the fields that differ from the file."""
  row = items.table4('cpu')[1]
  job = jobs.job(row, 'cpu', 2, where={'cifar10': '/data'})
  words = jobs.command(job).split()
  assert words[:7] == [
    'python', '-m', 'jaxnas.train', '--config', 'pooling_cpu.py',
    '--data.dir', 'DIR',
  ]  # fmt: skip
  given = dict(zip(words[7::2], words[8::2], strict=True))
  # One path a step spends as much under either budget.
  assert given == {
    '--seed': '2',
    '--density.estimator': 'kde',
    '--sampler.budget': 'paths',
  }
  assert job.config.data.dir == '/data'


def test_a_table_says_ours_beside_the_published(
  untrained, small, tmp_path, capsys
):
  assert main(['table3', '--seeds', '2', *small]) == 0
  out = read(tmp_path / 'out', 'table3')
  assert 'the `_cpu` configs' in out['title']
  assert out['finished'] == out['wanted'] == 8
  # Both spaces are the small one here: two kinds of run, two seeds.
  assert len(untrained) == 4
  uniform = out['rows'][0]
  assert uniform['seeds'] == [0, 1]
  taus = uniform['metrics']['kendall']['values']
  assert uniform['metrics']['kendall'] == {
    'mean': pytest.approx(np.mean(taus)),
    'deviation': pytest.approx(np.std(taus, ddof=1)),
    'values': taus,
  }
  text = (tmp_path / 'out' / 'table3.md').read_text()
  cell = f'{np.mean(taus):.3f} ± {np.std(taus, ddof=1):.3f} | 0.160 |'
  assert f'| Pooling | uniform | 2 | {cell}' in text
  assert text.strip() in capsys.readouterr().out
  assert 'python -m jaxnas.reproduce table3 --scale cpu --seeds 2' in text
  for run in out['runs']:
    assert run['key'] in text and run['environment']['versions']['jax']
  assert str(tmp_path) not in text


def test_differences_are_paired(untrained, small, tmp_path):
  main(['table3', *small, '--seeds', '1'])
  out = read(tmp_path / 'out', 'table3')
  one = out['differences'][0]
  taus = [row['metrics']['kendall']['mean'] for row in out['rows'][:2]]
  assert one['kendall'] == pytest.approx(taus[1] - taus[0])
  low, high = one['interval']
  assert low < one['kendall'] < high


def test_finished_runs_are_not_repeated(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  before = (tmp_path / 'out' / 'table3.md').read_text()
  assert len(untrained) == 2
  # From the folder, and elsewhere from what is kept.
  shutil.rmtree(tmp_path / 'out' / 'runs')
  main(['table3', '--seeds', '1', *small])
  shutil.rmtree(tmp_path / 'out')
  main(['table3', '--seeds', '1', *small])
  assert (tmp_path / 'out' / 'table3.md').read_text() == before
  assert len(untrained) == 2
  # Another seed is one more of each.
  main(['table3', '--seeds', '2', *small])
  assert [given.seed for given, _ in untrained] == [0, 0, 1, 1]


def test_a_debiased_run_takes_over_the_warm_up(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  (uniform, first), (debiased, second) = untrained
  folders = tmp_path / 'out' / 'runs'
  assert first == folders / f'small-{jobs.key(uniform)}'
  assert second == folders / f'small-{jobs.key(uniform)}'
  assert debiased.debiases and not uniform.debiases
  # What items look at along the way stays.
  assert uniform.checkpoint.keep > 2 and debiased.checkpoint.keep == 2


def test_a_run_starts_from_one_that_has_its_density(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  folders = tmp_path / 'out' / 'runs'
  first, last = sorted(folders.iterdir())
  debiased = untrained[1][0]

  def start(**changes):
    given = jobs.changed(debiased, changes)
    return work.warmed_up(
      jobs.Job(jobs.Row((), 'pooling', 'uniform+debias'), given, '', ()),
      folders,
    )

  assert start(**{'debias.effective_fraction': 0.3}) == first
  (last / 'density.npz').touch()
  assert start(**{'debias.effective_fraction': 0.3}) == last
  assert start(**{'density.batches': 2}) == first
  assert start(**{'optimizer.peak_lr': 0.3}) is None


def test_a_dry_run_says_what_is_left(untrained, small, tmp_path, capsys):
  assert main(['table3', '--seeds', '1', '--dry_run', *small]) == 0
  said = capsys.readouterr().out
  assert '0 of 2 are finished' in said and '2 runs of unknown length' in said
  assert not untrained and not (tmp_path / 'out').exists()
  main(['table3', '--seeds', '1', *small])
  for file in (tmp_path / 'results').iterdir():
    result = json.loads(file.read_text())
    runs.write_json(file, result | {'wall_s': 1800.0})
  shutil.rmtree(tmp_path / 'out')
  capsys.readouterr()
  main(['table3', '--seeds', '2', '--dry_run', *small])
  said = capsys.readouterr().out
  assert '2 of 4 are finished; 1.0 hours left' in said


def test_table_5_has_the_temperatures_that_are_asked_for(
  untrained, small, tmp_path
):
  flags = ['table5', '--temperatures', '7', '20', *small]
  assert main(flags) == 0
  out = read(tmp_path / 'out', 'table5')
  for space, rest in (
    ('NAS-Bench-Macro', (50, 20, 7, 0.5, 0.1)),
    ('Pooling', (50, 20, 7, 3, 1, 0.5, 0.1)),
  ):
    assert [
      name for of, name in (row['names'] for row in out['rows'])
      if of == space and name.startswith('temperature')
    ] == [f'temperature {tau}' for tau in rest]  # fmt: skip
  assert '--scale cpu --temperatures 7 20 ' in out['command']


def test_one_that_fails_does_not_lose_the_others(
  untrained, small, tmp_path, monkeypatch, capsys
):
  attempt = compare.attempt

  def failing(given, *more, **named):
    if given.debiases:
      return {'error': 'ArithmeticError: too hot'}
    return attempt(given, *more, **named)

  monkeypatch.setattr(compare, 'attempt', failing)
  assert main(['table3', '--seeds', '1', *small]) == 1
  assert 'ArithmeticError: too hot' in capsys.readouterr().err
  out = read(tmp_path / 'out', 'table3')
  assert [row['seeds'] for row in out['rows'][:2]] == [[0], []]
  monkeypatch.setattr(compare, 'attempt', attempt)
  assert main(['table3', '--seeds', '1', *small]) == 0


def test_a_result_of_other_values_is_none_of_it(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  results = store.read([tmp_path / 'results'])
  job = plan.jobs(items.ITEMS['table3'], 'cpu', 1)[0][1][0]
  assert store.complete(job, results)
  results[job.key]['config']['optimizer.momentum'] = 0.8
  assert not store.complete(job, results)
  del results[job.key]['config']['optimizer.momentum']
  assert store.complete(job, results)
  with_parts = dataclasses.replace(job, parts=('densities',))
  assert not store.complete(with_parts, results)


@pytest.mark.parametrize(
  ('order', 'spearman'), [(1, 1.0), (-1, -1.0), (None, None)]
)
def test_what_is_kept_says_how_right_the_density_was(
  small, tmp_path, order, spearman
):
  (job,) = (
    job
    for row, of_seeds in plan.jobs(items.ITEMS['table3'], 'cpu', 1)
    for job in of_seeds
    if row.names == ('Pooling', 'debiased')
  )
  runs.write_json(tmp_path / 'correlation.json', {'images': 30})
  runs.write_json(tmp_path / 'environment.json', {'command': []})
  truth_A = small_run.TABLE.accuracy_A
  runs.write_npz(tmp_path / 'predictions.npz', {'accuracy_A': truth_A})
  # In another order than the table's.
  runs.write_npz(
    tmp_path / 'density.npz',
    {
      'archs_AxE': small_run.ARCHS_AxE[::-1],
      'alpha_A': np.exp((order or 1) * truth_A[::-1]),
    },
  )
  if order:
    tables.dump(small_run.TABLE, tmp_path / 'table.json')
  found = store.collect(job, tmp_path, {}, 0.0)['found']
  assert found.get('density_truth') == (spearman and pytest.approx(spearman))


def test_figure_1_is_drawn_from_what_is_kept(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  shutil.rmtree(tmp_path / 'out')
  main(['figure1', *small])
  assert len(untrained) == 2
  text = (tmp_path / 'out' / 'figure1.md').read_text()
  for name in ('Pooling--uniform', 'Pooling--debiased'):
    assert f'(figure1-{name}.png)' in text
    for kind in ('png', 'svg'):
      assert (tmp_path / 'out' / f'figure1-{name}.{kind}').exists()


def test_what_a_measure_cannot_do_is_said(untrained, small, tmp_path):
  main(['table_measures', *small])
  text = (tmp_path / 'out' / 'table_measures.md').read_text()
  assert 'encoding: no run, all architectures of Pooling are' in text


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    ([], 'name what to make'),
    (['table3', '--seeds', '0'], '--seeds is 0'),
    (['table5', '--temperatures', '0'], '--temperatures is 0.0'),
    (['table_imagenet'], 'only of --scale paper'),
    (['bse'], 'images of cifar10: give --data.dir DIR'),
    (['table_nb201', '--data.dir', 'x'], '--truth.nas_bench_201 FILE'),
  ],
)
def test_bad_input_ends_before_any_work(
  tmp_path, monkeypatch, capsys, flags, says
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as ended:
    main([*flags, '--out', 'out'])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err and err.count('\n') == 1
  assert not [*tmp_path.iterdir()]


def test_a_file_that_is_no_result_is_named(tmp_path):
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(ValueError, match=r'a\.json holds no result'):
    store.read([tmp_path])


def test_epochs_along_the_way():
  assert parts.looked_at(300) == (*published.TABLE_6,)
  assert parts.looked_at(3) == (0, 1, 2, 3)
  assert parts.looked_at(20) == (0, 3, 6, 9, 12, 15, 18, 20)


@pytest.mark.slow
def test_one_pass_of_gradients_serves_all_tensor_sets(
  small_space, monkeypatch, tmp_path
):
  run = small_run.train_in(tmp_path)
  experiment, state = small_run.loaded(run)
  monkeypatch.setattr(parts, 'along', lambda *_: [(0, experiment, state)])
  sets = (*experiment.net.tensor_sets,)
  monkeypatch.setattr(parts, 'TENSORS', sets)
  found = []
  monkeypatch.setattr(
    parts.correlation, 'spearman', lambda a, _: found.append(a) or 0.0
  )
  job = plan.jobs(items.ITEMS['table6'], 'cpu', 1)[0][1][0]
  job = dataclasses.replace(job, config=experiment.config)
  parts.densities(job, run, Preemption())
  assert len(found) == len(sets) > 1
  for name, alpha_A in zip(sets, found, strict=True):
    alone = density_config.estimate(
      parts.changed(experiment.config, {'density.tensors': name}),
      density_config.subject(experiment, state),
    )
    np.testing.assert_allclose(alpha_A, alone.alpha_A, rtol=1e-4)


@pytest.mark.long
def test_runs_are_trained_shared_and_looked_at(small, tmp_path, capsys):
  """Uniform and debiased from one warm-up, and two items from the former."""
  assert main(['table3', 'table6', 'figure2', '--seeds', '1', *small]) == 0
  assert 'goes on at step 10' in capsys.readouterr().out
  out = tmp_path / 'out'
  results = store.read([tmp_path / 'results'])
  assert len(results) == 2
  (uniform,) = (r for r in results.values() if r['parts'])
  (debiased,) = (r for r in results.values() if not r['parts'])
  assert debiased['found']['effective'] == pytest.approx(13.5, rel=1e-3)
  assert uniform['parts']['densities']['epochs'] == [0, 1, 2]
  for of_set in uniform['parts']['densities']['spearman'].values():
    assert of_set[-1] == pytest.approx(1) and abs(of_set[0]) < 1
  distances = uniform['parts']['distances']
  assert np.shape(distances['training']) == (3, len(distances['tensors']))
  for panel in ('training', 'validation'):
    assert (out / f'figure2-{panel}.png').exists()
  assert '| 2 | 1.00 | 1.00 | 1.00 |' in (out / 'table6.md').read_text()
  # The hits that are kept are those that were ranked.
  truth_A = small_run.TABLE.accuracy_A
  for result in results.values():
    assert correlation.kendall(
      np.array(result['hits']), truth_A
    ) == pytest.approx(result['found']['kendall'])


def table_imagenet(given, flags, monkeypatch, tmp_path):
  """Trains, searches and retrains with a config, and reads the table."""
  monkeypatch.setattr(config, 'load', lambda file: given)
  short = ('--population', '3', '--generations', '1', '--parents', '2')
  monkeypatch.setattr(parts, 'SEARCH', short)
  assert main(['table_imagenet', '--scale', 'paper', *flags]) == 0
  out = read(tmp_path / 'out', 'table_imagenet')
  assert [row['names'] for row in out['rows']] == [
    ['uniform'], ['debiased'], ['fair'], ['importance'], ['EA with shift'],
  ]  # fmt: skip
  # Evolution and shifting search the same supernet.
  assert len(store.read([tmp_path / 'results'])) == 4
  return [
    {name: row['metrics'][name]['mean'] for name in row['metrics']}
    for row in out['rows']
  ]


@pytest.mark.long
def test_imagenet_is_searched_and_retrained(small, tmp_path, monkeypatch):
  """Every stage, on a space that is a moment's work."""
  retrain = dataclasses.replace(SMALL.retrain, epochs=1, seeds=1)
  given = dataclasses.replace(SMALL, retrain=retrain)
  for found in table_imagenet(given, small, monkeypatch, tmp_path):
    assert 0 < found['searched'] <= 1 and 0 < found['macs'] <= 330e6
    assert 0 < found['retrained'] <= 1


@pytest.mark.long
def test_stages_of_imagenet_on_all_of_13_to_the_21(tmp_path, monkeypatch):
  """The published config, on two steps of as many images as `fair` has paths.

  Most of an hour on two cores, of which each of four steps compiles for seven
  minutes, in up to 17 GB.
  """
  rng, archs = np.random.default_rng(0), 13
  images = {
    f'{name}_{part}': value
    for part, count in (('train', 2 * archs + 4), ('test', 4))
    for name, value in (
      ('x', rng.integers(0, 256, (count, 32, 32, 3), np.uint8)),
      ('y', np.arange(count) % 2),
    )
  }
  np.savez(tmp_path / 'images.npz', **images)
  paper = config.load('mobilenet.py')
  given = dataclasses.replace(
    paper,
    data=Data(
      name='arrays',
      dir=str(tmp_path / 'images.npz'),
      train_fraction=None,
      holdout=2,
      batch_size=2,
    ),
    warmup_epochs=1,
    epochs=1,
    ranking=Ranking(images=4, archs=3, batch_size=4),
    retrain=dataclasses.replace(paper.retrain, epochs=1, seeds=1),
  )
  flags = [
    '--out', str(tmp_path / 'out'), '--results', str(tmp_path / 'results'),
  ]  # fmt: skip
  for found in table_imagenet(given, flags, monkeypatch, tmp_path):
    assert 0 <= found['searched'] <= 1 and 0 < found['macs'] <= 330e6
    assert 0 <= found['retrained'] <= 1
