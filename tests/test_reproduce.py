"""Tables and figures: the runs that they need, what is kept, what is shown."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxnas import config, density, truth
from jaxnas.config import (
  Config,
  Data,
  Debias,
  Density,
  Optimizer,
  Ranking,
  Sampler,
  run_flags,
  run_folder,
)
from jaxnas.config.search import Search
from jaxnas.data import fingerprint
from jaxnas.experiment import (
  comparison,
  contents,
  datasets,
  densities,
  npz_log,
  reports,
)
from jaxnas.reproduce import (
  curves,
  items,
  jobs,
  over_seeds,
  parts,
  plan,
  store,
  work,
)
from jaxnas.reproduce.__main__ import main
from jaxnas.reproduce.item import Finished, Item, Request
from jaxnas.reproduce.items import imagenet, length, table4, table6
from jaxnas.reproduce.metrics import Metric
from jaxnas.runtime import environment, files
from jaxnas.runtime.preemption import Preemption
from jaxnas.truth import agreement, calibration, correlation
from support import runs, small_run

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
  truth.dump(small_run.TABLE, tmp_path / 'truth.json')
  table = truth.load(small_run.SPACE, tmp_path / 'truth.json')
  monkeypatch.setattr(truth, 'shipped', lambda *_: True)
  monkeypatch.setattr(truth, 'load', lambda *_: table)
  return [
    '--out', str(tmp_path / 'out'), '--results', str(tmp_path / 'results'),
  ]  # fmt: skip


@functools.cache
def digits():
  return datasets.load(SMALL.data)


def leave_files(run, given, accuracy_A, rng):
  """Writes what a run leaves besides its correlation, made up."""
  archs_AxE, made_of = small_run.ARCHS_AxE, {'config': config.digest(given)}
  files.write_json(run / contents.FILE, fingerprint.of(digits()))
  files.write_npz(
    run / 'predictions.npz',
    {
      'archs_AxE': archs_AxE,
      'accuracy_A': accuracy_A,
      'half_HxA': np.stack([accuracy_A] * 2),
      'right_AxW': np.packbits(rng.random((27, 30)) < 0.5, axis=1),
      'skipped_images': np.array(0),
    },
    made_of,
  )
  files.write_npz(
    run / 'samples.npz',
    {'archs_AxE': archs_AxE, 'samples_A': rng.integers(9, size=27)},
    made_of,
  )
  if given.debiases:
    alpha_A, distance_P = rng.random(27) + 1, rng.random(27 * 26 // 2)
    density.save(
      density.Density(archs_AxE, alpha_A, distance_P),
      run / 'density.npz',
      made_of,
    )
  if given.ranking.every_epochs is not None:
    for epoch in (1, 2):
      npz_log.append(
        run / reports.LOG,
        epoch,
        {'accuracy_LxA': accuracy_A[::-1] / epoch},
        {'archs_AxE': archs_AxE[::-1]},
        made_of,
      )


@pytest.fixture
def untrained(small, monkeypatch):
  """Runs end at once, with made-up accuracies; returns the configs run."""
  monkeypatch.setattr(over_seeds, 'RESAMPLES', 20)
  seen, bootstrap = [], correlation.bootstrap
  monkeypatch.setattr(
    correlation,
    'bootstrap',
    lambda *given: bootstrap(*given[:4], 40),
  )

  def attempt(given, run, table, loaded, preemption, *, warmup_from, group):
    assert group == run.parent
    seen.append((given, *warmup_from))
    run_folder.open_run(run, given, resume=True)
    rng = np.random.default_rng(len(seen))
    noise_A = rng.normal(size=27) / 50
    hits_A = np.rint(30 * (small_run.TABLE.accuracy_A + noise_A).clip(0, 1))
    leave_files(run, given, hits_A / 30, rng)
    files.write_json(
      run / 'environment.json', environment.environment(precision='f')
    )
    found = agreement.correlate(
      small_run.SPACE, small_run.ARCHS_AxE, hits_A / 30, small_run.TABLE, rng
    )
    runs.write_result(
      run,
      'correlation.json',
      {'images': 30, 'split': 'validation', 'bn': 'batch', **found},
    )
    return found

  monkeypatch.setattr(comparison, 'attempt', attempt)
  return seen


def read(folder, name):
  return json.loads((folder / f'{name}.json').read_text())


@pytest.mark.parametrize('scale', ['cpu', 'paper'])
def test_every_row_of_every_item_is_an_experiment(scale):
  stored = store.read([Path(__file__).parents[1] / 'results'])
  for name in plan.chosen(['all'], scale):
    item = items.get(name)
    for row, of_row in plan.jobs(item, Request(scale)):
      assert len(row.names) == len(item.columns)
      assert bool(of_row) != bool(row.without)
      assert {*row.published} <= {metric.key for metric in item.metrics}
      for job in of_row:
        assert job.config.debiases == row.sampler.endswith('+debias')
        assert not job.config.debias.baseline
        assert len({part.name for part in job.parts}) == len(job.parts)
        # A default that changed would have all of them trained again.
        bare = dataclasses.replace(job, parts=())
        assert job.key not in stored or store.complete(bare, stored)


def test_runs_are_shared_between_items():
  def keys(name):
    return {
      job.key
      for _, of_row in plan.jobs(items.get(name), Request('paper'), 1)
      for job in of_row
    }

  assert keys('figure1') == keys('table3')
  assert keys('table6') == keys('figure2') < keys('table3')
  assert keys('bse') < keys('table_samplers')
  # The paper's estimator, fraction and measure are those of the configs.
  for name in ('table4', 'table5', 'table_measures', 'table_samplers'):
    assert keys(name) & keys('table3')
  assert len(keys('table_imagenet')) == 4
  # One long training and the first of the short ones.
  assert len(keys('averages') & keys('length')) == 2


def test_published_numbers_stand_in_the_rows():
  found = {
    row.names: row.published
    for row, _ in plan.jobs(items.get('table3'), Request('paper'))
  }
  assert found['Pooling', 'debiased'] == {'kendall': 0.34, 'spearman': 0.55}
  sweep = {
    row.names: row.published
    for row, _ in plan.jobs(items.get('table5'), Request('paper'))
  }
  assert sweep['NAS-Bench-Macro', 'temperature 7'] == {'kendall': 0.74}
  assert sweep['Pooling', 'temperature 7'] == {}


def test_imagenet_is_left_out_of_the_small_scale():
  assert 'table_imagenet' not in plan.chosen(['all'], 'cpu')
  assert 'table_imagenet' in plan.chosen(['all'], 'paper')
  with pytest.raises(ValueError, match='no --scale cpu: give --scale paper'):
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
  row = table4.rows(Request('cpu'))[1]
  job = jobs.job(row, 'cpu', 2, where={'cifar10': run_flags.Data('/data')})
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
  assert one['mean'] == pytest.approx(taus[1] - taus[0])
  low, high = one['over_both']
  assert low < one['mean'] < high and one['over_seeds'] is None
  assert 'n = 1' in (tmp_path / 'out' / 'table3.md').read_text()


def test_differences_of_seeds_are_averaged(untrained, small, tmp_path):
  main(['table3', *small, '--seeds', '3'])
  out = read(tmp_path / 'out', 'table3')
  uniform, debiased = (
    np.array(row['metrics']['kendall']['values']) for row in out['rows'][:2]
  )
  one = out['differences'][0]
  assert one['seeds'] == [0, 1, 2] and one['n'] == 3
  assert one['mean'] == pytest.approx((debiased - uniform).mean())


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
  (first / 'density.npz').unlink()

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
  for file in (tmp_path / 'results').glob('*.json'):
    result = json.loads(file.read_text())
    files.write_json(file, result | {'wall_s': 1800.0})
  shutil.rmtree(tmp_path / 'out')
  capsys.readouterr()
  main(['table3', '--seeds', '2', '--dry_run', *small])
  said = capsys.readouterr().out
  assert '2 of 4 are finished; 1.0 hours left' in said


def test_hours_are_those_of_the_same_space(untrained):
  def kept(wall_s, **changes):
    given = dataclasses.replace(SMALL, **changes)
    return {'config': jobs.experiment_fields(given), 'wall_s': wall_s}

  def hours(given, *results):
    row = jobs.Row(('x',), 'pooling', 'uniform')
    job = jobs.Job(row, given, 'small.py', ())
    return work.hours(job, {str(key): r for key, r in enumerate(results)})

  assert hours(SMALL) is None
  assert hours(SMALL, kept(3600.0, space='other')) is None
  # Of its own length; else by the time for an image and an architecture.
  longer = dataclasses.replace(SMALL, epochs=5)
  both = kept(3600.0), kept(7200.0, seed=1)
  assert hours(SMALL, *both) == pytest.approx(1.5)
  assert hours(longer, *both) == pytest.approx(4.5)
  wide = dataclasses.replace(SMALL, sampler=Sampler(paths=3))
  assert hours(wide, *both) == pytest.approx(4.5)
  thrifty = dataclasses.replace(wide.sampler, budget='paths')
  assert hours(dataclasses.replace(wide, sampler=thrifty), *both) == (
    pytest.approx(1.5)
  )


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
  attempt = comparison.attempt

  def failing(given, *more, **named):
    if given.debiases:
      return {'error': 'ArithmeticError: too hot'}
    return attempt(given, *more, **named)

  monkeypatch.setattr(comparison, 'attempt', failing)
  assert main(['table3', '--seeds', '1', *small]) == 1
  assert 'ArithmeticError: too hot' in capsys.readouterr().err
  out = read(tmp_path / 'out', 'table3')
  assert [row['seeds'] for row in out['rows'][:2]] == [[0], []]
  monkeypatch.setattr(comparison, 'attempt', attempt)
  assert main(['table3', '--seeds', '1', *small]) == 0


def test_a_result_of_other_values_is_none_of_it(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  results = store.read([tmp_path / 'results'])
  job = plan.jobs(items.get('table3'), Request('cpu'), 1)[0][1][0]
  assert store.complete(job, results)
  results[job.key]['config']['optimizer.momentum'] = 0.8
  assert not store.complete(job, results)
  del results[job.key]['config']['optimizer.momentum']
  assert store.complete(job, results)
  with_parts = dataclasses.replace(job, parts=(parts.DENSITIES,))
  assert not store.complete(with_parts, results)


@pytest.mark.parametrize(
  ('order', 'spearman'), [(1, 1.0), (-1, -1.0), (None, None)]
)
def test_what_is_kept_says_how_right_the_density_was(
  small, tmp_path, order, spearman
):
  (job,) = (
    job
    for row, of_seeds in plan.jobs(items.get('table3'), Request('cpu'), 1)
    for job in of_seeds
    if row.names == ('Pooling', 'debiased')
  )
  run_folder.open_run(tmp_path, job.config, resume=False)
  truth_A, facts = (
    small_run.TABLE.accuracy_A,
    {'config': config.digest(job.config)},
  )
  found = agreement.correlate(
    small_run.SPACE,
    small_run.ARCHS_AxE,
    truth_A,
    None,
    np.random.default_rng(0),
  )
  found |= {'images': 30, 'split': 'validation', 'bn': 'batch'}
  runs.write_result(tmp_path, 'correlation.json', found)
  files.write_json(tmp_path / contents.FILE, fingerprint.of(digits()))
  files.write_json(
    tmp_path / 'environment.json', environment.environment(precision='f')
  )
  files.write_npz(
    tmp_path / 'predictions.npz',
    {
      'archs_AxE': small_run.ARCHS_AxE,
      'accuracy_A': truth_A,
      'half_HxA': np.zeros((2, 27)),
      'right_AxW': np.zeros((27, 4), np.uint8),
      'skipped_images': np.array(0),
    },
    facts,
  )
  # In another order than the table's.
  files.write_npz(
    tmp_path / 'density.npz',
    {
      'archs_AxE': small_run.ARCHS_AxE[::-1],
      'alpha_A': np.exp((order or 1) * truth_A[::-1]),
    },
    facts,
  )
  if order:
    truth.dump(small_run.TABLE, tmp_path / 'table.json')
  found = store.collect(job, tmp_path, {}, 0.0)['found']
  assert found.get('density_truth') == (spearman and pytest.approx(spearman))


def test_what_is_kept_answers_later_questions(untrained, small, tmp_path):
  main(['table3', '--seeds', '1', *small])
  results = store.read([tmp_path / 'results'])
  uniform, debiased = (
    store.read_arrays(results[jobs.key(given)]) for given, _ in untrained
  )
  run = tmp_path / 'out' / 'runs' / f'small-{jobs.key(untrained[1][0])}'
  for name, file in (('right_AxW', 'predictions'), ('samples_A', 'samples')):
    np.testing.assert_array_equal(
      debiased[name], files.read_npz(run / f'{file}.npz')[name]
    )
  estimated = density.load(run / 'density.npz', small_run.ARCHS_AxE)
  np.testing.assert_allclose(debiased['alpha_A'], estimated.alpha_A, 1e-6)
  np.testing.assert_allclose(debiased['distance_P'], estimated.distance_P, 1e-3)
  p_A = debiased['probability_A'].astype(float)
  # Half of the architectures stay effective.
  assert 1 / np.square(p_A).sum() == pytest.approx(27 / 2, rel=1e-4)
  assert {*uniform} == {'archs_AxE', 'right_AxW', 'samples_A'}
  # They are asked for where they are missing.
  file = results[jobs.key(untrained[0][0])]['npz']
  file.unlink()
  with pytest.raises(ValueError, match=r'arrays of run .* makes both anew'):
    store.read_arrays(
      store.read([tmp_path / 'results'])[jobs.key(untrained[0][0])]
    )


@pytest.mark.parametrize(
  'counts, said',
  [
    ([1], 'one seed'),
    ([12], 'mean of 12 seeds'),
    ([1, 12], 'mean of 1 to 12 seeds'),
  ],
)
def test_a_picture_says_of_how_many_seeds_it_is(counts, said):
  assert length.mean_over(counts) == said


def test_points_over_the_length_of_training(untrained, small, tmp_path):
  main(['length', '--seeds', '2', *small])
  out = read(tmp_path / 'out', 'length')
  rows = plan.jobs(items.get('length'), Request('cpu'), 2)
  finished = Finished(
    [job for row, of_row in rows if row.names[0] == 'digits' for job in of_row],
    store.read([tmp_path / 'results']),
    {},
    tmp_path,
  )
  ends = curves.points(finished, along=False)
  assert [(p.epochs, p.names[-1]) for p in ends] == [
    (epochs, training)
    for epochs in (100, 400, 1600)
    for training in ('uniform', 'debiased, 0.7', 'debiased, 0.5')
  ]
  truth_A = small_run.TABLE.accuracy_A
  for point, row in zip(ends, out['curves'][:9], strict=True):
    taus = [correlation.kendall(point.scores[s], truth_A) for s in range(2)]
    assert row['tau']['mean'] == pytest.approx(np.mean(taus))
    assert row['tau']['n'] == 2 and row['names'] == [*point.names]
    mean_A = np.mean([*point.scores.values()], axis=0)
    assert row['of_mean'] == correlation.kendall(mean_A, truth_A)
    follows = [
      correlation.spearman(point.scores[s], point.alphas[s]) for s in range(2)
    ]
    assert row['follows']['mean'] == pytest.approx(np.mean(follows))
  uniform, debiased = out['curves'][:2]
  assert uniform['difference'] is None
  assert debiased['difference']['mean'] == pytest.approx(
    debiased['tau']['mean'] - uniform['tau']['mean']
  )
  text = (tmp_path / 'out' / 'length.md').read_text()
  assert 'length-digits-tau.png' in text and '| 1,600 |' in text
  assert (tmp_path / 'out' / 'length-digits-tau.png').exists()
  # Pooling has points along its runs.
  assert [(row['names'][0], row['epochs']) for row in out['curves'][9:]] == [
    ('Pooling', epoch) for _ in range(3) for epoch in (1, 2)
  ]
  assert (tmp_path / 'out' / 'length-pooling-tau.png').exists()
  # Along a run points are in the order of its ranking, not in that of its log.
  along = curves.points(finished, along=True)
  assert [p.epochs for p in along] == [1, 2] * 9
  for end, first, second in zip(ends, along[::2], along[1::2], strict=True):
    for seed, hits_A in end.scores.items():
      np.testing.assert_allclose(first.scores[seed] * 30, hits_A, 1e-6)
      np.testing.assert_allclose(second.scores[seed] * 60, hits_A, 1e-6)


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


THEIRS = Item(
  title='Somebody else\'s table',
  columns=('training',),
  rows=lambda request: [
    jobs.Row(('uniform',), 'pooling', 'uniform', published={'half': 0.25})
  ],
  metrics=(
    Metric(
      'half', 'half of tau', '{:.3f}', 'Half: tau / 2.',
      read=lambda result: result['found']['kendall'] / 2,
    ),
  ),
  extras=lambda finished: {'lines': [f'Of {len(finished.jobs)} runs.', '']},
)  # fmt: skip


@pytest.fixture
def theirs():
  """The name of an item that is not of the package."""
  items.ITEMS.add('theirs', f'{__name__}:THEIRS')
  yield 'theirs'
  items.ITEMS.remove('theirs')


def test_an_item_can_come_from_outside(untrained, small, tmp_path, theirs):
  assert main([theirs, *small]) == 0
  text = (tmp_path / 'out' / 'theirs.md').read_text()
  ours = read(tmp_path / 'out', 'theirs')['rows'][0]['metrics']['half']['mean']
  assert "# Somebody else's table" in text and 'Of 1 runs.' in text
  assert f'| uniform | 1 | {ours:.3f} | 0.250 |' in text
  assert 'Half: tau / 2.' in text and len(untrained) == 1


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
    (['table_imagenet'], 'no --scale cpu: give --scale paper'),
    (['table33'], 'Did you mean table3?'),
    (['bse'], 'images of cifar10: give --data.dir DIR'),
    (['table_nb201', '--data.dir', 'x'], '--truth.nas_bench_201 FILE'),
    (['table3', '--data.workers', '2'], 'none of these items reads'),
    (['table3', '--data.on_error', 'skip'], 'none of these items reads'),
    (
      ['table_imagenet', '--scale', 'paper', '--data.workers', '9999'],
      'data.workers is 9999; it must be in [0, 4096]',
    ),
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


def test_results_of_other_images_are_not_beside_ours(
  untrained, small, tmp_path, capsys
):
  assert main(['table4', *small, '--seeds', '1']) == 0
  (file, *_) = (tmp_path / 'results').glob('*.json')
  result = json.loads(file.read_text())
  result['images']['train']['labels'] = 'others'
  for folder in (tmp_path / 'results', tmp_path / 'out' / 'results'):
    (folder / file.name).write_text(json.dumps(result))
  done = len(untrained)
  assert main(['table4', *small, '--seeds', '2']) == 1
  said = capsys.readouterr().err
  assert f'{file.name} was made of other images of digits than these' in said
  assert len(untrained) == done


def test_a_file_that_is_no_result_is_named(tmp_path):
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(ValueError, match=r'a\.json holds no result'):
    store.read([tmp_path])


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('key', [1]), ('config', None), ('wall_s', '1'), ('found', [1]),
    ('hits', 'text'), ('hits', [0.5]), ('parts', 3), ('environment', 'text'),
  ],
)  # fmt: skip
def test_a_result_whose_values_mean_nothing_is_named(tmp_path, key, value):
  whole = min(
    (Path(__file__).parents[1] / 'results').glob('*.json')
  ).read_text()
  (tmp_path / 'a.json').write_text(whole)
  assert len(store.read([tmp_path])) == 1
  (tmp_path / 'a.json').write_text(json.dumps(json.loads(whole) | {key: value}))
  with pytest.raises(ValueError, match=r'a\.json holds no result'):
    store.read([tmp_path])


def test_epochs_along_the_way():
  assert parts.epochs_measured(300) == (*table6.PUBLISHED,)
  assert parts.epochs_measured(3) == (0, 1, 2, 3)
  assert parts.epochs_measured(20) == (0, 3, 6, 9, 12, 15, 18, 20)


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
  job = plan.jobs(items.get('table6'), Request('cpu'), 1)[0][1][0]
  job = dataclasses.replace(job, config=experiment.config)
  parts.densities(job.config, run, Preemption())
  assert len(found) == len(sets) > 1
  for name, alpha_A in zip(sets, found, strict=True):
    alone = densities.estimate(
      parts.changed(experiment.config, {'density.tensors': name}).density,
      densities.snapshot(experiment, state),
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
  short = Search(population=3, generations=1, parents=2)
  monkeypatch.setattr(imagenet, 'SEARCH', short)
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


def test_the_gate_is_right_where_the_truth_says_so(untrained, small, tmp_path):
  main(['table3', '--seeds', '2', *small])
  folder = tmp_path / 'out' / 'results'
  for number, result in enumerate(store.read([folder]).values()):
    if number % 2:
      # Without noise of images a sum predicts less.
      kept = store.read_arrays(result)
      ones_AxI = np.unpackbits(kept['right_AxW'], axis=1)[:, :1] * [[1] * 30]
      bits = {'right_AxW': np.packbits(ones_AxI, axis=1)}
      files.write_npz(result['npz'], kept | bits)
  main(['gate', *small])
  found = read(tmp_path / 'out', 'gate')['gate']
  assert sum(row['n'] for row in found) == 4
  truth_A, choices = small_run.TABLE.accuracy_A, []
  for result in store.read([folder]).values():
    kept = store.read_arrays(result)
    right_AxI = np.unpackbits(kept['right_AxW'], axis=1, count=30)
    halves = [right_AxI[:, h::2].mean(1) for h in (0, 1)]
    score_A = np.array(result['hits']) / 30
    features = small_run.SPACE.one_hot(small_run.ARCHS_AxE)

    def fit(values_A, x=features):
      # Ridge by least squares with rows for the squares of weights.
      mean = values_A.mean()
      rows = np.vstack([x, np.sqrt(0.1) * np.eye(x.shape[1])])
      aim = np.r_[values_A - mean, np.zeros(x.shape[1])]
      return mean + x @ np.linalg.lstsq(rows, aim, rcond=None)[0]

    errors = [
      np.mean([(of(a) - b) ** 2 for a, b in (halves, halves[::-1])])
      for of in (fit, lambda a: a)
    ]
    taken = errors[0] < errors[1]
    raw, summed = (
      correlation.kendall(a, truth_A) for a in (score_A, fit(score_A))
    )
    choices.append((taken, taken == (summed > raw)))
  assert sum(row['taken'] for row in found) == sum(t for t, _ in choices)
  right = sum(r for _, r in choices)
  assert sum(row['right'] for row in found) == right
  # The bits are made up: sums over ops are better than noise.
  assert sum(t for t, _ in choices) > 0 and 0 < right < 16
  text = (tmp_path / 'out' / 'gate.md').read_text()
  assert f'The gate is right in {right} of 4 runs.' in text
  assert '| n |' not in text.partition('The gate')[0]


def test_rankings_are_made_better_beyond_the_paper(untrained, small, tmp_path):
  main(['beyond', '--seeds', '2', *small])
  out = read(tmp_path / 'out', 'beyond')
  assert {tuple(row['names']) for row in out['beyond']} == {
    tuple(row['names']) for row in out['rows'] if not row['without']
  }
  truth_A, results = (
    small_run.TABLE.accuracy_A,
    store.read([tmp_path / 'results']),
  )
  row = next(r for r in out['beyond'] if r['names'][1] == 'eq. 8')
  debiased = [
    results[run['key']] for run in out['runs'] if run['names'] == row['names']
  ]
  score_SxA = [np.array(result['hits']) / 30 for result in debiased]
  taus = [correlation.kendall(score_A, truth_A) for score_A in score_SxA]
  assert row['taus']['raw']['mean'] == pytest.approx(np.mean(taus))
  assert row['taus']['raw']['n'] == 2
  assert row['of_mean'][0] == correlation.kendall(
    np.mean(score_SxA, axis=0), truth_A
  )
  held_out = []
  for result, score_A in zip(debiased, score_SxA, strict=True):
    order_A = np.argsort(-score_A, kind='stable')
    trained_K = order_A[((np.arange(20) + 0.5) * 27 / 20).astype(int)]
    given = calibration.known(
      small_run.SPACE, small_run.ARCHS_AxE, score_A,
      store.read_arrays(result)['alpha_A'],
    )  # fmt: skip
    mean_A = calibration.posterior(given, trained_K, truth_A[trained_K]).mean_A
    rest_A = np.setdiff1d(np.arange(27), trained_K)
    held_out.append(correlation.kendall(mean_A[rest_A], truth_A[rest_A]))
  assert row['taus']['with 20']['mean'] == pytest.approx(np.mean(held_out))
  text = (tmp_path / 'out' / 'beyond.md').read_text()
  assert 'Pooling, balanced: no run, all architectures' in text


@pytest.mark.slow
def test_averages_are_held_to_one_long_training(untrained, small, tmp_path):
  main(['averages', '--seeds', '2', *small])
  out = read(tmp_path / 'out', 'averages')
  found = {row['name']: row for row in out['averages']}
  assert len(found) == 8
  results = store.read([tmp_path / 'results'])
  hits = {}
  for run in out['runs']:
    hits.setdefault(run['names'][0], []).append(
      np.array(results[run['key']]['hits'])
    )
  truth_A = small_run.TABLE.accuracy_A

  def taus(scores_SxA):
    return np.array([correlation.kendall(a, truth_A) for a in scores_SxA])

  long = taus(hits['one of 400'])
  names = ['one of 100', *(f'one of 100, member {m}' for m in (1, 2, 3))]
  short = taus(np.mean([hits[name] for name in names], axis=0))
  row = found['mean score of 4 of 100']
  assert row['tau']['mean'] == pytest.approx(short.mean())
  assert row['gain']['mean'] == pytest.approx((short - long).mean())
  assert row['gain']['n'] == 2 and found['one of 400']['gain'] is None
  # Along the way of the made-up runs: the end, and half of it.
  along = taus([1.5 * a for a in hits['one of 400']])
  row = found['mean of its last 4 scores, every 40']
  assert row['tau']['mean'] == pytest.approx(along.mean())
  members = [given for given, *_ in untrained if given.data.split_seed]
  assert {given.data.split_seed for given in members} == {1}
