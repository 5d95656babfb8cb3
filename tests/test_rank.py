import dataclasses
import json

import numpy as np
import pytest

from jaxnas import data, rank, spaces, train, truth
from jaxnas.experiment import datasets, ranking, reports
from jaxnas.report.console import ranking as console
from jaxnas.runtime import errors, files, seals
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.runtime.rng import generator
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.truth import agreement, correlation
from support import small_run
from support.runs import final_state, interrupted, metrics, result_of, same_run
from support.small_run import ARCHS_AxE as SMALL_AxE

SPACE = spaces.get('digits')
ARCHS_AxE = SPACE.enumerate()
TABLE = truth.from_seeds(
  SPACE, np.random.default_rng(0).uniform(0.5, 1, (81, 3))
)


def correlate(accuracy_A, table=TABLE, archs_AxE=ARCHS_AxE):
  return agreement.correlate(
    SPACE, archs_AxE, accuracy_A, table, np.random.default_rng(1)
  )


def test_a_perfect_ranking():
  out = correlate(TABLE.accuracy_A)
  assert [out['kendall'], out['spearman']] == pytest.approx([1, 1])
  assert out['best_arch_true_accuracy'] == out['best_true_accuracy']
  assert SPACE.format(ARCHS_AxE[TABLE.accuracy_A.argmax()]) == out['best_arch']
  assert json.loads(json.dumps(out, allow_nan=False))['n'] == 81


def test_equal_strings_are_counted_once_in_canonical():
  out = correlate(TABLE.accuracy_A)
  # '0x' in the second position of a stage is the only freedom: none in digits.
  assert 'canonical' not in out
  macro = spaces.get('nas_bench_macro')
  archs_AxE = macro.enumerate()[1::5]
  table = truth.from_seeds(macro, np.linspace(0, 1, 6561)[:, None])
  out = agreement.correlate(
    macro, archs_AxE, np.arange(len(archs_AxE)) / 1e3, table,
    np.random.default_rng(0),
  )  # fmt: skip
  forms = {tuple(form_E) for form_E in macro.canonical(archs_AxE).tolist()}
  # Of some networks a string that is not the canonical one was drawn.
  assert len(forms) > (macro.canonical(archs_AxE) == archs_AxE).all(1).sum()
  assert out['canonical'] == {
    'n': len(forms),
    'kendall': pytest.approx(1),
    'spearman': pytest.approx(1),
  }


def test_without_a_table_only_the_choice_is_known():
  accuracy_A = np.linspace(0, 1, 81)
  assert correlate(accuracy_A, table=None) == {
    'n': 81,
    'best_arch': '2222',
    'best_arch_accuracy': 1.0,
    'tied': 1,
  }


def test_the_table_shows_results_side_by_side(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '120')
  out = correlate(TABLE.accuracy_A)
  constant = correlate(np.full(81, 0.5))
  console.show({'debiased': out, 'undebiased': constant})
  text = capsys.readouterr().out
  assert '1.000 [1.00, 1.00]' in text
  for word in ('undebiased', 'params alone', 'layers alone', '81'):
    assert word in text


@pytest.mark.parametrize('columns', [40, 60, 120])
def test_a_narrow_terminal_loses_nothing(capsys, monkeypatch, columns):
  monkeypatch.setenv('COLUMNS', str(columns))
  out = correlate(TABLE.accuracy_A)
  console.show({'debiased': out, 'undebiased': correlate(np.full(81, 0.5))})
  text = capsys.readouterr().out
  assert '\u2026' not in text
  assert max(map(len, text.splitlines())) <= columns
  said = ' '.join(text.split())
  for word in (
    '1.000 [1.00, 1.00]',
    'Kendall tau [95%]',
    'chosen',
    out['best_arch'],
    'params alone',
    'The interval is over',
  ):
    assert word in said  # fmt: skip
  # Wide ones have a line for each.
  lists = columns < 90
  assert any('Kendall tau' in line and 'Spearman' in line
             for line in text.splitlines()) != lists  # fmt: skip


# The command, on a run of a space of 27 architectures.


def call(run, workdir, *more):
  assert rank.main(
    ['--run', str(run), '--workdir', str(workdir), *more]
  ) == 0  # fmt: skip
  result = result_of(workdir / 'correlation.json')
  return result, files.read_npz(workdir / 'predictions.npz')


