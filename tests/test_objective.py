"""The aim of a path, by hand, on a net of one matrix for each op."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import config, spaces
from jaxnas.config import validation
from jaxnas.data import Training
from jaxnas.experiment import build, learning
from jaxnas.nn.choice import used_by_choices
from jaxnas.samplers import Sampler
from jaxnas.training import paths, step
from jaxnas.training.optimizer import Sgd

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
Y = jnp.arange(6) % 3
PARAMS = {
  'position_0': {
    f'op_{o}': {'kernel': jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)}
    for o in range(3)
  }
}
SPACE = spaces.Space('matrices', (('a', 'b', 'c'),), (2, 2, 1), 3)
# Paths of a step, and their teacher.
DRAWN, LARGEST = np.array([[0], [1]], np.int32), (2,)


class Matrices:
  """A net whose op multiplies the image."""

  space = SPACE

  def clone(self, **fields):
    return self

  def apply(self, variables, x, arch_E, *, train, mutable=False):
    kernels_OxDxK = jnp.stack(
      [op['kernel'] for op in variables['params']['position_0'].values()]
    )
    logits_BxK = x @ kernels_OxDxK[arch_E[0]]
    return (logits_BxK, {}) if mutable else logits_BxK

  used = staticmethod(used_by_choices)


def brier(logits_BxK, target_BxK):
  return ((jax.nn.softmax(logits_BxK) - target_BxK) ** 2).sum(-1)


def after_a_step(*, lr=0.1, **given):
  """The state and metrics after a step."""
  sampler = Sampler(
    init=lambda: jnp.zeros(()),
    sample=lambda state, key: jnp.asarray(DRAWN),
    log_prob=lambda state: None,
  )
  optimizer = Sgd(lr, momentum=0.0, weight_decay=0.5)
  count = lambda archs_PxE: jnp.bincount(archs_PxE[:, 0], length=3)  # noqa: E731
  state = step.init_state(
    Matrices(), sampler, optimizer, count, {'params': PARAMS}
  )
  step_fn = step.make_step(
    Matrices(),
    sampler,
    optimizer,
    Training(iter, lambda inputs, *_: inputs, 1, 6),
    count,
    seed=0,
    label_smoothing=0.1,
    **given,
  )
  return step_fn(state, (X, Y))


@pytest.mark.parametrize('share', [None, 0.25, 1.0])
@pytest.mark.parametrize('loss', [None, brier])
def test_a_step_by_hand(loss, share):
  teacher = None if share is None else paths.Teacher(LARGEST, share)
  state, metrics = after_a_step(loss=loss, teacher=teacher)
  labels_BxK = 0.9 * jax.nn.one_hot(Y, 3) + 0.1 / 3
  loss = loss or optax.softmax_cross_entropy

  def of(kernel, target_BxK):
    return loss(X @ kernel, target_BxK).mean()

  kernels = [op['kernel'] for op in PARAMS['position_0'].values()]
  targets, trained = [labels_BxK] * 3, [True, True, share is not None]
  if share is not None:
    soft_BxK = jax.nn.softmax(X @ kernels[LARGEST[0]])
    targets[:2] = [share * soft_BxK + (1 - share) * labels_BxK] * 2
  values = []
  for o, (kernel, target_BxK) in enumerate(zip(kernels, targets, strict=True)):
    value, gradient = jax.value_and_grad(of)(kernel, target_BxK)
    values.append(float(value))
    # No gradient comes back through the teacher's softmax.
    moved = kernel - 0.1 * (gradient + 0.5 * kernel) if trained[o] else kernel
    np.testing.assert_allclose(
      state.params['position_0'][f'op_{o}']['kernel'], moved, atol=1e-6
    )
  assert float(metrics.loss) == pytest.approx(np.mean(values[:2]), rel=1e-5)
  assert state.samples.tolist() == [1, 1, int(share is not None)]
  np.testing.assert_array_equal(metrics.archs_PxE, DRAWN)


def test_the_largest_architecture():
  for name in ('digits', 'pooling', 'nas_bench_201'):
    space = spaces.get(name)
    macs_A = space.costs(space.enumerate()).macs_A
    largest_E = space.largest()
    assert space.costs(largest_E[None]).macs_A[0] == macs_A.max()
  assert spaces.get('pooling').format(spaces.get('pooling').largest()) == '8,9'
  space = spaces.get('mobilenet')
  largest_E = space.largest()
  rng = np.random.default_rng(0)
  others_AxE = np.concatenate([space.random(rng, 500), largest_E[None]])
  assert space.costs(others_AxE).macs_A.argmax() == 500
  assert {space.ops[e][op] for e, op in enumerate(largest_E)} == {'MB6_K7_SE'}


def test_a_teacher_counts_as_a_path():
  taught = config.Config(
    data=config.Data(batch_size=100),
    optimizer=config.Optimizer(peak_lr=0.02, distill=1.0),
    sampler=config.Sampler(paths=4, budget='paths'),
  )
  built = build.experiment(taught)
  assert built.paths == 5 and built.training.steps_per_epoch == 1
  alone = dataclasses.replace(taught, optimizer=config.Optimizer())
  assert build.experiment(alone).paths == 4


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'optimizer': {'name': 'adamw'}}, 'give its own, such as'),
    ({'optimizer': {'name': 'adam'}}, 'Did you mean adamw'),
    ({'optimizer': {'beta1': 0.5}}, 'beta1 is of optimizer.name adamw'),
    (
      {'optimizer': {'name': 'adamw', 'peak_lr': 1e-3, 'momentum': 0.5}},
      'momentum is of optimizer.name sgd',
    ),
    (
      {'optimizer': {'name': 'adamw', 'peak_lr': 1e-3, 'beta2': 1.0}},
      'beta2 is 1.0; it must be in',
    ),
    ({'optimizer': {'distill': 0.0}}, 'distill is 0.0; it must be'),
    (
      {'optimizer': {'distill': 0.5}, 'sampler': {'name': 'mixture'}},
      'sampler mixture trains several',
    ),
  ],
)
def test_what_is_at_odds(fields, says):
  sections = {
    'optimizer': config.Optimizer(**fields['optimizer']),
    'sampler': config.Sampler(**fields.get('sampler', {})),
  }
  with pytest.raises(ValueError, match=says):
    validation.validate(config.Config(**sections))


def test_a_space_without_costs_has_no_largest():
  with pytest.raises(
    ValueError, match=r'distill needs the largest arch.* costs'
  ):
    learning.teacher(config.Optimizer(distill=1.0), SPACE)
