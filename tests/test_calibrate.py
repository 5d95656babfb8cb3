"""Calibration: the posterior, which to train next, and the command."""

import json

import numpy as np
import pytest
import scipy.stats

import jaxnas
from jaxnas import calibrate, spaces, truth
from jaxnas.config import digest, run_folder
from jaxnas.experiment import calibrating
from jaxnas.runtime import files, jsonl
from jaxnas.truth import calibration, correlation
from support import small_run
from support.runs import result_of

DIGITS = spaces.get('digits')
RNG = np.random.default_rng
TABLE = truth.load(DIGITS, None, 'digits')


def digits(noise=0.02, seed=0):
  """Every architecture, its truth, and what a supernet might say of it."""
  archs_AxE, truth_A = TABLE.archs_AxE, TABLE.seeds_AxS.mean(axis=1)
  score_A = truth_A + noise * truth_A.std() * RNG(seed).normal(size=81) * 50
  return archs_AxE, truth_A, score_A


def one_process(monkeypatch, length, variance=0.3, noise=0.2):
  monkeypatch.setattr(calibration, 'LENGTHS', (length,))
  monkeypatch.setattr(calibration, 'VARIANCES', (variance,))
  monkeypatch.setattr(calibration, 'NOISES', (noise,))


@pytest.mark.parametrize('length', [None, 1.5])
def test_the_mean_is_that_of_the_joint_gaussian(monkeypatch, length):
  one_process(monkeypatch, length)
  archs_AxE, truth_A, score_A = digits()
  given = calibration.known(DIGITS, archs_AxE, score_A)
  rows_K = np.array([3, 30, 41, 60, 77])
  found = calibration.posterior(given, rows_K, truth_A[rows_K])
  # The same in the weights of features, where it has finitely many.
  ranks_AxF, y_K = given.ranks_AxF, calibration.gaussian_rank(truth_A[rows_K])
  prior_A = ranks_AxF @ given.weight_F
  if length is None:
    alike_AxA = given.ops_AxO @ given.ops_AxO.T / 4
  else:
    different_AxA = (archs_AxE[:, None] != archs_AxE).sum(-1)
    alike_AxA = np.exp(-different_AxA / (2 * length**2))
  joint_AxA = 0.1 + ranks_AxF @ ranks_AxF.T / 12 + 0.3 * alike_AxA
  inverse = np.linalg.inv(joint_AxA[np.ix_(rows_K, rows_K)] + 0.2 * np.eye(5))
  mean_A = prior_A + joint_AxA[:, rows_K] @ inverse @ (y_K - prior_A[rows_K])
  variance_A = 0.2 + np.diag(
    joint_AxA - joint_AxA[:, rows_K] @ inverse @ joint_AxA[rows_K]
  )
  accuracy = calibration._of_rank(truth_A[rows_K])
  np.testing.assert_allclose(found.mean_A, accuracy(mean_A))
  np.testing.assert_allclose(
    found.std_A,
    (accuracy(mean_A + variance_A**0.5) - accuracy(mean_A - variance_A**0.5))
    / 2,
  )


def test_ranks_become_accuracies_again():
  accuracy_K = np.array([0.5, 0.9, 0.7, 0.7])
  accuracy = calibration._of_rank(accuracy_K)
  ranks_K = calibration.gaussian_rank(accuracy_K)
  np.testing.assert_allclose(accuracy(ranks_K), accuracy_K)
  assert (np.diff(accuracy(np.linspace(-3, 3, 50))) > 0).all()


@pytest.mark.parametrize('name', ['digits', 'pooling', 'nas_bench_201'])
def test_truths_help(name):
  """Held to architectures outside the k, over ten draws of noise."""
  space, gains = spaces.get(name), []
  archs_AxE = space.subset(RNG(0), min(space.size, 200))
  effect = RNG(1).normal(size=space.one_hot(archs_AxE).shape[1])
  truth_A = 0.9 + space.one_hot(archs_AxE) @ effect / 100
  for seed in range(10):
    noise_A = RNG(seed).normal(size=len(archs_AxE))
    score_A = truth_A + truth_A.std() * noise_A
    rows_K = RNG(seed).permutation(len(archs_AxE))[:20]
    found = calibration.posterior(
      calibration.known(space, archs_AxE, score_A), rows_K, truth_A[rows_K]
    )
    others = np.setdiff1d(np.arange(len(archs_AxE)), rows_K)
    gains.append(
      correlation.kendall(found.mean_A[others], truth_A[others])
      - correlation.kendall(score_A[others], truth_A[others])
    )
  assert np.mean(gains) > 0.02


