"""Orders in which images are drawn: shuffled, by importance, as a probe."""

import dataclasses
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnas import config, data, samplers, spaces
from jaxnas.data.importance import by_importance
from jaxnas.data.order import Order, shuffled
from jaxnas.experiment import build, datasets
from jaxnas.runtime import rng
from jaxnas.training import step
from jaxnas.training.optimizer import Sgd
from support.sampler_runs import QUICKLY, fields

DIGITS = spaces.get('digits')
LOADED = data.load('digits')
ROOT = np.sqrt(2)


quickly = functools.partial(jax.jit, compiler_options=QUICKLY)


def given(label, **more):
  sampler = config.Sampler(**fields(label) | more)
  return config.Config(
    warmup_epochs=1,
    epochs=2,
    sampler=sampler,
    data=config.Data(batch_size=100),
    density=config.Density(batch_size=50),
  )


def batches_of(given, loaded=LOADED):
  indices_T, _ = datasets.divide(loaded, given.data, given.seed)
  return build.training(given, DIGITS, loaded, indices_T, data.ON_ONE)


def indices(batches, state, first, count):
  """Drawn by `count` steps, from that number on."""
  draw = quickly(batches.order.draw)
  feed = itertools.islice(batches.feed(3, first), count)
  for number, inputs in enumerate(feed, first):
    state, indices_B = draw(state, inputs, number)
    yield np.asarray(indices_B)


@pytest.mark.parametrize('budget', ['steps', 'paths'])
def test_shuffled_images_come_once_in_an_epoch_of_all_of_them(budget):
  """Also where a budget ends an epoch before they have all come."""
  batches = batches_of(given('uniform', budget=budget))
  assert batches.steps_per_epoch == {'steps': 5, 'paths': 2}[budget]
  assert batches.order.init() == () and batches.order.note is None
  drawn = [*indices(batches, (), 0, 15)]
  assert drawn[0].dtype == np.int32 and drawn[0].shape == (100,)
  epochs = [np.concatenate(drawn[start : start + 5]) for start in (0, 5, 10)]
  for order_N in epochs:
    np.testing.assert_array_equal(np.sort(order_N), np.arange(500))
  assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
  # A resumed run goes on with what it would have drawn.
  np.testing.assert_array_equal([*indices(batches, (), 7, 8)], drawn[7:])


def test_the_rest_of_a_permutation_is_dropped():
  order = shuffled(2, 3)
  inputs = types.SimpleNamespace(order_N=jnp.array([4, 2, 7, 1, 0, 6, 5, 3]))
  drawn = [order.draw((), inputs, number)[1].tolist() for number in range(3)]
  assert drawn == [[4, 2, 7], [1, 0, 6], [4, 2, 7]]


def test_without_an_order_the_inputs_are_the_images():
  order = Order()
  assert order.init() == () and order.note is None
  assert order.draw((), 'images', 3) == ((), None)


def told(order, state, scores):
  """The state that has seen these images have these errors over root 2."""
  indices_B = jnp.array([*scores], jnp.int32)
  right_B = 1 - np.array([*scores.values()])
  logits_Bx2 = jnp.log(jnp.stack([right_B, 1 - right_B], axis=1))
  return order.note(state, indices_B, logits_Bx2, jnp.zeros(2, jnp.int32))


