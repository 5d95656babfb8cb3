import itertools
import json
import warnings

import numpy as np
import pytest
import scipy.stats

from jaxnas import spaces, truth
from jaxnas.report import text
from jaxnas.truth import agreement, correlation, top


def rounded(seed, count, decimals, noise=0.5):
  """Predictions and truth with ties where `decimals` is small."""
  rng = np.random.default_rng(seed)
  truth_A = rng.random(count)
  predicted_A = truth_A + noise * rng.random(count)
  return np.round(predicted_A, decimals), np.round(truth_A, decimals)


def naive_tau_b(predicted_A, truth_A):
  p_AxA = np.sign(predicted_A[:, None] - predicted_A)
  t_AxA = np.sign(truth_A[:, None] - truth_A)
  both = np.sqrt((p_AxA != 0).sum() * (t_AxA != 0).sum())
  return (p_AxA * t_AxA).sum() / both if both else None


def naive_rho(predicted_A, truth_A):
  def ranks(values_A):
    below_A = (values_A < values_A[:, None]).sum(axis=1)
    return below_A + (values_A == values_A[:, None]).sum(axis=1) / 2

  p_A, t_A = ranks(predicted_A), ranks(truth_A)
  p_A, t_A = p_A - p_A.mean(), t_A - t_A.mean()
  return p_A @ t_A / np.sqrt((p_A @ p_A) * (t_A @ t_A))


@pytest.mark.parametrize('decimals', [1, 2, 12])
@pytest.mark.parametrize('count', [3, 10, 300])
def test_against_naive_twins(count, decimals):
  pair = rounded(count, count, decimals)
  assert correlation.kendall(*pair) == pytest.approx(naive_tau_b(*pair))
  assert correlation.spearman(*pair) == pytest.approx(naive_rho(*pair))


def test_against_scipy():
  pair = rounded(0, 200, 1)
  assert correlation.kendall(*pair) == pytest.approx(
    scipy.stats.kendalltau(*pair, variant='b').statistic
  )
  assert correlation.spearman(*pair) == pytest.approx(
    scipy.stats.spearmanr(*pair).statistic
  )


def test_by_hand():
  # Of 6 pairs one is tied in the prediction and 5 agree: 5 / sqrt(5 * 6).
  # Centred ranks are -1.5 0 0 1.5 and -1.5 0.5 -0.5 1.5.
  truth_A = np.array([0.1, 0.3, 0.2, 0.4])
  tied_A = np.array([0.5, 0.6, 0.6, 0.7])
  assert correlation.kendall(tied_A, truth_A) == pytest.approx(5 / 30**0.5)
  assert correlation.spearman(tied_A, truth_A) == pytest.approx(
    4.5 / (4.5 * 5) ** 0.5
  )
  swapped_A = np.array([0.1, 0.2, 0.3, 0.4])
  assert correlation.kendall(swapped_A, truth_A) == pytest.approx(4 / 6)
  assert correlation.spearman(swapped_A, truth_A) == pytest.approx(0.8)


@pytest.mark.parametrize('name', ['kendall', 'spearman'])
def test_symmetries(name):
  statistic = getattr(correlation, name)
  predicted_A, truth_A = rounded(3, 150, 1)
  value = statistic(predicted_A, truth_A)
  assert statistic(truth_A, predicted_A) == pytest.approx(value)
  assert statistic(-predicted_A, truth_A) == pytest.approx(-value)
  assert statistic(np.exp(9 * predicted_A), truth_A) == pytest.approx(value)
  order = np.random.default_rng(0).permutation(150)
  assert statistic(predicted_A[order], truth_A[order]) == pytest.approx(value)
  assert statistic(truth_A, truth_A) == pytest.approx(1)


@pytest.mark.parametrize('name', ['kendall', 'spearman', 'top_kendall'])
@pytest.mark.parametrize(
  'predicted_A', [np.full(20, 0.3), np.full(20, np.nan), np.full(20, 4)]
)
def test_constant_is_undefined_and_silent(name, predicted_A):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    statistic = getattr(top if name == 'top_kendall' else correlation, name)
    assert statistic(predicted_A, np.arange(20.0)) is None
    assert statistic(predicted_A[:1], np.ones(1)) is None
    assert statistic(np.ones(0), np.ones(0)) is None


