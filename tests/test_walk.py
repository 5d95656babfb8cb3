import collections
import itertools
import weakref

import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.nn.walk import columns, walk, walkers

ALL_AxE = np.array(list(itertools.product(range(3), repeat=4)))
MACRO_AxE = np.array(list(itertools.product(range(3), repeat=8)))


def subset(archs_AxE, keep, seed=0):
  """Some of them, in any order."""
  rng = np.random.default_rng(seed)
  return rng.permutation(archs_AxE)[: round(keep * len(archs_AxE))]


def prefixes(archs_MxDxE):
  """Returns what the walk yields where values are the ops chosen so far."""

  def step(e, value_DxE, ops_D):
    assert value_DxE.shape == (len(ops_D), e)
    return np.concatenate([value_DxE, ops_D[:, None]], axis=1)

  root = np.zeros((archs_MxDxE.shape[1], 0), int)
  return list(walk(archs_MxDxE, root, step))


def computed(archs_MxDxE):
  """Counts how often each position is computed."""
  calls = []
  rows = list(walk(archs_MxDxE, None, lambda e, value, ops_D: calls.append(e)))
  assert len(rows) == len(archs_MxDxE)
  return [calls.count(e) for e in range(archs_MxDxE.shape[-1])]


@pytest.mark.parametrize('order', [1, -1])
@pytest.mark.parametrize('count', [1, 3])
def test_yields_rows_in_their_order_with_their_own_prefixes(order, count):
  archs_MxDxE = ALL_AxE[::order].reshape(-1, count, 4)
  np.testing.assert_array_equal(prefixes(archs_MxDxE), archs_MxDxE)


def test_shares_prefixes():
  assert computed(ALL_AxE[:, None]) == [3, 9, 27, 81]
  assert computed(MACRO_AxE[:, None]) == [3**e for e in range(1, 9)]


def test_repeated_archs_cost_nothing():
  assert computed(np.array([[[0, 1]]] * 3)) == [1, 1]


def test_rows_share_what_all_of_their_archs_share():
  archs_MxDxE = np.array([[[0, 0, 0], [1, 0, 0]], [[0, 0, 1], [1, 1, 0]]])
  assert computed(archs_MxDxE) == [1, 2, 2]


def test_few_values_are_alive():
  class Value:
    pass

  alive, most = weakref.WeakSet(), []

  def step(e, value, ops_D):
    out = Value()
    alive.add(out)
    most.append(len(alive))
    return out

  collections.deque(walk(ALL_AxE[:, None], None, step), maxlen=0)
  # Besides the root, which is none.
  assert max(most) == 4


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8])
@pytest.mark.parametrize('keep', [1.0, 0.6, 0.1, 0.02])
@pytest.mark.parametrize('seed', [0, 1])
def test_columns_deal_every_arch_once(count, keep, seed):
  archs_AxE = subset(ALL_AxE, keep, seed)
  indices_MxD, real_MxD = columns(archs_AxE, count)
  assert indices_MxD.shape == real_MxD.shape
  assert indices_MxD.shape[1] == count
  np.testing.assert_array_equal(
    np.sort(indices_MxD[real_MxD]), np.arange(len(archs_AxE))
  )
  np.testing.assert_array_equal(
    prefixes(archs_AxE[indices_MxD]), archs_AxE[indices_MxD]
  )
  # Repetitions come last, and cost the others nothing.
  padding_N = (~real_MxD).T.ravel()
  assert not np.diff(padding_N.astype(int)).min(initial=0)
  if padding_N.any():
    assert len({*indices_MxD.T.ravel()[padding_N]}) == 1


def test_a_column_is_a_run_of_the_lexicographic_order():
  archs_AxE = subset(ALL_AxE, 0.6)
  indices_MxD, real_MxD = columns(archs_AxE, 3)
  dealt_AxE = archs_AxE[indices_MxD.T[real_MxD.T]]
  assert dealt_AxE.tolist() == sorted(archs_AxE.tolist())


@pytest.mark.parametrize(
  ('count', 'steps'), [(1, 9840), (2, 5000), (3, 3280), (4, 2540), (8, 1310)]
)
def test_columns_of_nas_bench_macro_share_nearly_as_well(count, steps):
  indices_MxD, _ = columns(subset(MACRO_AxE, 1.0), count)
  found = sum(computed(subset(MACRO_AxE, 1.0)[indices_MxD]))
  assert found == steps
  ideal = sum(3**e for e in range(1, 9)) / count
  assert found < 1.07 * ideal


@pytest.mark.parametrize(
  ('devices', 'steps'), [(64, 175), (256, 44), (1000, 18)]
)
def test_many_devices_share_prefixes_still(devices, steps):
  """An architecture that shares nothing takes 8 steps."""
  archs_AxE = subset(MACRO_AxE, 1.0)
  number = walkers(len(archs_AxE), devices, processes=devices // 8)
  found = 0
  for rows_P in np.array_split(np.lexsort(archs_AxE.T[::-1]), number):
    part_PxE = archs_AxE[rows_P]
    found += sum(computed(part_PxE[columns(part_PxE, devices)[0]]))
  assert found == steps < 8 * -(-len(archs_AxE) // devices)


def test_threads_walk_where_each_device_has_enough():
  assert walkers(6561, 1, 1) == walkers(6561, 64, 1) == 2
  assert walkers(6561, 256, 1) == walkers(6561, 64, 8) == walkers(1, 1, 1) == 1


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('count', [3, 20, 300])
def test_columns_of_a_space_too_large_to_list(count, devices):
  rng = np.random.default_rng(0)
  archs_AxE = spaces.get('mobilenet').random(rng, count)
  indices_MxD, real_MxD = columns(archs_AxE, devices)
  assert len(indices_MxD) < count / devices + 13
  np.testing.assert_array_equal(np.sort(indices_MxD[real_MxD]), range(count))


@pytest.mark.parametrize('seed', range(3))
def test_columns_of_some_architectures_still_share(seed):
  """A tenth, ranked on 8 devices."""
  archs_AxE = subset(MACRO_AxE, 0.1, seed)
  alone = sum(computed(archs_AxE[columns(archs_AxE, 1)[0]]))
  spread = sum(computed(archs_AxE[columns(archs_AxE, 8)[0]]))
  # No worse than dealing without sharing anything.
  assert alone / 8 <= spread <= 8 * -(-len(archs_AxE) // 8)