def test_importance_by_hand():
  """Three epochs of two steps, two of four images each."""
  order = by_importance(4, 2, steps_per_epoch=2, epochs=3)

  @quickly
  def draw(state, number):
    key = rng.key(0, 'images')
    return order.draw(state, types.SimpleNamespace(draw_key=key), number)

  state = order.init()
  even = [1 / 4] * 4

  def check(number, weight_N, scores, score_N):
    nonlocal state
    before = state
    state, indices_B = draw(state, number)
    np.testing.assert_allclose(state.weight_N, weight_N, rtol=1e-5)
    np.testing.assert_array_equal(state.score_N, before.score_N)
    # An epoch begins with its first draw.
    assert np.asarray(state.seen_N).any() == number % 2
    assert indices_B.shape == (2,) and indices_B.dtype == jnp.int32
    state = told(order, state, scores)
    np.testing.assert_allclose(state.score_N, score_N, rtol=1e-5)
    # Noting alone changes no probability.
    np.testing.assert_allclose(state.weight_N, weight_N, rtol=1e-5)

  check(0, even, {0: 0.25, 1: 0.75}, [0.25 * ROOT, 0.75 * ROOT, 1, 1])
  # Image 0 again: (0.25 + 0.75) / 2.
  after = np.array([0.5 * ROOT, 0.75 * ROOT, 0.25 * ROOT, 1])
  check(1, even, {0: 0.75, 2: 0.25}, after)
  # t = 1/3. Image 0 is seen for the first time again.
  weight_N = after / after.sum() / 3 + 2 / 3 / 4
  after = np.array([0.25 * ROOT, 0.75 * ROOT, 0.25 * ROOT, 0.5 * ROOT])
  check(2, weight_N, {0: 0.25, 3: 0.5}, after)
  after = np.array([0.5 * ROOT, 0.75 * ROOT, 0.25 * ROOT, 0.25 * ROOT])
  check(3, weight_N, {0: 0.75, 3: 0.0}, after)
  # t = 2/3, of scores (2, 3, 1, 1) / 7; images 1 and 2 kept theirs.
  weight_N = np.array([2, 3, 1, 1]) / 7 * 2 / 3 + 1 / 3 / 4
  after = np.array([0.5 * ROOT, 0.0, 0.5 * ROOT, 0.25 * ROOT])
  check(4, weight_N, {1: 0.0, 2: 0.5}, after)
  check(5, weight_N, {1: 0.0, 2: 0.5}, after)
  # What would come after the last epoch is drawn by scores alone.
  state, indices_B = draw(state, 6)
  np.testing.assert_allclose(
    state.weight_N, [2 / 5, 0, 2 / 5, 1 / 5], atol=1e-6
  )
  assert 1 not in indices_B


def test_draws_by_importance_follow_the_state_the_seed_and_the_step():
  batches = batches_of(given('importance'))
  state = batches.order.init()
  assert state.score_N.shape == (500,)
  state = state._replace(weight_N=jnp.arange(500.0) / jnp.arange(500.0).sum())
  drawn = [*indices(batches, state, 1, 4)]
  assert len({indices_B.tobytes() for indices_B in drawn}) == 4
  # With replacement, and the heavy ones more.
  assert len({*np.concatenate(drawn)}) < 400
  assert np.mean(drawn) == pytest.approx(333, abs=25)
  np.testing.assert_array_equal([*indices(batches, state, 3, 2)], drawn[2:])


@pytest.mark.parametrize(
  ('label', 'budget', 'steps'),
  [('importance', 'steps', 5), ('importance, data', 'paths', 2)],
)
def test_an_epoch_of_importance_is_that_of_the_budget(label, budget, steps):
  batches = batches_of(given(label, budget=budget))
  assert batches.steps_per_epoch == steps
  inputs = next(batches.feed(0, 0))
  scored = batches.order.init()._replace(score_N=jnp.arange(500.0))
  draw = quickly(batches.order.draw)
  for number in range(1, 2 * steps + 1):
    state, _ = draw(scored, inputs, number)
    moved = float(jnp.ptp(state.weight_N))
    # t is epochs so far of 3, and the shares of scores go from 0 to 1/250.
    expected = number / steps / 3 / 250 if number % steps == 0 else 0
    assert moved == pytest.approx(expected, rel=1e-4)


def test_paths_are_drawn_from_shuffled_images():
  order = batches_of(given('importance, path')).order
  assert order.init() == () and order.note is None


