import itertools

import numpy as np
import pytest

from jaxnas.walk import walk


@pytest.mark.parametrize('order', [1, -1])
@pytest.mark.parametrize('keep', [1.0, 0.3])
def test_visits_every_arch_once_with_its_own_prefix(order, keep):
  archs_AxE = np.array(list(itertools.product(range(3), repeat=4)))[::order]
  archs_AxE = archs_AxE[np.random.default_rng(0).random(len(archs_AxE)) <= keep]
  seen = dict(walk(archs_AxE, (), lambda e, value, op: (*value, op)))
  assert seen == {i: tuple(arch_E) for i, arch_E in enumerate(archs_AxE)}


def test_shares_prefixes():
  archs_AxE = np.array(list(itertools.product(range(3), repeat=4)))
  calls = []
  list(walk(archs_AxE, None, lambda e, value, op: calls.append(e)))
  assert [calls.count(e) for e in range(4)] == [3, 9, 27, 81]


def test_repeated_archs_cost_nothing():
  calls = []
  step = lambda e, value, op: calls.append(e)  # noqa: E731
  assert len(list(walk(np.array([[0, 1]] * 3), None, step))) == 3
  assert calls == [0, 1]