def test_nobody_predicts_himself():
  archs_AxE, truth_A, score_A = digits()
  given = calibration.known(DIGITS, archs_AxE, score_A)
  rows_K = np.arange(0, 81, 9)
  before_K = calibration.left_out(given, rows_K, truth_A[rows_K])
  changed_K = truth_A[rows_K].copy()
  changed_K[4] = 0.01
  after_K = calibration.left_out(given, rows_K, changed_K)
  assert after_K[4] == before_K[4]
  assert (np.delete(after_K, 4) != np.delete(before_K, 4)).all()


def test_alike_but_for_one():
  archs_AxE, _, score_A = digits()
  given = calibration.known(DIGITS, archs_AxE, score_A)
  rows_K, accuracy_K = np.array([0, 40, 80]), np.array([0.9, 0.9, 0.8])
  # Without the last one nothing is left to tell them apart by.
  assert calibration.left_out(given, rows_K, accuracy_K)[2] == 0.9


def test_suggestions_are_spread_over_the_ranking():
  score_A = np.arange(100.0)
  chosen_N = calibration.by_quantiles(score_A, 4, np.array([0, 1, 2, 3]))
  # The middles of four parts of the 96 that are left.
  assert chosen_N.tolist() == [87, 63, 39, 15]
  assert len(calibration.by_quantiles(score_A, 500, np.zeros(0, int))) == 100


def test_suggestions_may_well_exceed_the_best():
  found = calibration.Posterior(
    np.array([0.90, 0.80, 0.91, 0.99]), np.array([0.01, 0.2, 0.01, 0.1])
  )
  chosen_N = calibration.by_improvement(found, 2, np.array([3]), best=0.92)
  draws = RNG(0).normal(found.mean_A, found.std_A, (100_000, 4))
  expected_A = np.maximum(draws - 0.92, 0).mean(axis=0)
  assert chosen_N.tolist() == np.argsort(-expected_A[:3])[:2].tolist() == [1, 2]


def test_a_space_too_large_to_list():
  space = spaces.get('mobilenet')
  archs_AxE = space.subset(RNG(0), 60)
  score_A = space.depth(archs_AxE) + RNG(1).normal(size=60)
  given = calibration.known(space, archs_AxE, score_A)
  found = calibration.posterior(given, np.arange(9), score_A[:9] / 30)
  assert np.isfinite(found.mean_A).all() and (found.std_A > 0).all()
  assert scipy.stats.spearmanr(found.mean_A, score_A)[0] > 0.7


# The command, on a run of a space of 27 architectures.


@pytest.fixture
def truths(tmp_path):
  file = tmp_path / 'truths.json'
  known = small_run.TABLE.accuracy(small_run.ARCHS_AxE)
  file.write_text(
    json.dumps(
      {
        small_run.SPACE.format(small_run.ARCHS_AxE[a]): float(known[a])
        for a in range(0, 27, 3)
      }
    )
  )
  return file


