"""Fronts and crowding against loops over all pairs."""

import numpy as np
import pytest

from jaxnas.searchers import pareto

INF = float('inf')


def dominates(a, b):
  return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def fronts_by_loops(rows):
  rank, left, number = [0] * len(rows), set(range(len(rows))), 0
  while left:
    on = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
    for i in on:
      rank[i] = number
    left, number = left - on, number + 1
  return rank


def crowding_by_loops(rows):
  """The pseudo-code of the paper, of finite values."""
  distance = [0.0] * len(rows)
  for k in range(len(rows[0])):
    order = sorted(range(len(rows)), key=lambda i: rows[i][k])
    low, high = rows[order[0]][k], rows[order[-1]][k]
    if low == high:
      continue
    distance[order[0]] = distance[order[-1]] = INF
    for before, i, after in zip(order, order[1:], order[2:], strict=False):
      distance[i] += (rows[after][k] - rows[before][k]) / (high - low)
  return distance


def some_objectives(seed):
  """Returns few distinct values, which tie and repeat; some are infinite."""
  rng = np.random.default_rng(seed)
  shape = int(rng.integers(1, 40)), int(rng.integers(1, 4))
  values = rng.integers(0, int(rng.integers(2, 12)), shape).astype(float)
  if seed % 3 == 0:
    values[rng.random(shape) < 0.1] = INF
    values[rng.random(shape) < 0.1] = -INF
  return values


@pytest.mark.parametrize('seed', range(30))
def test_fronts_equal_the_loops(seed):
  objectives_NxK = some_objectives(seed)
  rank_N = fronts_by_loops(objectives_NxK.tolist())
  assert pareto.fronts(objectives_NxK).tolist() == rank_N
  best = [i for i, rank in enumerate(rank_N) if rank == 0]
  assert pareto.front(objectives_NxK).tolist() == best


@pytest.mark.parametrize('seed', [s for s in range(30) if s % 3])
def test_crowding_equals_the_paper(seed):
  objectives_NxK = some_objectives(seed)
  np.testing.assert_allclose(
    pareto.crowding(objectives_NxK),
    crowding_by_loops(objectives_NxK.tolist()),
    rtol=1e-12,
  )


@pytest.mark.parametrize('seed', range(6))
def test_ranks_are_of_each_and_of_the_order_only(seed):
  objectives_NxK = some_objectives(seed)
  rank_N = pareto.fronts(objectives_NxK)
  mixed_N = np.random.default_rng(seed).permutation(len(rank_N))
  np.testing.assert_array_equal(
    pareto.fronts(objectives_NxK[mixed_N]), rank_N[mixed_N]
  )
  # Growing functions of an objective change nothing; nor do the columns' order.
  grown_NxK = np.arctan(objectives_NxK[:, ::-1]) * [3.0]
  np.testing.assert_array_equal(pareto.fronts(grown_NxK), rank_N)
  # Duplicates stand with what they repeat.
  twice_NxK = np.concatenate([objectives_NxK, objectives_NxK])
  np.testing.assert_array_equal(pareto.fronts(twice_NxK), np.tile(rank_N, 2))


def test_by_hand():
  objectives_NxK = np.array(
    [[0.9, -5.0], [0.5, -1.0], [0.7, -2.0], [0.6, -2.0], [0.9, -5.0]]
  )
  assert pareto.front(objectives_NxK).tolist() == [0, 1, 2, 4]
  assert pareto.fronts(objectives_NxK).tolist() == [0, 0, 0, 1, 0]
  # Of 0 and 4, which are equal, each is the end of one objective.
  front_FxK = objectives_NxK[[0, 1, 2, 4]]
  assert pareto.crowding(front_FxK).tolist() == [INF, INF, 2.0, INF]
  assert pareto.order(objectives_NxK).tolist() == [0, 1, 4, 2, 3]


def test_infinite_ones_and_empty_ones():
  infinite_NxK = np.array([[INF], [INF], [-INF], [0.0], [1.0]])
  # Sorted: -inf, 0, 1, inf, inf.
  crowding_N = pareto.crowding(infinite_NxK)
  assert crowding_N.tolist() == [1.0, INF, INF, 1.0, 1.0]
  assert pareto.fronts(infinite_NxK).tolist() == [0, 0, 3, 2, 1]
  for function in (pareto.front, pareto.fronts, pareto.crowding, pareto.order):
    assert function(np.zeros((0, 2))).shape == (0,)


def test_an_objective_that_is_always_the_same_counts_nothing():
  x_NxK = np.array([[0.0, 7.0], [1.0, 7.0], [4.0, 7.0]])
  np.testing.assert_array_equal(
    pareto.crowding(x_NxK), pareto.crowding(x_NxK[:, :1])
  )


@pytest.mark.parametrize('function', [pareto.front, pareto.crowding])
def test_nan_is_refused(function):
  with pytest.raises(
    ValueError, match=r'^objectives \[0.1, nan\] of 1 have no'
  ):
    function(np.array([[0.0, 1.0], [0.1, np.nan]]))
