"""Several steps as one program are the same steps."""

import contextlib
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.config import Config, Data, Logging, Mesh, Ranking, Sampler
from jaxnas.experiment import build, schedule
from jaxnas.nn import target
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.training import loop
from jaxnas.training.step import Metrics, TrainState
from support import sampler_runs, small_run


@pytest.mark.parametrize(
  ('asked', 'backend', 'streamed', 'wanted'),
  [
    (None, 'cpu', False, 1),
    (None, 'gpu', False, 10),
    (None, 'tpu', False, 10),
    (None, 'gpu', True, 1),
    (5, 'cpu', False, 5),
    (10, 'gpu', False, 10),
    (1, 'gpu', True, 1),
    (3, 'gpu', False, 'It may be 1, 2, 5, 10.'),
    (20, 'cpu', False, 'an epoch has 390 steps'),
    (2, 'gpu', True, 'streamed images'),
  ],
)
def test_as_many_steps_as_divide_what_lies_between(
  asked, backend, streamed, wanted
):
  given = Config(
    mesh=Mesh(steps_per_dispatch=asked), logging=Logging(every_steps=50)
  )

  def found():
    with target.formulated_for(backend):
      return schedule.steps_per_dispatch(given, 390, streamed=streamed)

  if isinstance(wanted, int):
    assert found() == wanted
    return
  with pytest.raises(ValueError, match=re.escape(wanted)) as error:
    found()
  assert '\n' not in str(error.value)


def counted(number, poison=None):
  """Metrics of a step; of step `poison` they are not finite."""
  bad = number == poison
  return Metrics(
    jnp.where(bad, jnp.nan, 1.0 + number),
    jnp.float32(0.5),
    jnp.float32(1.0),
    jnp.bool_(True),
    jnp.full((1, 3), number),
  )


class Fake:
  """Steps that count, and what a loop makes of them."""

  def __init__(self, monkeypatch, *, poison=None, other_at=None):
    self.calls, self.rows, self.saved = [], [], []
    self._poison, self._other_at = poison, other_at
    monkeypatch.setattr(loop, '_placed', lambda state: state)
    monkeypatch.setattr(loop, 'check_finite', lambda state: None)

  def feed(self, step):
    same = object()
    for number in itertools.count(step):
      yield [object() if number == self._other_at else same]

  def one(self, state, input):
    self.calls.append((int(state.step), 1))
    return self._next(state, 1), counted(state.step, self._poison)

  def many(self, state, input):
    self.calls.append((int(state.step), 5))
    each = [counted(state.step + i, self._poison) for i in range(5)]
    return self._next(state, 5), jax.tree.map(lambda *x: jnp.stack(x), *each)

  def _next(self, state, count):
    return state.replace(step=state.step + count)

  def fit(self, start=0, preemption=None, at_once=5):
    state = TrainState(jnp.int32(start), *[{}] * 7)
    return loop.fit(
      state,
      self.one,
      self.feed,
      loop.Schedule(10, 2, log_every=5, save_every=1),
      save=lambda state, window: self.saved.append(
        (int(state.step), len(window))
      ),
      record=lambda step, row: self.rows.append((step, row['loss'])),
      images_per_step=1,
      guessing_loss=math.inf,
      preemption=preemption or Preemption(),
      label=None,
      dispatch=loop.Dispatch(at_once, self.many) if at_once > 1 else None,
    )


ROWS = [(5, 3.0), (10, 8.0), (15, 13.0), (20, 18.0)]


@pytest.mark.parametrize('at_once', [1, 5])
def test_rows_and_checkpoints_are_those_of_single_steps(at_once, monkeypatch):
  fake = Fake(monkeypatch)
  assert fake.fit(at_once=at_once).step == 20
  assert fake.rows == ROWS and fake.saved == [(10, 0), (20, 0)]
  assert fake.calls == [(at, at_once) for at in range(0, 20, at_once)]


def test_a_run_goes_on_between_two_programs(monkeypatch):
  fake = Fake(monkeypatch)
  fake.fit(start=13)
  assert fake.calls == [(13, 1), (14, 1), (15, 5)]


def test_steps_with_other_inputs_run_one_by_one(monkeypatch):
  fake = Fake(monkeypatch, other_at=7)
  fake.fit()
  assert fake.calls == [
    (0, 5),
    *((at, 1) for at in range(5, 10)),
    (10, 5),
    (15, 5),
  ]
  assert fake.rows == ROWS


@pytest.mark.parametrize('step', [0, 6, 9, 14])
def test_a_value_that_is_not_finite_is_of_its_own_step(step, monkeypatch):
  with pytest.raises(loop.NonFinite) as error:
    Fake(monkeypatch, poison=step).fit()
  assert error.value.step == step
  np.testing.assert_array_equal(error.value.archs_PxE, [[step] * 3])


def test_a_signal_is_heard_between_two_programs(monkeypatch):
  fake, preemption = Fake(monkeypatch), Preemption()
  asked = iter([False, True])
  monkeypatch.setattr(preemption, 'asked', lambda: next(asked))
  with pytest.raises(Stopped):
    fake.fit(preemption=preemption)
  assert fake.saved == [(5, 0)] and fake.rows == ROWS[:1]


@pytest.mark.slow
@pytest.mark.parametrize('label', sampler_runs.GIVEN)
def test_every_sampler_takes_the_same_steps(label):
  with small_run.registered():
    built = build.experiment(
      Config(
        space='small',
        warmup_epochs=1,
        epochs=1,
        data=Data(batch_size=25),
        sampler=Sampler(**sampler_runs.fields(label)),
        ranking=Ranking(images=30, batch_size=10),
      )
    )
  single, count = built.init_state(), 5
  several = jax.tree.map(lambda leaf: leaf.copy(), single)
  rows = []
  for at in range(0, 2 * count, count):
    with contextlib.closing(built.training.feed(0, at)) as feed:
      given = [next(feed) for _ in range(count)]
    for input in given:
      single, metrics = built.step_fn(single, input)
      rows.append(metrics)
    several, stacked = built.step_fn.many(count)(several, given[0])
    wanted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows[at:])
    jax.tree.map(np.testing.assert_array_equal, stacked, wanted)
  jax.tree.map(np.testing.assert_array_equal, several, single)
