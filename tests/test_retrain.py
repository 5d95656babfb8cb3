import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxnas import config, retrain, spaces, truth
from jaxnas.config import run_folder
from jaxnas.experiment import build, outcomes, retraining
from jaxnas.experiment.stand_alone import make_trainer
from jaxnas.runtime import files
from jaxnas.runtime.preemption import Preemption
from jaxnas.truth import correlation
from support import runs

SPACE = spaces.get('digits')

TINY = """
from jaxnas.config import *
def get_config():
  return Config(
    data=Data(batch_size=250),
    optimizer=Optimizer(peak_lr=0.05),
    retrain=Retrain(epochs=1, seeds=2),
  )
"""


@pytest.fixture
def flags(tmp_path):
  (tmp_path / 'tiny.py').write_text(TINY)
  run = tmp_path / 'run'
  return ['--config', str(tmp_path / 'tiny.py'), '--workdir', str(run)], run


def fake_trainer(calls):
  def trainer(arch_E, seed):
    calls.append((SPACE.format(arch_E), seed))
    return (float(arch_E.sum()) + 0.1 * seed) / 10

  return trainer


def test_every_architecture_and_seed_once_and_none_again(tmp_path):
  calls: list = []
  results = tmp_path / 'results.jsonl'
  archs_AxE = SPACE.enumerate()[:5]
  first = retraining.train_all(
    SPACE, archs_AxE, fake_trainer(calls), range(3), results, 'run'
  )
  assert len(calls) == len(set(calls)) == 15
  again = retraining.train_all(
    SPACE, SPACE.enumerate()[:6], fake_trainer(calls), range(3), results, 'run'
  )
  assert len(calls) == len(set(calls)) == 18
  np.testing.assert_array_equal(again[:5], first)
  assert first[4, 2] == (archs_AxE[4].sum() + 0.2) / 10


def test_a_row_cut_short_is_trained_again(tmp_path):
  calls: list = []
  results = tmp_path / 'results.jsonl'
  archs_AxE = SPACE.enumerate()[:2]
  whole = retraining.train_all(
    SPACE, archs_AxE, fake_trainer(calls), range(2), results, 'run'
  )
  results.write_text(results.read_text()[:-9])
  again = retraining.train_all(
    SPACE, archs_AxE, fake_trainer(calls), range(2), results, 'run'
  )
  np.testing.assert_array_equal(again, whole)
  assert len(calls) == 5
  assert len(outcomes.read_results(results, 'run')) == 4


def test_agreement_of_disjoint_sets_of_seeds():
  rng = np.random.default_rng(0)
  accuracy_AxS = rng.random((20, 4))
  taus = [
    correlation.kendall(
      accuracy_AxS[:, [a, b]].mean(1), accuracy_AxS[:, [c, d]].mean(1)
    )
    for a, b, c, d in [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)]
  ]
  assert outcomes.agreement(accuracy_AxS, 2) == pytest.approx(np.mean(taus))
  assert outcomes.agreement(np.repeat(accuracy_AxS[:, :1], 2, 1), 1) == 1
  assert outcomes.agreement(accuracy_AxS[:, :1], 1) is None


def test_all_writes_a_table_that_loads(flags, monkeypatch, capsys):
  words, run = flags
  monkeypatch.setattr(
    retraining, 'make_trainer', lambda *_, **__: fake_trainer([])
  )
  assert retrain.main([*words, '--all']) == 0
  table = truth.load(SPACE, run / 'table.json')
  archs_AxE = SPACE.enumerate()
  np.testing.assert_allclose(
    table.accuracy(archs_AxE), (archs_AxE.sum(1) + 0.05) / 10
  )
  metadata = json.loads((run / 'table.json').read_text())
  assert {'command', 'versions', 'agreement_of_two_seeds'} <= {*metadata}
  assert '81 architectures' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('more', 'says'),
  [
    ([], 'one of --arch ARCH, --all'),
    (['--arch', '0120', '--all'], 'one of --arch ARCH, --all'),
    (['--arch', '012'], '3 digits'),
    (['--arch', '0123'], 'position 3'),
  ],
)
def test_bad_input_is_one_line(flags, capsys, more, says):
  words, run = flags
  with pytest.raises(SystemExit) as ended:
    retrain.main([*words, *more])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err and err.count('\n') == 1
  assert not run.exists()


@pytest.mark.slow
def test_training_alone_learns_and_repeats_itself(tmp_path):
  (tmp_path / 'tiny.py').write_text(TINY)
  given = config.load(str(tmp_path / 'tiny.py'))
  given = dataclasses.replace(
    given,
    data=config.Data(batch_size=50),
    retrain=config.Retrain(epochs=8, seeds=1),
  )
  trainer = make_trainer(build.stand_alone(given, None), None, Preemption())
  deep, shallow = SPACE.parse('1111'), SPACE.parse('0000')
  accuracy = trainer(deep, 0)
  assert accuracy > 0.5 > 0.1
  assert trainer(deep, 0) == accuracy
  assert trainer(deep, 1) != accuracy
  assert trainer(shallow, 0) < accuracy