def test_rewards_come_beside_images_drawn_by_importance():
  plain = batches_of(given('importance'))
  other = data.training(
    LOADED, np.arange(500), batch_size=100, crop_padding=0, flip=False,
    dtype=jnp.float32,
  )  # fmt: skip
  both = data.with_rewards(plain, other)
  state = plain.order.init()
  np.testing.assert_array_equal(
    [*indices(both, state, 0, 3)], [*indices(plain, state, 0, 3)]
  )
  assert both.order.note is plain.order.note


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Five images of two classes each, to be streamed."""
  root, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
  for part, k in itertools.product(('train', 'val'), range(2)):
    folder = root / part / f'class_{k}'
    folder.mkdir(parents=True)
    for i in range(5):
      x = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
      Image.fromarray(x).save(folder / f'{i}.JPEG')
  return data.load('imagenet', str(root), size=8, workers=0)


@pytest.mark.parametrize('label', ['importance', 'importance, data'])
def test_streamed_images_are_not_drawn_by_importance(photos, label):
  streamed = dataclasses.replace(
    given(label), data=config.Data(name='imagenet', size=8, batch_size=2)
  )
  with pytest.raises(ValueError, match='imagenet is streamed: set') as raised:
    batches_of(streamed, photos)
  assert '\n' not in str(raised.value)
  # What it says helps.
  assert str(raised.value).endswith('set sampler.variant path.')
  remedied = dataclasses.replace(
    streamed, sampler=dataclasses.replace(streamed.sampler, variant='path')
  )
  assert batches_of(remedied, photos).order.note is None


class Linear:
  """A layer for each op of the first position, in place of a supernet."""

  space = DIGITS

  def clone(self, **changes):
    del changes
    return self

  def apply(self, variables, x, arch, *, train, mutable=()):
    kernel_DxK = variables['params']['kernel'][arch[0]]
    return x.reshape(len(x), -1) @ kernel_DxK, {}

  def used(self, params, arch_E):
    return {'kernel': (jnp.arange(3) == arch_E[0])[:, None, None]}


def test_a_step_notes_once_for_every_path_what_that_path_says():
  """A probe that writes down what it is told, and draws three images."""
  archs_PxE = np.array([[1, 0, 2, 1], [2, 2, 0, 1], [0, 0, 0, 0]], np.int32)
  batch, rng = 3, np.random.default_rng(0)
  x_NxHxWxC = rng.normal(size=(9, 8, 8, 1)).astype(np.float32)
  y_N = np.arange(9, dtype=np.int32)

  def note(state, indices_B, logits_BxK, labels_B):
    told, count = state
    new = {'indices': indices_B, 'logits': logits_BxK, 'labels': labels_B}
    return {k: told[k].at[count].set(new[k]) for k in told}, count + 1

  probe = Order(
    init=lambda: (
      {
        'indices': jnp.zeros((3, batch), jnp.int32),
        'logits': jnp.zeros((3, batch, 10)),
        'labels': jnp.zeros((3, batch), jnp.int32),
      },
      jnp.int32(0),
    ),
    # What it has been told before, it is told anew.
    draw=lambda state, inputs, number: (
      (state[0], state[1] * 0),
      (inputs + number + jnp.arange(batch)).astype(jnp.int32),
    ),
    note=note,
  )
  training = data.Training(
    feed=iter,
    batch=lambda inputs, number, indices_B: (
      jnp.asarray(x_NxHxWxC)[indices_B],
      jnp.asarray(y_N)[indices_B],
    ),
    steps_per_epoch=1,
    images=9,
    order=probe,
  )
  sampler = samplers.Sampler(
    init=tuple,
    sample=lambda state, key: jnp.asarray(archs_PxE),
    log_prob=lambda state: None,
  )
  net, optimizer = Linear(), Sgd(0.1)
  count = lambda archs_PxE: jnp.zeros((), jnp.int32)  # noqa: E731
  kernel_OxDxK = rng.normal(size=(3, 64, 10)).astype(np.float32)
  state = step.init_state(
    net,
    sampler,
    optimizer,
    count,
    {'params': {'kernel': kernel_OxDxK}},
    images=probe.init(),
  )
  step_fn = step.make_step(net, sampler, optimizer, training, count, seed=0)
  for number in range(2):
    kernel_OxDxK = np.array(state.params['kernel'])
    state, _ = step_fn(state, jnp.int32(4))
    assert (state.params['kernel'] != kernel_OxDxK).any()
    told, notes = state.images
    assert int(notes) == len(archs_PxE)
    drawn_B = 4 + number + np.arange(batch)
    np.testing.assert_array_equal(told['indices'], [drawn_B] * 3)
    np.testing.assert_array_equal(told['labels'], [y_N[drawn_B]] * 3)
    # Of the parameters before the update, path by path.
    x_BxD = x_NxHxWxC[drawn_B].reshape(batch, -1)
    expected_PxBxK = [x_BxD @ kernel_OxDxK[op] for op in archs_PxE[:, 0]]
    np.testing.assert_allclose(told['logits'], expected_PxBxK, atol=1e-4)