@pytest.mark.usefixtures('small_space')
def test_ranked_again_as_it_was_is_the_same(small, tmp_path, capsys):
  result, predictions = call(small, tmp_path)
  before = result_of(small / 'correlation.json')
  # What training took is of the run.
  assert {key: before[key] for key in result} == result
  assert result['split'] == 'validation' and result['images'] == 30
  assert result['bn'] == 'batch' and 'calibration_images' not in result
  for key, values in files.read_npz(small / 'predictions.npz').items():
    if key != seals.FACTS:
      np.testing.assert_array_equal(predictions[key], values)
  environment = json.loads((tmp_path / 'environment.json').read_text())
  assert (environment['run'], environment['step']) == (str(small), 40)
  assert 'ranking of 27 architectures' in capsys.readouterr().out


@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize(
  ('fields', 'metadata'),
  [
    ({'split': 'test', 'images': 20}, {'split': 'test', 'images': 20}),
    ({'images': 40}, {'images': 40, 'bn': 'batch'}),
    pytest.param({'bn': 'running'}, {'bn': 'running'}, marks=pytest.mark.slow),
    ({'bn': 'recalibrate'}, {'bn': 'recalibrate', 'calibration_images': 500}),
    ({'archs': 6}, {'n': 6}),
  ],
  ids=str,
)
def test_ranked_otherwise(small, tmp_path, fields, metadata):
  flags = [
    word for name, v in fields.items() for word in (f'--ranking.{name}', str(v))
  ]
  result, found = call(small, tmp_path, *flags)
  assert result.items() >= metadata.items()
  experiment, state = small_run.loaded(small, **fields)
  expected_A = ranking.accuracies(
    experiment, state, experiment.ranking_archs_AxE, label=None
  )
  np.testing.assert_array_equal(found['accuracy_A'], expected_A)
  truth_A = small_run.TABLE.accuracy(found['archs_AxE'])
  assert result['kendall'] == correlation.kendall(expected_A, truth_A)
  before_A = files.read_npz(small / 'predictions.npz')['accuracy_A']
  if 'archs' in fields:
    chosen_A = small_run.SPACE.index(found['archs_AxE'])
    np.testing.assert_array_equal(found['accuracy_A'], before_A[chosen_A])
  else:
    assert (found['accuracy_A'] != before_A).any()


@pytest.mark.usefixtures('small_space')
def test_images_of_another_split_are_of_it(small):
  experiment, _ = small_run.loaded(small, split='test', images=None)
  loaded = datasets.load(experiment.config.data)
  assert len(experiment.held_out.ranking) == len(loaded.y_test) != 500
  order = generator(0, 'ranking').permutation(len(loaded.y_test))
  split = data.split(loaded, 'test', order, np.dtype(np.float32))
  for part in (split, experiment.held_out.ranking):
    x, y_B = part.batch(np.arange(7))
    np.testing.assert_array_equal(y_B, loaded.y_test[order[:7]])
  np.testing.assert_array_equal(x, split.batch(np.arange(7))[0])


@pytest.mark.usefixtures('small_space')
def test_repeated_otherwise_all_files_are_of_the_last(small, tmp_path):
  table = truth.from_seeds(small_run.SPACE, 1 - small_run.TABLE.seeds_AxS)
  truth.dump(table, tmp_path / 'other.json')
  workdir = tmp_path / 'rank'
  first, one = call(small, workdir)
  second, two = call(
    small, workdir, '--ranking.images', '20', '--table',
    str(tmp_path / 'other.json'),
  )  # fmt: skip
  assert (first['images'], second['images']) == (30, 20)
  assert (one['accuracy_A'] != two['accuracy_A']).any()
  assert second['kendall'] == correlation.kendall(
    two['accuracy_A'], table.accuracy(SMALL_AxE)
  )
  assert {file.name for file in workdir.iterdir()} == {
    'correlation.json', 'environment.json', 'predictions.npz', 'rank.json',
  }  # fmt: skip
  again, three = call(small, workdir)
  assert again == first
  np.testing.assert_array_equal(one['accuracy_A'], three['accuracy_A'])