def test_the_shipped_table_of_digits_says_how_it_was_made():
  table = truth.load(SPACE)
  assert table.seeds_AxS.shape == (81, 12)
  assert (table.accuracy_A > 0.3).all() and np.ptp(table.accuracy_A) > 0.1
  file = files.Path(truth.__file__).parent / 'digits.json'
  metadata = json.loads(file.read_text())
  for size, name in ((1, 'two_seeds'), (6, 'halves')):
    assert metadata[f'agreement_of_{name}'] == pytest.approx(
      outcomes.agreement(table.seeds_AxS, size)
    )
  assert metadata['agreement_of_halves'] >= 0.7
  assert 'jaxnas.retrain --config digits_truth.py --all' in metadata['command']


def test_equal_networks_are_trained_once():
  macro = spaces.get('nas_bench_macro')
  archs_DxE, form_A = outcomes.networks(macro, macro.enumerate())
  assert len(archs_DxE) == 3969
  np.testing.assert_array_equal(
    archs_DxE[form_A], macro.canonical(macro.enumerate())
  )
  archs_DxE, form_A = outcomes.networks(macro, macro.parse('01020010')[None])
  np.testing.assert_array_equal(archs_DxE[form_A], [macro.parse('01020010')])


# The best of a run of a space of 27 architectures.


@pytest.fixture
def ranked(small, tmp_path, small_space):
  """A run that has ranked, to be written to."""
  run = tmp_path / 'ranked'
  run.mkdir()
  for name in ('config.json', 'correlation.json', 'table.json'):
    shutil.copy(small / name, run / name)
  return run


def trained_alone(monkeypatch):
  """Architectures that were trained, as the trainer is asked to."""
  asked: list = []

  def make_trainer(built, workdir, preemption, **_):
    def trainer(arch_E, seed):
      asked.append((built.space.format(arch_E), seed))
      assert built.net.arch == tuple(arch_E)
      return 0.5

    return trainer

  monkeypatch.setattr(retraining, 'make_trainer', make_trainer)
  return asked


def test_the_best_of_a_run_is_trained_alone(ranked, monkeypatch):
  asked = trained_alone(monkeypatch)
  first = json.loads((ranked / 'correlation.json').read_text())['best_arch']
  words = ['--run', str(ranked), '--arch', 'best', '--retrain.seeds', '2']
  assert retrain.main(words) == 0
  result = json.loads((ranked / 'retrain' / 'result.json').read_text())
  assert result['arch'] == first and result['space'] == 'small'
  assert result['seeds'] == [0.5, 0.5]
  given = run_folder.read_config(ranked / 'retrain')
  assert given.data == run_folder.read_config(ranked).data
  assert given.retrain.seeds == 2
  # A search comes before the ranking.
  other = '000' if first != '000' else '111'
  (ranked / 'search').mkdir()
  runs.write_result(ranked, 'search/best.json', {'arch': other})
  again = [*words, '--workdir', str(ranked / 'again')]
  assert retrain.main(again) == 0
  assert asked == [(first, 0), (first, 1), (other, 0), (other, 1)]


def test_the_best_is_resumed_as_what_it_was(ranked, monkeypatch, capsys):
  asked = trained_alone(monkeypatch)
  words = ['--run', str(ranked), '--arch', 'best', '--retrain.seeds', '1']
  retrain.main(words)
  with pytest.raises(SystemExit) as ended:
    retrain.main(words)
  assert ended.value.code == 2
  assert 'holds a run already' in capsys.readouterr().err
  retrain.main([*words, '--resume'])
  retrain.main(['--workdir', str(ranked / 'retrain'), '--resume'])
  assert len(asked) == 1
  (ranked / 'search').mkdir()
  other = '000' if asked[0][0] != '000' else '111'
  runs.write_result(ranked, 'search/best.json', {'arch': other})
  with pytest.raises(SystemExit) as ended:
    retrain.main([*words, '--resume'])
  assert ended.value.code == 2
  assert f'trains {asked[0][0]}, not {other}' in capsys.readouterr().err


def test_where_nothing_is_best_it_says_so(ranked, flags, capsys):
  (ranked / 'correlation.json').unlink()
  words, _ = flags
  for given, says in (
    (['--run', str(ranked), '--arch', 'best'], 'has ranked nothing yet'),
    (['--run', str(ranked / 'no'), '--arch', 'best'], 'holds no run'),
    ([*words, '--arch', 'best'], 'give --run RUN'),
    (['--run', str(ranked)], 'one of --arch ARCH, --all'),
  ):
    with pytest.raises(SystemExit) as ended:
      retrain.main(given)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith('error: ') and err.count('\n') == 1
  assert not (ranked / 'retrain').exists()
