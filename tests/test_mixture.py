"""Routing by hand and against Sinkhorn in numpy; members against their net."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import samplers, spaces, supernets
from jaxnas.samplers.base import Feedback
from jaxnas.samplers.mixture import route as routes
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.supernets.mixture import Mixture
from support.sampler_runs import QUICKLY

DIGITS = spaces.get('digits')
POOLING = spaces.get('pooling')
NET = supernets.build(DIGITS)
ARCH = (0, 1, 2, 0)
MEMBERS = 3
# One choice, to compile in less time.
TINY = supernets.build(
  chain(
    'tiny',
    image_shape=DIGITS.image_shape,
    classes=10,
    stem=4,
    stages=(Stage(1, 8),),
    blocks=(Block(1, 3),),
    head=8,
  )
)

route = jax.jit(routes)
quickly = functools.partial(jax.jit, compiler_options=QUICKLY)


def mixture(space, *, paths=1, **options):
  archs = samplers.uniform(space, paths=paths)
  return samplers.mixture(archs, space, **options)


def heard(arch_E, reward):
  return Feedback(jnp.asarray(arch_E, jnp.int32), {}, jnp.float32(reward))


def state_of(w_AxM, t):
  sampler = mixture(
    DIGITS, members=w_AxM.shape[1], warmup_steps=0, steps=10, paths=1
  )
  return sampler.init()._replace(
    w_AxM=jnp.asarray(w_AxM, jnp.float32), t=jnp.float32(t)
  )


def sinkhorn(w_AxM, t):
  """Scales the matrix itself, in float64."""
  p_AxM = np.exp((w_AxM - w_AxM.max(axis=1, keepdims=True)) * t)
  members = p_AxM.shape[1]
  while True:
    p_AxM /= p_AxM.sum(axis=1, keepdims=True)
    share_M = p_AxM.mean(axis=0)
    if (share_M * np.log(share_M * members)).sum() < 1e-4:
      return p_AxM
    p_AxM /= share_M * members


@pytest.mark.parametrize('t', [1.0, 10.0, 100.0])
@pytest.mark.parametrize('members', [2, 5])
def test_rows_sum_to_one_and_columns_are_balanced(members, t):
  w_AxM = np.random.default_rng(0).uniform(size=(81, members))
  # One member is better at everything, and yet gets its share alone.
  w_AxM[:, 0] += 0.5
  p_AxM = np.asarray(route(state_of(w_AxM, t)), np.float64)
  np.testing.assert_allclose(p_AxM.sum(axis=1), 1, atol=1e-5)
  share_M = p_AxM.mean(axis=0)
  np.testing.assert_allclose(share_M, 1 / members, atol=1e-2)
  np.testing.assert_allclose(p_AxM, sinkhorn(w_AxM, t), atol=1e-4)


def test_balanced_averages_route_by_the_softmax():
  w_AxM = np.array([[0.2, 0.3], [0.3, 0.2]]).repeat(40, axis=0)
  w_AxM = np.concatenate([w_AxM, [[0.5, 0.5]]])
  odds = np.exp(0.1 * 20)
  p_AxM = route(state_of(w_AxM, 20))
  expected = [1 / (1 + odds), odds / (1 + odds)]
  np.testing.assert_allclose(p_AxM[0], expected, rtol=1e-4)
  np.testing.assert_allclose(p_AxM[-1], [0.5, 0.5], rtol=1e-4)


def test_a_member_that_no_number_is_left_for_is_balanced_too():
  w_AxM = np.zeros((81, 2))
  w_AxM[:, 0] = 1.5  # exp(-150) is 0 in float32
  np.testing.assert_allclose(route(state_of(w_AxM, 100)), 0.5, atol=1e-4)


def test_averages_by_hand():
  sampler = mixture(POOLING, members=2, warmup_steps=1, steps=9)
  assert sampler.rewards
  update, state = jax.jit(sampler.update), sampler.init()
  archs_AxE = POOLING.enumerate()
  for a, m, reward in (
    (3, 1, 0.5),
    (3, 1, np.nan),
    (3, 0, 0.2),
    (3, 1, 1.0),
    (35, 1, np.nan),
    (35, 0, 0.8),
  ):
    state = update(state, heard([*archs_AxE[a], m], reward))
  expected_AxM = np.zeros((36, 2))
  expected_AxM[3] = 0.02, 0.9 * 0.05 + 0.1
  expected_AxM[35, 0] = 0.08
  np.testing.assert_allclose(state.w_AxM, expected_AxM, rtol=1e-6)
  assert int(state.trained) == 6


def test_t_rises_behind_the_warm_up():
  sampler = mixture(DIGITS, members=2, warmup_steps=2, steps=5, paths=2)
  update, state, seen = jax.jit(sampler.update), sampler.init(), []
  for _ in range(6):
    seen.append(float(state.t))
    for _ in range(2):
      state = update(state, heard([0, 0, 0, 0, 1], np.nan))
  assert seen == pytest.approx([1, 1, 1, 34, 67, 100])
  assert float(state.t) == 100


@pytest.mark.parametrize('dense', [False, True])
def test_frequencies_follow_the_routes(dense):
  count, rng = 20_000, np.random.default_rng(1)
  alpha_A = rng.uniform(1, 3, 81) * dense
  archs = samplers.debiased(
    samplers.uniform(DIGITS, paths=count), DIGITS.enumerate(), paths=count
  )
  sampler = samplers.mixture(archs, DIGITS, members=2, warmup_steps=0, steps=10)
  state = sampler.init()._replace(
    archs=samplers.with_density(archs.init(), alpha_A, 0.7),
    w_AxM=jnp.asarray(rng.uniform(size=(81, 2)), jnp.float32),
    t=jnp.float32(5),
  )
  archs_PxF = np.asarray(quickly(sampler.sample)(state, jax.random.key(0)))
  assert archs_PxF.dtype == np.int32 and archs_PxF.shape == (count, 5)
  share_AxM = np.zeros((81, 2))
  rows_P = DIGITS.index(archs_PxF[:, :-1])
  np.add.at(share_AxM, (rows_P, archs_PxF[:, -1]), 1 / count)
  p_A = np.exp(np.asarray(sampler.log_prob(state), np.float64))
  expected_A = np.exp(-alpha_A / 0.7)
  np.testing.assert_allclose(p_A, expected_A / expected_A.sum(), rtol=1e-5)
  p_AxM = p_A[:, None] * np.asarray(route(state))
  # Five standard errors.
  assert (abs(share_AxM - p_AxM) < 5 * np.sqrt(p_AxM / count)).all()


def test_what_draws_architectures_hears_of_the_member_alone():
  """Importance, debiased: its state is as if there were no mixture."""
  importance = samplers.importance(DIGITS, steps_per_epoch=2, epochs=2)
  archs = samplers.debiased(importance, DIGITS.enumerate())
  sampler = samplers.mixture(
    archs, DIGITS, members=MEMBERS, warmup_steps=0, steps=10
  )
  # A norm for each member.
  kernel_MxD = np.array([[3, 4], [6, 8], [5, 12]], np.float32)
  dense = samplers.with_density(archs.init(), np.arange(81.0), 0.5)
  update, state = jax.jit(sampler.update), sampler.init()
  state, alone = state._replace(archs=dense), dense
  for m, op in ((2, 1), (0, 2), (1, 1)):
    arch_E = jnp.array([op, 0, 0, 0], jnp.int32)

    def feedback(arch, kernel, op=op):
      return Feedback(
        arch, {'position_0': {f'op_{op}': {'kernel': kernel}}}, jnp.float32(0.5)
      )

    state = update(
      state, feedback(jnp.append(arch_E, m), jnp.asarray(kernel_MxD))
    )
    alone = archs.update(alone, feedback(arch_E, jnp.asarray(kernel_MxD[m])))
    same(state.archs, alone)
  # Norm 10, of the epoch's second half, and none of the others'.
  np.testing.assert_allclose(alone.proposal.g_O, [0, 5, 0])
  same(alone.alpha_A, dense.alpha_A)
  expected_AxM = np.zeros((81, MEMBERS))
  expected_AxM[[27, 54, 27], [2, 0, 1]] = 0.05
  np.testing.assert_allclose(state.w_AxM, expected_AxM, rtol=1e-6)


def test_evaluation_takes_the_member_that_serves_an_architecture_best():
  sampler = mixture(POOLING, members=3, warmup_steps=0, steps=10)
  w_AxM = np.random.default_rng(2).uniform(size=(36, 3))
  w_AxM[:, 0] += 0.5
  state = sampler.init()._replace(
    w_AxM=jnp.asarray(w_AxM, jnp.float32), t=jnp.float32(20)
  )
  best_A = np.asarray(route(state)).argmax(axis=1)
  assert {*best_A} == {0, 1, 2}
  # Of the balanced routes, some of which differ from the averages.
  some_K = np.flatnonzero(best_A != w_AxM.argmax(axis=1))[:2]
  assert len(some_K) == 2
  some_K = np.array([30, *some_K[::-1], 2, 2])
  archs_KxE = POOLING.enumerate()[some_K]
  archs_KxF = sampler.route(state, archs_KxE)
  assert archs_KxF.dtype == np.int32
  np.testing.assert_array_equal(archs_KxF[:, :-1], archs_KxE)
  np.testing.assert_array_equal(archs_KxF[:, -1], best_A[some_K])
  # Without members there is nothing to choose.
  assert samplers.uniform(POOLING).route((), archs_KxE) is archs_KxE


def test_the_state_of_what_draws_architectures_within_and_alone():
  archs = samplers.debiased(samplers.uniform(DIGITS), DIGITS.enumerate())
  within = samplers.mixture(
    archs, DIGITS, members=2, warmup_steps=0, steps=10
  ).init()
  assert samplers.archs_state(within) is within.archs
  assert isinstance(within.archs, samplers.DebiasedState)
  assert samplers.archs_state(within.archs) is within.archs
  assert samplers.archs_state(()) == ()


@pytest.mark.parametrize(
  ('space', 'change', 'says'),
  [
    ('mobilenet', {}, 'mobilenet has 2.5e.23, too many'),
    ('digits', {'members': 0}, 'members of sampler mixture is 0'),
    ('digits', {'warmup_steps': 5}, '5 steps of warm-up of 5'),
  ],
)
def test_refuses(space, change, says):
  options = {'members': 2, 'warmup_steps': 0, 'steps': 5} | change
  with pytest.raises(ValueError, match=says):
    mixture(spaces.get(space), **options)


def of(tree, m):
  return jax.tree.map(lambda leaf: np.asarray(leaf)[m], tree)


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other
  )


def images(count):
  shape = (count, *DIGITS.image_shape)
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@functools.cache
def weights(members):
  variables = supernets.init(Mixture(NET, members), (*ARCH, 0), 0)
  return jax.tree.map(np.asarray, variables)


def test_members_start_apart_and_the_first_as_the_net_alone():
  same(of(weights(MEMBERS), 0), supernets.init(NET, ARCH, 0))
  same(of(weights(MEMBERS), 1), of(weights(2), 1))
  for leaf in jax.tree.leaves(weights(MEMBERS)):
    assert (leaf[0] != leaf[1]).any() and (leaf[1] != leaf[2]).any()


def test_a_member_of_digits_is_its_net():
  mixed, x = Mixture(NET, MEMBERS), images(4)
  variables = weights(MEMBERS)
  of_member = jax.jit(
    lambda variables, m: mixed.apply(variables, x, (*ARCH, m), train=True)
  )
  of_net = jax.jit(lambda variables: NET.apply(variables, x, ARCH, train=True))
  for m in range(MEMBERS):
    close(of_member(variables, m), of_net(of(variables, m)))
  apart = np.asarray(of_member(variables, 0) - of_member(variables, 1))
  assert (abs(apart) > 1e-2).any()


def loss(net, params, x, arch):
  logits = net.apply({'params': params}, x, arch, train=True)
  labels_B = jnp.arange(len(x)) % 10
  losses_B = optax.softmax_cross_entropy_with_integer_labels(logits, labels_B)
  return losses_B.mean()


def test_other_members_get_no_gradient_and_are_not_used():
  mixed, x = Mixture(TINY, MEMBERS), images(4)
  params = supernets.init(mixed, np.zeros(2, np.int32), 0)['params']
  of_any = jax.jit(jax.grad(functools.partial(loss, mixed)))
  used_by = jax.jit(mixed.used)
  for op, m in ((0, 0), (1, 2)):
    arch_F = jnp.array([op, m])
    gradient = jax.tree.map(np.asarray, of_any(params, x, arch_F))
    used = jax.tree.map(np.asarray, used_by(params, arch_F))
    for leaf, mask in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(used), strict=True
    ):
      assert mask.shape == (MEMBERS,) + (1,) * (leaf.ndim - 1)
      moved_M = (leaf != 0).any(axis=tuple(range(1, leaf.ndim)))
      np.testing.assert_array_equal(moved_M, mask.ravel())
    assert {int(mask.sum()) for mask in jax.tree.leaves(used)} == {0, 1}
  alone = jax.jit(jax.grad(functools.partial(loss, TINY)), static_argnums=2)
  close(of(gradient, 2), alone(of(params, 2), x, (1,)))


def test_running_statistics_move_in_the_member_alone():
  net = supernets.build(TINY.space, momentum=0.1)
  mixed = Mixture(net, 2)
  variables = supernets.init(mixed, (1, 0), 0)

  def after(net, variables, arch):
    return net.apply(
      variables, images(4), arch, train=True, mutable=['batch_stats']
    )[1]['batch_stats']

  moved = jax.jit(after, static_argnums=(0, 2))(mixed, variables, (1, 1))
  same(of(moved, 0), of(variables['batch_stats'], 0))
  alone = jax.jit(after, static_argnums=(0, 2))(net, of(variables, 1), (1,))
  close(of(moved, 1), alone)


def test_has_what_a_supernet_has():
  mixed = Mixture(NET, 2)
  for name in ('space', 'dtype', 'default_tensors', 'tensor_sets', 'layers'):
    assert getattr(mixed, name) == getattr(NET, name)
  assert not mixed.sequential
  assert {mixed: 1}[Mixture(NET, 2)] == 1