@pytest.mark.usefixtures('small_space')
def test_a_calibrated_run(small, truths, tmp_path, capsys):
  workdir = tmp_path / 'out'
  flags = ['--run', str(small), '--workdir', str(workdir)]
  assert (
    calibrate.main([*flags, '--truths', str(truths), '--suggest', '4']) == 0
  )
  found = result_of(workdir / calibrating.RESULT)
  assert (found['k'], found['n'], len(found['trained'])) == (9, 27, 9)
  before = result_of(small / 'correlation.json')
  predicted = files.read_npz(small / 'predictions.npz')
  others = [a for a in range(27) if a % 3]
  assert found['held_out']['raw']['kendall'] == correlation.kendall(
    predicted['accuracy_A'][others],
    small_run.TABLE.accuracy(small_run.ARCHS_AxE[others]),
  )
  assert found['held_out']['run']['n'] == 18 and before['n'] == 27
  posterior = files.read_npz(workdir / calibrating.POSTERIOR)
  best = small_run.ARCHS_AxE[posterior['mean_A'].argmax()]
  assert found['best_arch'] == small_run.SPACE.format(best)
  suggested = (workdir / calibrating.SUGGESTED).read_text().split()
  assert len(suggested) == 4 and not {*suggested} & {*found['trained']}
  printed = capsys.readouterr().out
  for words in ('supernet and k', 'no supernet, same k', suggested[0]):
    assert words in printed
  # Nine of 27 are trained.
  more = str(tmp_path / 'more')
  assert (
    calibrate.main(
      ['--run', str(small), '--workdir', more, '--truths', str(truths),
       '--suggest', '20']
    )
    == 0
  )  # fmt: skip
  assert 'all 18 that were ranked and not trained' in capsys.readouterr().out
  # From Python it is the same.
  run = jaxnas.open_run(small)
  again = run.calibrate(truths=truths, suggest=4, workdir=tmp_path / 'again')
  assert again == {**found, 'suggested': suggested}


@pytest.mark.usefixtures('small_space')
def test_a_folder_of_retraining_is_read_as_far_as_it_is(small, tmp_path):
  folder, config = tmp_path / 'alone', run_folder.read_config(small)
  run_folder.open_run(folder, config, resume=False, command='retrain')
  files.write_json(folder / 'retrain.json', {'arch': None})
  rows = [
    {'arch': arch, 'seed': seed, 'accuracy': accuracy}
    for arch, seed, accuracy in (
      ('000', 0, 0.5), ('000', 1, 0.7), ('121', 0, 0.9), ('210', 0, 0.8),
    )
  ]  # fmt: skip
  jsonl.write_rows(folder / 'results.jsonl', rows, digest(config))
  table = calibrating.truths(folder, config, small_run.SPACE)
  named = {
    small_run.SPACE.format(arch_E): value
    for arch_E, value in zip(table.archs_AxE, table.accuracy_A, strict=True)
  }
  assert named == pytest.approx({'000': 0.6, '121': 0.9, '210': 0.8})


BAD = [
  ([], 'give --truths FILE, or --k 20'),
  (['--k', '1'], '--k is 1; it must be in [2,'),
  (['--k', '28'], 'there are 27'),
  (['--suggest', '0'], '--suggest is 0'),
  (['--truths', 'missing.json'], 'does not exist'),
  (['--truths', '.'], 'is no folder of jaxnas.retrain'),
  (['--k', '3', '--truths', 'x.json'], 'not both'),
]
BAD_TRUTHS = [
  ('{"000": 0.9}', 'has 1 of the 27'),
  ('{"000": 0.9, "111": 0.9}', 'give some that differ'),
  ('{"000": 0.9, "000": 0.8}', 'stands there twice'),
  ('{"000": 0.9, "111": 88.0}', 'give one unit for all'),
  ('{"0000": 0.9, "1111": 0.8}', "'0000' is no architecture of small"),
  ('{"000": "high", "111": 0.8}', 'it must be a number'),
]


def refused(flags, small, workdir, capsys):
  with pytest.raises(SystemExit) as ended:
    calibrate.main(['--run', str(small), '--workdir', str(workdir), *flags])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert not (workdir / calibrating.RESULT).exists()
  return err


@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize(('flags', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_flags_end_before_any_work(flags, says, small, tmp_path, capsys):
  assert says in refused(flags, small, tmp_path / 'out', capsys)


@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize(
  ('content', 'says'), BAD_TRUTHS, ids=[b[1] for b in BAD_TRUTHS]
)
def test_bad_truths(content, says, small, tmp_path, capsys):
  (tmp_path / 'truths.json').write_text(content)
  flags = ['--truths', str(tmp_path / 'truths.json')]
  assert says in refused(flags, small, tmp_path / 'out', capsys)