def test_top_is_a_tenth_but_at_least_ten():
  # The ten best are in reverse, the rest in order.
  truth_A = np.arange(50.0)
  predicted_A = truth_A.copy()
  predicted_A[40:] = predicted_A[40:][::-1]
  assert top.top_kendall(predicted_A, truth_A) == pytest.approx(-1)
  assert top.top_kendall(predicted_A, truth_A, 1.0) == pytest.approx(
    naive_tau_b(predicted_A, truth_A)
  )
  predicted_A, truth_A = rounded(1, 333, 12)
  best = np.argsort(-truth_A)[:34]
  assert top.top_kendall(predicted_A, truth_A) == pytest.approx(
    naive_tau_b(predicted_A[best], truth_A[best])
  )
  assert top.top_kendall(predicted_A[:7], truth_A[:7]) == pytest.approx(
    naive_tau_b(predicted_A[:7], truth_A[:7])
  )


def orders(values_A):
  """Every order from the largest, of those that tie in every order."""
  every = itertools.permutations(range(len(values_A)))
  return [
    order for order in every if (np.diff(values_A[list(order)]) <= 0).all()
  ]


SEVERAL = [
  # (predicted, true): ties on either side, on both, everywhere, nowhere.
  ([3, 1, 1, 1, 0], [1, 5, 4, 3, 2]),
  ([5, 4, 3, 2, 1], [1, 2, 2, 2, 3]),
  ([1, 1, 0, 2, 1], [2, 2, 1, 1, 2]),
  ([0, 0, 0, 0, 0], [1, 5, 4, 3, 2]),
  ([0, 0, 0, 0, 0], [7, 7, 7, 7, 7]),
  ([1, 1, 2, 2, 0], [7, 7, 7, 3, 3]),
  ([1, 3, 2, 5, 4], [4, 5, 2, 3, 1]),
  ([1, 1], [2, 3]),
]


@pytest.mark.parametrize(('predicted', 'true'), SEVERAL)
def test_ties_count_as_all_of_their_orders_do(predicted, true):
  predicted_A, truth_A = np.array(predicted, float), np.array(true, float)
  for k in range(1, len(true) + 2):
    shares, ranks = [], []
    for ours in orders(predicted_A):
      for theirs in orders(truth_A):
        chosen = {*ours[:k]}
        shares.append(len(chosen & {*theirs[:k]}) / min(k, len(true)))
        ranks.append(1 + min(theirs.index(a) for a in chosen))
    for found, every in (
      (top.precision_at(k, predicted_A, truth_A), shares),
      (top.best_rank_at(k, predicted_A, truth_A), ranks),
    ):
      assert found == pytest.approx(np.mean(every)), (k, len(every))


@pytest.mark.parametrize('seed', range(5))
def test_the_top_among_ties_counts_as_all_of_its_sets_do(seed):
  truth_A = np.r_[np.arange(7.0), np.full(6, -1.0), np.full(3, -2.0)]
  predicted_A = np.random.default_rng(seed).choice(5, 16) * 1.0
  edge = np.sort(truth_A)[-10]
  sure = np.flatnonzero(truth_A > edge)
  taus = [
    naive_tau_b(
      *(values_A[[*sure, *some]] for values_A in (predicted_A, truth_A))
    )
    for some in itertools.combinations(
      np.flatnonzero(truth_A == edge), 10 - len(sure)
    )
  ]
  assert len(taus) == 20
  defined = [tau for tau in taus if tau is not None]
  assert top.top_kendall(predicted_A, truth_A) == pytest.approx(
    np.mean(defined)
  )


def test_of_many_sets_that_tie_some_are_drawn(monkeypatch):
  truth_A = np.r_[np.arange(9.0), np.full(20, -1.0)]
  predicted_A = truth_A + np.random.default_rng(0).normal(0, 3, 29)
  exact = top.top_kendall(predicted_A, truth_A)
  monkeypatch.setattr(top, 'MOST_SETS', 19)
  drawn = top.top_kendall(predicted_A, truth_A)
  assert drawn == top.top_kendall(predicted_A, truth_A)
  assert drawn != exact and abs(drawn - exact) < 0.1


def test_precision_and_best_rank_by_hand():
  truth_A = np.array([0.5, 0.9, 0.7, 0.8, 0.6])
  predicted_A = np.array([0.9, 0.1, 0.8, 0.7, 0.2])
  # Predicted order 0 2 3 4 1, true order 1 3 2 4 0.
  precision = [0, 0, 2 / 3, 3 / 4, 1, 1]
  best_rank = [5, 3, 2, 2, 1, 1]
  for k, (share, rank) in enumerate(zip(precision, best_rank, strict=True), 1):
    assert top.precision_at(k, predicted_A, truth_A) == share
    assert top.best_rank_at(k, predicted_A, truth_A) == rank