@pytest.mark.usefixtures('small_space')
def test_a_signal_stops_and_the_same_command_goes_on(
  small, tmp_path, monkeypatch, capsys
):
  # What the run itself has ranked is taken over at once.
  polls, other = [], ('--ranking.split', 'test')

  def check(self):
    if len(polls) == 50:
      raise Stopped
    polls.append(1)

  with monkeypatch.context() as patch:
    patch.setattr(Preemption, 'check', check)
    with pytest.raises(SystemExit) as ended:
      call(small, tmp_path, *other)
  assert ended.value.code == errors.STOPPED
  assert 'the same command goes on' in capsys.readouterr().err
  assert {file.name for file in tmp_path.iterdir()} == {
    'predictions.part.npz', 'rank.json',
  }  # fmt: skip
  with monkeypatch.context() as patch:
    patch.setattr(Preemption, 'check', lambda self: polls.append(1))
    _, found = call(small, tmp_path, *other)
  assert len(polls) == 81
  experiment, state = small_run.loaded(small, split='test')
  before_A = ranking.accuracies(
    experiment, state, experiment.ranking_archs_AxE, label=None
  )
  np.testing.assert_array_equal(found['accuracy_A'], before_A)


BAD = [
  (['--ranking.images', '501'], 'there are 500'),
  (['--ranking.split', 'test', '--ranking.images', '798'], 'there are 797'),
  (['--ranking.archs', '28'], 'there are 27'),
  (['--ranking.calibration_batches', '3'], 'calibration_batches is of'),
  (['--ranking.batch_size', '1'], 'batch_size is 1'),
  (['--table', 'missing.json'], 'does not exist'),
]


@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_ends_before_any_work(small, tmp_path, capsys, more, says):
  workdir = tmp_path / 'not there'
  with pytest.raises(SystemExit) as ended:
    call(small, workdir, *more)
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert not workdir.exists()


# Reports while a run trains.


def reported_rows(run):
  return [row for row in metrics(run) if 'kendall' in row]


def test_a_table_of_some_serves_where_they_are_ranked(small, tmp_path, capsys):
  with small_run.registered():
    experiment, _ = small_run.loaded(small, archs=9)
    ranked_AxE = experiment.ranking_archs_AxE
    seeds_AxS = small_run.TABLE.accuracy(ranked_AxE)[:, None]
    some = truth.Table(small_run.SPACE, ranked_AxE, 100 * seeds_AxS)
    truth.dump(some, tmp_path / 'some.json')
    some = truth.load(small_run.SPACE, tmp_path / 'some.json')
    np.testing.assert_array_equal(
      reports.reported(experiment, some), ranked_AxE
    )
    flags = ['--run', str(small), '--workdir', str(tmp_path / 'rank')]
    flags += ['--table', str(tmp_path / 'some.json')]
    assert rank.main([*flags, '--ranking.archs', '9']) == 0
    assert 'some.json: 9 of 27 architectures, in percent' in (
      capsys.readouterr().out
    )
    found = files.read_json(tmp_path / 'rank' / 'correlation.json', {})
    assert found['best_true_accuracy'] == pytest.approx(seeds_AxS.max())
    with pytest.raises(SystemExit) as ended:
      rank.main([*flags, '--workdir', str(tmp_path / 'all')])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert (
      'lacks 18 of the 27 that are ranked' in said and said.count('\n') == 1
    )
    assert not (tmp_path / 'all').exists()


@pytest.mark.usefixtures('small_space')
def test_reports_are_of_the_state_at_their_step(small):
  experiment, _ = small_run.loaded(small)
  archs_AxE = reports.reported(experiment, small_run.TABLE)
  assert len(np.unique(archs_AxE, axis=0)) == 9
  expected = []
  for epoch in (1, 2):
    with Checkpoints(small / 'checkpoints') as checkpoints:
      state, _ = checkpoints.restore(20 * epoch, experiment.init_state())
    found_A = ranking.accuracies(experiment, state, archs_AxE, label=None)
    truth_A = small_run.TABLE.accuracy(archs_AxE)
    rng = generator(0, 'report intervals', epoch)
    low, high = correlation.bootstrap(
      correlation.kendall, found_A, truth_A, rng, 200
    )
    assert low < high
    expected.append(
      {
        'step': 20 * epoch,
        'epoch': float(epoch),
        'mean_accuracy': found_A.mean(),
        'kendall': correlation.kendall(found_A, truth_A),
        'kendall_low': low,
        'kendall_high': high,
        'spearman': correlation.spearman(found_A, truth_A),
      }
    )
  assert reported_rows(small) == expected
  assert expected[0]['kendall'] != expected[1]['kendall']
  # The architectures at the end are among those of the ranking.
  end = files.read_npz(small / 'predictions.npz')['accuracy_A']
  np.testing.assert_array_equal(found_A, end[small_run.SPACE.index(archs_AxE)])


