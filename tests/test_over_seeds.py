"""Averages over seeds, and what their intervals hold."""

import numpy as np
import pytest
import scipy.stats

from jaxnas.reproduce import over_seeds
from jaxnas.truth import correlation

VALUES = [0.1, 0.4, 0.25, 0.3]


def estimate(value, seeds, archs=6, resamples=200):
  rng = np.random.default_rng(0)
  return over_seeds.estimate(value, seeds, archs, rng, resamples)


def test_the_interval_over_seeds_is_students():
  found = estimate(lambda seed, _: VALUES[seed], 4)
  expected = scipy.stats.ttest_1samp(VALUES, 0).confidence_interval()
  assert found.n == 4 and found.mean == pytest.approx(np.mean(VALUES))
  assert found.deviation == pytest.approx(np.std(VALUES, ddof=1))
  assert found.over_seeds == pytest.approx((expected.low, expected.high))


def test_both_draws_seeds_and_one_set_of_architectures_for_all():
  seen = []

  def value(seed, chosen_A):
    seen.append((seed, tuple(chosen_A)))
    return VALUES[seed] + chosen_A.mean()

  found = estimate(value, 4)
  # The first calls are of the mean itself; then come four a resample.
  drawn = seen[4:]
  means = []
  for start in range(0, len(drawn), 4):
    of_one = drawn[start : start + 4]
    seeds, archs = zip(*of_one, strict=True)
    assert len({*archs}) == 1
    means.append(np.mean([VALUES[s] for s in seeds]) + np.mean(archs[0]))
  assert len(means) == 200 and len({*drawn}) > 300
  np.testing.assert_allclose(found.over_both, np.percentile(means, [2.5, 97.5]))


def test_one_seed_says_so_and_has_an_interval_over_architectures():
  rng = np.random.default_rng(1)
  score_A, truth_A = rng.random((2, 40))
  found = estimate(
    lambda _, chosen_A: correlation.kendall(
      score_A[chosen_A], truth_A[chosen_A]
    ),
    1,
    archs=40,
  )
  assert found.n == 1 and found.over_seeds is None and found.deviation is None
  low, high = found.over_both
  assert low < found.mean < high
  assert found.text().endswith('n = 1') and found.text().count('[') == 1


def test_an_undefined_value_is_left_out():
  assert estimate(lambda *_: None, 3) == (0, None, None, None, None)
  assert estimate(lambda *_: None, 3).text() == '-'
  found = estimate(lambda seed, _: VALUES[seed] if seed else None, 4)
  assert found.n == 3 and found.mean == pytest.approx(np.mean(VALUES[1:]))


def test_a_difference_is_of_the_same_seed_and_architectures():
  rng = np.random.default_rng(2)
  truth_A, scores_SxPxA = rng.random(30), rng.random((5, 2, 30))
  value = over_seeds.difference(
    correlation.kendall, [[*pair] for pair in scores_SxPxA], truth_A
  )
  chosen_A = rng.integers(30, size=30)
  ours, theirs = (
    scipy.stats.kendalltau(score_A[chosen_A], truth_A[chosen_A]).statistic
    for score_A in scores_SxPxA[3]
  )
  assert value(3, chosen_A) == pytest.approx(ours - theirs)
  alike = over_seeds.difference(
    correlation.kendall, [[one, one] for one, _ in scores_SxPxA], truth_A
  )
  found = estimate(alike, 5, archs=30)
  assert (found.mean, found.over_seeds, found.over_both) == (0, (0, 0), (0, 0))
