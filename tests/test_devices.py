"""Several devices find what one finds."""

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.runtime import devices
from support import small_net
from support.many_devices import found_by


@pytest.fixture(scope='module')
def of_four(tmp_path_factory):
  """Results of a process with four devices."""
  file = tmp_path_factory.mktemp('devices') / 'found.npz'
  return found_by(4, 'support.small_net', file)


@pytest.fixture(scope='module')
def of_one():
  return small_net.densities_and_accuracies()


@pytest.mark.parametrize('held', ['', 'held_'])
def test_four_devices_find_what_one_finds(of_four, of_one, held):
  """Also where the parameters lie on the first of them."""
  assert all(np.ptp(values_A) > 0.1 for values_A in of_one.values())
  for name in ('parts_A', 'whole_A'):
    np.testing.assert_allclose(of_four[held + name], of_one[name], rtol=1e-6)
  np.testing.assert_array_equal(
    of_four[f'{held}accuracy_A'], of_one['accuracy_A']
  )


@pytest.mark.parametrize('held', [1, 4])
@pytest.mark.parametrize('per_device', [1, 2, 3, 100])
@pytest.mark.parametrize('count', [1, 3, 4, 9, 16])
def test_blocks_cover_all_once_and_are_equally_long(
  monkeypatch, held, per_device, count
):
  monkeypatch.setattr(jax, 'devices', lambda: [None] * held)
  blocks = list(devices.chunks(count, per_device))
  length = len(blocks[0][0])
  assert length % held == 0 and length <= held * per_device
  # No longer than it takes.
  assert length - held < count
  real = np.concatenate([real_C for _, real_C in blocks])
  indices = np.concatenate([indices_C for indices_C, _ in blocks])
  assert {len(indices_C) for indices_C, _ in blocks} == {length}
  np.testing.assert_array_equal(indices[:count], np.arange(count))
  assert real[:count].all() and not real[count:].any()
  # The padding can be computed, and no block is nothing but padding.
  assert (indices[count:] == count - 1).all()
  assert all(real_C.any() for _, real_C in blocks)


@pytest.mark.parametrize('count', range(4))
def test_one_late_keeps_order_and_every_item(count):
  events = []

  def items():
    for i in range(count):
      events.append(f'start {i}')
      yield i

  for i in devices.one_late(items()):
    events.append(f'read {i}')
  expected = [f'start {i}' for i in range(count)]
  for i in range(count):
    # Once the next has been started.
    expected.insert(min(2 * i + 2, len(expected)), f'read {i}')
  assert events == expected


@pytest.mark.parametrize(
  'counts', [(0,), (1,), (3,), (0, 2), (3, 1), (2, 2, 2)]
)
@pytest.mark.parametrize('processes', [1, 2])
def test_together_yields_what_each_has_in_order(counts, processes, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  items = [[(i, n) for n in range(count)] for i, count in enumerate(counts)]
  found = list(devices.together([iter(of_one) for of_one in items]))
  turns = itertools.chain(*itertools.zip_longest(*items))
  one_by_one = itertools.chain(*items)
  expected = [one_by_one, turns][processes == 1]
  assert found == [item for item in expected if item]


def test_together_makes_the_next_items_meanwhile():
  read = threading.Event()

  def items(i):
    yield i, 0
    # Passes only where the first one is read before this one is there.
    assert read.wait(timeout=60)
    yield i, 1

  found = []
  for item in devices.together([items(0), items(1)]):
    read.set()
    found.append(item)
  assert found == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_others_begin_when_the_first_has_one():
  made = []

  def items(i):
    if not i:
      time.sleep(0.1)
    made.append(i)
    yield i

  assert list(devices.together([items(0), items(1)])) == made == [0, 1]


@pytest.mark.parametrize('wide', [False, True])
def test_together_computes_in_the_precision_that_is_set(wide):
  with jax.enable_x64(wide):
    dtypes = (jnp.zeros(1, float).dtype for _ in range(1))
    (found,) = devices.together([dtypes])
    assert found == jnp.zeros(1, float).dtype
  assert (found == np.float64) == wide


def test_together_raises_what_is_raised_on_a_thread():
  def items():
    yield 0
    raise FloatingPointError('after one')

  with pytest.raises(FloatingPointError, match='after one'):
    list(devices.together([iter(range(3)), items()]))


def test_over_archs_maps_along_the_first_axis_alone():
  shared = {'w': np.arange(3.0)}
  each = {'x': np.arange(8.0).reshape(4, 2), 'op': np.arange(4)}
  out = devices.over_archs(
    lambda shared, one: shared['w'] + one['x'].sum() * one['op']
  )(shared, each)
  expected = [np.arange(3) + each['x'][i].sum() * i for i in range(4)]
  np.testing.assert_allclose(out, expected)
