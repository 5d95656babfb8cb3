"""One step of training against the same step by hand, in ten lines."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import config, spaces, supernets
from jaxnas.data import Training
from jaxnas.experiment import build
from jaxnas.experiment.stand_alone import make_trainer
from jaxnas.runtime import jsonl
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.samplers import Feedback, Sampler
from jaxnas.training import loop, step
from jaxnas.training.optimizer import Sgd
from support.runs import metrics

SPACE = spaces.get('digits')
ARCH = (1, 0, 2, 1)
X = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
Y = jnp.arange(6) % 10
# Steps are called by hand.
FEED = iter


def fixed(arch):
  return Sampler(
    init=lambda: jnp.array([arch], jnp.int32),
    sample=lambda archs_PxE, key: archs_PxE,
    log_prob=lambda archs_PxE: None,
  )


@pytest.mark.slow
def test_label_smoothing_average_and_running_statistics():
  net = supernets.StandAlone(
    supernets.build(SPACE, affine=True, momentum=0.1), ARCH
  )
  optimizer = Sgd(0.1, momentum=0.0)
  sampler = fixed(ARCH)
  count = lambda archs_PxE: jnp.int32(len(archs_PxE))  # noqa: E731
  variables = average = supernets.init(net, ARCH, 0)
  state = step.init_state(
    net, sampler, optimizer, count, variables, average=True
  )
  step_fn = step.make_step(
    net,
    sampler,
    optimizer,
    Training(FEED, lambda inputs, *_: inputs, 1, 6),
    count,
    seed=0,
    label_smoothing=0.1,
    ema_decay=0.3,
  )

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def by_hand(params, variables):
    logits, statistics = net.apply(
      {**variables, 'params': params},
      X,
      None,
      train=True,
      mutable=['batch_stats'],
    )
    logp = jax.nn.log_softmax(logits)
    losses = -0.9 * logp[jnp.arange(6), Y] - 0.1 * logp.mean(-1)
    return losses.mean(), statistics

  for i in range(5):
    (value, statistics), gradient = by_hand(variables['params'], variables)
    params = jax.tree.map(
      lambda p, g: p - 0.1 * g, variables['params'], gradient
    )
    variables = {'params': params, **statistics}
    # The first steps forget faster: 0.1, 2/11, 3/12, then 0.3.
    keep = min(0.3, (1 + i) / (10 + i))
    average = jax.tree.map(
      lambda a, v, keep=keep: keep * a + (1 - keep) * v, average, variables
    )
    state, metrics = step_fn(state, (X, Y))
    assert float(metrics.loss) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics.gradient_norm) == pytest.approx(
      float(optax.global_norm(gradient)), rel=1e-4
    )
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
    (state.params, state.statistics, state.average),
    (variables['params'], statistics, average),
  )
  assert state.variables is state.average and int(state.samples) == 5


@pytest.mark.slow
def test_gradients_of_paths_are_heard_and_summed_and_the_unused_stay():
  archs_PxE = np.array([[1, 0, 2, 1], [1, 2, 0, 1]], np.int32)
  net = supernets.build(SPACE)
  optimizer = Sgd(0.1, momentum=0.0, weight_decay=0.5)
  params = supernets.init(net, np.zeros(4, np.int32), 0)['params']

  def hear(state, feedback):
    heard, count = state
    return (
      jax.tree.map(
        lambda all_P, one: all_P.at[count].set(one), heard, feedback
      ),
      count + 1,
    )

  sampler = Sampler(
    init=lambda: (
      jax.tree.map(
        lambda leaf: jnp.zeros((2, *leaf.shape), leaf.dtype),
        Feedback(archs_PxE[0], params, jnp.float32(0)),
      ),
      0,
    ),
    sample=lambda state, key: jnp.asarray(archs_PxE),
    log_prob=lambda state: None,
    update=hear,
  )
  count = lambda archs_PxE: jnp.zeros((), jnp.int32)  # noqa: E731
  state = step.init_state(net, sampler, optimizer, count, {'params': params})
  assert state.statistics == {} and state.average == {}
  step_fn = step.make_step(
    net,
    sampler,
    optimizer,
    Training(
      FEED,
      lambda inputs, *_: inputs,
      1,
      6,
      reward=lambda inputs, step: (X[::-1] + step, Y),
    ),
    count,
    seed=0,
    reward_every=2,
  )
  after, _ = step_fn(state, (X, Y))

  def loss(params, arch):
    logits = net.apply({'params': params}, X, arch, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()

  gradient = jax.jit(jax.grad(loss))
  heard, number = after.sampler
  assert int(number) == 2
  np.testing.assert_array_equal(heard.arch_E, archs_PxE)
  for arch_E, reward in zip(archs_PxE, heard.reward, strict=True):
    logits = net.apply({'params': params}, X[::-1], arch_E, train=False)
    assert reward == pytest.approx(np.mean(logits.argmax(-1) == Y))
  for p, arch_E in enumerate(archs_PxE):
    jax.tree.map(
      lambda of_path, all_P, p=p: np.testing.assert_allclose(
        all_P[p], of_path, atol=1e-5
      ),
      gradient(params, arch_E),
      heard.gradient,
    )
  summed = jax.tree.map(
    jnp.add, *(gradient(params, arch_E) for arch_E in archs_PxE)
  )
  used = jax.tree.map(
    jnp.logical_or, *(net.used(params, arch_E) for arch_E in archs_PxE)
  )
  jax.tree.map(
    lambda ours, p, g, u: np.testing.assert_allclose(
      ours, p - 0.1 * (g + 0.5 * p) if u else p, atol=1e-5
    ),
    after.params,
    params,
    summed,
    used,
  )
  # Every other step measures rewards.
  after = dataclasses.replace(after, sampler=sampler.init())
  heard, _ = step_fn(after, (X, Y))[0].sampler
  assert np.isnan(heard.reward).all()


GIVEN = config.Config(
  data=config.Data(batch_size=50),
  optimizer=config.Optimizer(peak_lr=0.05),
  retrain=config.Retrain(epochs=3, seeds=1),
)


@pytest.mark.slow
def test_alone_is_the_same_with_and_without_the_other_ops():
  """One program for all of them trains what a network of its own does."""
  arch_E = np.array(ARCH, np.int32)
  accuracies = [
    make_trainer(build.stand_alone(GIVEN, arch), None, Preemption())(arch_E, 0)
    for arch in (None, SPACE.format(arch_E))
  ]
  # Rounding differs between the programs; 797 images decide.
  assert accuracies[0] == pytest.approx(accuracies[1], abs=0.03)
  assert accuracies[0] > 0.3


def test_alone_stopped_and_resumed_is_the_same_run(tmp_path):
  built = build.stand_alone(GIVEN, SPACE.format(np.array(ARCH)))
  arch_E = np.array(ARCH, np.int32)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  accuracy = make_trainer(built, whole, Preemption())(arch_E, 0)

  class Impatient(Preemption):
    times = 0

    def asked(self):
      self.times += 1
      return self.times == 13

  with pytest.raises(Stopped):
    make_trainer(built, parts, Impatient())(arch_E, 0)
  again = make_trainer(built, parts, Preemption())(arch_E, 0)
  assert again == accuracy

  assert metrics(whole / 'seed_0') == metrics(parts / 'seed_0') != []
  assert jsonl.read_rows(whole / 'seed_0' / 'metrics.jsonl', {'step': int})


def test_a_seed_that_diverges_is_named(monkeypatch):
  def diverges(*args, **kwargs):
    raise loop.NonFinite('step 1: loss nan', 1)

  monkeypatch.setattr(loop, 'fit', diverges)
  trainer = make_trainer(build.stand_alone(GIVEN, None), None, Preemption())
  with pytest.raises(ArithmeticError, match=r'^1021, seed 2: step 1: loss'):
    trainer(np.array(ARCH, np.int32), 2)


@pytest.mark.parametrize('asked', [True, False])
def test_a_feed_that_the_signal_ended_stops_the_run_after_saving(asked):
  """Workers that start do not know yet that signals are not for them."""
  preemption, saved = Preemption(), []

  def feed(step):
    preemption.requested = asked
    raise OSError('a process that decodes images has died')
    yield

  net = supernets.build(SPACE)
  count = lambda archs_PxE: jnp.zeros((), jnp.int32)  # noqa: E731
  state = step.init_state(
    net,
    fixed(ARCH),
    Sgd(0.1),
    count,
    supernets.init(net, np.zeros(4, np.int32), 0),
  )
  with pytest.raises(Stopped if asked else OSError):
    loop.fit(
      state,
      step_fn=lambda state, inputs: pytest.fail('there are no inputs'),
      feed=feed,
      schedule=loop.Schedule(3, 1, 1, 1),
      save=lambda state, rows: saved.append(int(state.step)),
      record=lambda step, row: None,
      images_per_step=1,
      guessing_loss=9.0,
      preemption=preemption,
      label=None,
    )
  assert saved == [0] * asked