@pytest.mark.usefixtures('small_space')
def test_reports_are_due_every_so_many_epochs_and_at_the_end(
  small, monkeypatch, tmp_path
):
  experiment, state = small_run.loaded(small)
  given = dataclasses.replace(
    experiment.config,
    warmup_epochs=2,
    epochs=5,
    ranking=dataclasses.replace(experiment.config.ranking, every_epochs=3),
  )
  experiment, asked = dataclasses.replace(experiment, config=given), []

  def accuracies(experiment, state, archs_AxE, **options):
    asked.append(archs_AxE)
    return np.arange(9.0) + len(asked)

  monkeypatch.setattr(ranking, 'accuracies', accuracies)
  rows = {
    epoch: reports.report(experiment, state, epoch, small_run.TABLE, tmp_path)
    for epoch in range(8)
  }
  assert [epoch for epoch, row in rows.items() if row] == [3, 6, 7]
  assert all((one == asked[0]).all() for one in asked)
  log = files.read_npz(tmp_path / 'ranking_log.npz')
  assert log['epoch_L'].tolist() == [3, 6, 7]
  np.testing.assert_array_equal(log['archs_AxE'], asked[0])
  np.testing.assert_array_equal(
    log['accuracy_LxA'], np.add.outer([1, 2, 3], np.arange(9.0))
  )
  monkeypatch.setattr(ranking, 'accuracies', lambda *_, **__: np.ones(9))
  constant = {'epoch': 6.0, 'mean_accuracy': 1.0}
  for table in (None, small_run.TABLE):
    assert reports.report(experiment, state, 6, table, tmp_path) == constant
  # Rows of later epochs were of a run that has been cut.
  log = files.read_npz(tmp_path / 'ranking_log.npz')
  assert log['epoch_L'].tolist() == [3, 6]
  assert (log['accuracy_LxA'][1] == 1).all()


@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize(
  ('steps', 'save_every'),
  [
    (20, '5'),
    pytest.param(27, '5', marks=pytest.mark.slow),
    pytest.param(20, '1', marks=pytest.mark.slow),
    pytest.param(27, '1', marks=pytest.mark.slow),
    pytest.param(40, '1', marks=pytest.mark.slow),
    pytest.param(40, '5', marks=pytest.mark.slow),
  ],
)
def test_a_run_cut_short_reports_once(small, tmp_path, steps, save_every):
  """Between two epochs, in the second, and at the end of it."""
  words, run = small_run.flags_in(tmp_path)
  words += ['--checkpoint.every_epochs', save_every]
  # The same run, but that nothing is saved after the first epoch.
  words += ['--warmup_epochs', '0', '--epochs', '2']
  with interrupted(steps), pytest.raises(SystemExit) as ended:
    train.main(words)
  assert ended.value.code == errors.STOPPED
  assert int(final_state(run).step) == steps
  train.main(['--workdir', str(run), '--resume'])
  assert [row['step'] for row in reported_rows(run)] == [20, 40]
  same_run(small, run)


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_without_the_truth_a_run_reports_accuracies(small, tmp_path):
  words, run = small_run.flags_in(tmp_path)
  at = words.index('--table')
  assert train.main([*words[:at], *words[at + 2 :]]) == 0
  means = [row['mean_accuracy'] for row in reported_rows(small)]
  assert [row for row in metrics(run) if 'mean_accuracy' in row] == [
    {'step': 20 * epoch, 'epoch': epoch, 'mean_accuracy': mean}
    for epoch, mean in enumerate(means, 1)
  ]
  logs = [files.read_npz(one / 'ranking_log.npz') for one in (small, run)]
  for name, value in logs[0].items():
    np.testing.assert_array_equal(value, logs[1][name])
