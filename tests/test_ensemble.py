"""Ensembles: several supernets of one run on the same images."""

import numpy as np
import pytest

from jaxnas import train
from jaxnas.config import Config, Data, Debias, run_folder, validation
from jaxnas.experiment import build, ensembles, trained
from jaxnas.runtime import files
from jaxnas.truth import correlation
from support import small_run
from support.runs import result_of


def scores(run, number):
  file = ensembles.folder(run, number) / 'predictions.npz'
  return files.read_npz(file)['accuracy_A']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  with small_run.registered():
    folder = tmp_path_factory.mktemp('ensemble')
    yield small_run.train_in(
      folder, '--ensemble', '2', '--ranking.combine', 'log_macs'
    )


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_the_mean_score_ranks(run):
  found = result_of(run / trained.ENSEMBLE)
  score_MxA = np.stack([scores(run, 0), scores(run, 1)])
  truth_A = small_run.TABLE.accuracy(small_run.ARCHS_AxE)
  assert found['kendall'] == correlation.kendall(score_MxA.mean(0), truth_A)
  assert found['member_kendall'] == [
    correlation.kendall(score_A, truth_A) for score_A in score_MxA
  ]
  assert (score_MxA[0] != score_MxA[1]).any()
  low, high = found['kendall_interval']
  assert low < high
  assert trained.best_arch(run) == found['combined'][-1]['best_arch']


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_members_share_images_and_nothing_else(run):
  first, second = (
    build.experiment(run_folder.read_config(ensembles.folder(run, number)))
    for number in (0, 1)
  )
  for split in ('ranking', 'density', 'rebuild'):
    one, other = (getattr(e.held_out, split) for e in (first, second))
    for x, y in zip(
      one.batch(np.arange(20)), other.batch(np.arange(20)), strict=True
    ):
      np.testing.assert_array_equal(x, y)
  assert first.config.split_seed == second.config.split_seed == 0
  assert first.config.seed != second.config.seed


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_a_run_that_is_over_takes_another_member(run, capsys):
  before = [scores(run, number) for number in (0, 1)]
  assert train.main(['--workdir', str(run), '--resume', '--ensemble', '3']) == 0
  for number in (0, 1):
    np.testing.assert_array_equal(scores(run, number), before[number])
  assert result_of(run / trained.ENSEMBLE)['members'] == 3
  assert 'mean of 3' in capsys.readouterr().out


def test_a_twin_is_none_of_an_ensemble():
  given = Config(ensemble=2, debias=Debias(temperature=1.0, baseline=True))
  with pytest.raises(ValueError, match='give one of them'):
    validation.validate(given)


def test_the_interval_widens_where_members_disagree():
  truth_A, rng = np.arange(60) / 60, np.random.default_rng(0)
  alike = truth_A + 0.2 * rng.normal(size=60)
  same_MxA = np.stack([alike] * 4)
  other_MxA = np.stack([truth_A, -truth_A, truth_A, alike])
  widths = [
    np.ptp(ensembles.interval(score_MxA, truth_A, np.random.default_rng(1)))
    for score_MxA in (same_MxA, other_MxA)
  ]
  assert widths[1] > 2 * widths[0]


def test_a_seed_of_the_division_alone():
  one = Config(seed=3)
  assert one.split_seed == 3
  assert Config(seed=3, data=Data(split_seed=0)).split_seed == 0