def test_a_constant_prediction_says_how_many_tie():
  space = spaces.get('digits')
  archs_AxE = space.enumerate()
  table = truth.load(space)
  truth_A = table.accuracy(archs_AxE)
  out = agreement.correlate(
    space, archs_AxE, np.full(81, 0.1), table, np.random.default_rng(0)
  )
  assert out['best_arch'] == '0000' and out['tied'] == 81
  assert out['best_arch_true_accuracy'] == pytest.approx(truth_A.mean())
  assert out['precision_at']['10'] == pytest.approx(10 / 81)
  assert text.chosen(out) == '0000 (81 tie)'
  accuracy_A = np.arange(81) / 81
  out = agreement.correlate(
    space, archs_AxE, accuracy_A, table, np.random.default_rng(0)
  )
  assert out['tied'] == 1 and text.chosen(out) == out['best_arch'] == '2222'
  assert out['best_arch_true_accuracy'] == truth_A[80]


def test_bootstrap_follows_its_generator():
  pair = rounded(5, 80, 2)
  draw = lambda seed: correlation.bootstrap(  # noqa: E731
    correlation.kendall, *pair, np.random.default_rng(seed), 50
  )
  assert draw(0) == draw(0)
  assert draw(0) != draw(1)


def test_bootstrap_is_the_percentiles_of_paired_resamples():
  predicted_A, truth_A = rounded(6, 30, 2)
  low, high = correlation.bootstrap(
    correlation.kendall, predicted_A, truth_A, np.random.default_rng(2), 400
  )
  rng = np.random.default_rng(2)
  chosen_SxA = [rng.integers(30, size=30) for _ in range(400)]
  taus = [naive_tau_b(predicted_A[c], truth_A[c]) for c in chosen_SxA]
  assert (low, high) == pytest.approx(tuple(np.percentile(taus, [2.5, 97.5])))


def test_bootstrap_covers_the_standard_error_of_independent_scores():
  rng = np.random.default_rng(0)
  low, high = correlation.bootstrap(
    correlation.spearman, rng.random(400), rng.random(400), rng, 500
  )
  # Of an independent pair: 1 / sqrt(A - 1), and 3.92 of them wide.
  assert high - low == pytest.approx(3.92 / 399**0.5, rel=0.2)


def test_bootstrap_of_the_undefined():
  rng = np.random.default_rng(0)
  constant_A = np.ones(9)
  assert (
    correlation.bootstrap(
      correlation.kendall, constant_A, np.arange(9.0), rng, 5
    )
    is None
  )
  # Two architectures: half of the resamples hold one of them twice.
  assert correlation.bootstrap(
    correlation.kendall, np.array([0.1, 0.2]), np.array([0.1, 0.2]), rng, 50
  ) == (1, 1)


def test_summary_is_strict_json():
  space = spaces.get('pooling')
  truth_A = truth.load(space).accuracy_A
  summary = agreement.summarize(
    np.round(truth_A, 2),
    truth_A,
    space.baselines(space.enumerate()),
    np.random.default_rng(0),
  )
  assert json.loads(json.dumps(summary, allow_nan=False)) == (
    summary
    | {
      key: list(summary[key])
      for key in ('kendall_interval', 'spearman_interval')
    }
  )
  low, high = summary['kendall_interval']
  assert low < summary['kendall'] < high
  low, high = summary['spearman_interval']
  assert low < summary['spearman'] < high
  for name in ('params', 'layers'):
    assert summary['baselines'][name] == {'kendall': None, 'spearman': None}
  macs_A = space.costs(space.enumerate()).macs_A
  assert summary['baselines']['macs'] == {
    'kendall': pytest.approx(naive_tau_b(macs_A, truth_A)),
    'spearman': pytest.approx(naive_rho(macs_A, truth_A)),
  }
  assert summary['top_kendall'] == top.top_kendall(
    np.round(truth_A, 2), truth_A
  )
  # 36 architectures have no 50 best.
  assert list(summary['precision_at']) == ['1', '5', '10']
  assert list(summary['best_rank_at']) == ['1', '5', '10']


def test_summary_of_the_undefined():
  summary = agreement.summarize(
    np.full(12, 0.1), np.arange(12.0), {}, np.random.default_rng(0)
  )
  for key in ('kendall', 'spearman', 'top_kendall'):
    assert summary[key] is None
  assert summary['kendall_interval'] is summary['spearman_interval'] is None
  json.dumps(summary, allow_nan=False)


def test_baselines_of_the_benchmark(benchmark_file):
  space = spaces.get('nas_bench_macro')
  truth_A = truth.load(space, benchmark_file).accuracy_A
  taus = {
    name: correlation.kendall(value_A, truth_A)
    for name, value_A in space.baselines(space.enumerate()).items()
  }
  assert taus == pytest.approx(
    {'layers': 0.693, 'macs': 0.556, 'params': 0.218}, abs=5e-4
  )
