from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.training.optimizer import AdamW, Sgd, cosine

RNG = np.random.default_rng(0)
PARAMS = {'a': RNG.normal(size=(3, 2)), 'b': RNG.normal(size=4)}
GRADIENTS = [
  {name: RNG.normal(size=leaf.shape) for name, leaf in PARAMS.items()}
  for _ in range(4)
]
# Which parameters each of the four steps uses.
USED = [{'a': True, 'b': i % 2 == 0} for i in range(4)]

OPTIONS = [
  {},
  {'momentum': 0.0},
  {'nesterov': True},
  {'weight_decay': 0.1},
  {'clip_norm': 0.5},
  {'nesterov': True, 'weight_decay': 0.1, 'clip_norm': 2.0},
]


def run(kind=Sgd, used_in=USED, **options):
  optimizer = kind(0.1, **options)
  params = {name: jnp.asarray(leaf) for name, leaf in PARAMS.items()}
  state = optimizer.init(params)
  for gradient, used in zip(GRADIENTS, used_in, strict=True):
    gradient = {
      name: jnp.asarray(leaf, jnp.float32) * used[name]
      for name, leaf in gradient.items()
    }
    updates, state = optimizer.update(
      gradient, state, params, used={k: jnp.bool_(v) for k, v in used.items()}
    )
    params = optax.apply_updates(params, updates)
  return params


def by_hand(momentum=0.9, nesterov=False, weight_decay=0.0, clip_norm=None):
  """PyTorch's rule as its documentation states it; absent gradients skipped."""
  params = {name: leaf.copy() for name, leaf in PARAMS.items()}
  buffers = {name: np.zeros_like(leaf) for name, leaf in PARAMS.items()}
  for gradient, used in zip(GRADIENTS, USED, strict=True):
    norm = np.sqrt(
      sum(np.sum(g**2) for name, g in gradient.items() if used[name])
    )
    scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    for name in params:
      if used[name]:
        g = gradient[name] * scale + weight_decay * params[name]
        buffers[name] = momentum * buffers[name] + g
        step = g + momentum * buffers[name] if nesterov else buffers[name]
        params[name] -= 0.1 * step
  return params


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equals_the_rule_by_hand(options):
  ours, theirs = run(**options), by_hand(**options)
  for name in PARAMS:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equals_pytorch(options):
  torch = pytest.importorskip('torch', reason='the twin needs the torch extra')
  given = {'momentum': 0.9, **options}
  clip_norm = given.pop('clip_norm', None)
  params = {n: torch.tensor(p, requires_grad=True) for n, p in PARAMS.items()}
  optimizer = torch.optim.SGD(params.values(), lr=0.1, **given)
  for gradient, used in zip(GRADIENTS, USED, strict=True):
    for name, param in params.items():
      param.grad = torch.tensor(gradient[name]) if used[name] else None
    if clip_norm is not None:
      torch.nn.utils.clip_grad_norm_(params.values(), clip_norm)
    optimizer.step()
  ours = run(**options)
  for name, param in params.items():
    np.testing.assert_allclose(
      ours[name], param.detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_unused_parameters_stay_exactly_or_move_where_asked():
  before = {name: jnp.asarray(leaf) for name, leaf in PARAMS.items()}
  nothing = {name: jnp.zeros_like(leaf) for name, leaf in before.items()}
  used = {'a': jnp.bool_(True), 'b': jnp.bool_(False)}
  for freeze in (True, False):
    optimizer = Sgd(0.1, weight_decay=0.1, freeze_unused=freeze)
    state = optimizer.init(before)
    updates, _ = optimizer.update(nothing, state, before, used=used)
    assert bool((updates['b'] == 0).all()) == freeze
    assert not (updates['a'] == 0).any()


@pytest.mark.parametrize('freeze', [True, False])
@pytest.mark.parametrize('nesterov', [False, True])
def test_momentum_is_updated_in_place(nesterov, freeze):
  """And not copied first, for what moves to be made from what was."""
  optimizer = Sgd(0.1, nesterov=nesterov, freeze_unused=freeze)
  params = {name: jnp.zeros((64, 64)) for name in PARAMS}

  @partial(jax.jit, donate_argnums=(1, 2))
  def step(gradient, state, params, used):
    updates, state = optimizer.update(gradient, state, params, used=used)
    return state, optax.apply_updates(params, updates)

  used = {name: jnp.bool_(True) for name in PARAMS}
  compiled = step.lower(params, optimizer.init(params), params, used).compile()
  assert 'f32[64,64]{1,0} copy(' not in compiled.as_text()
  assert compiled.memory_analysis().temp_size_in_bytes < params['a'].nbytes


def test_cosine_from_peak_to_floor():
  schedule = cosine(0.1, 0.001, 100)
  assert schedule(0) == pytest.approx(0.1)
  assert schedule(50) == pytest.approx((0.1 + 0.001) / 2)
  assert schedule(100) == pytest.approx(0.001)
  lrs = [float(schedule(step)) for step in range(101)]
  assert lrs == sorted(lrs, reverse=True)


@pytest.mark.parametrize('held', [1, 5])
def test_every_cycle_is_a_cosine_of_its_own(held):
  found = [
    float(cosine(0.1, 0.01, 60, cycles=3, steps_per_update=held)(step))
    for step in range(70)
  ]
  one = [
    float(cosine(0.1, 0.01, 20, steps_per_update=held)(step))
    for step in range(30)
  ]
  # Beyond the end it stays low, as that of one cycle does.
  assert found == one[:20] * 2 + one
  np.testing.assert_allclose(found[60:], 0.01, rtol=1e-6)
  phase = 11 // held * held / 20
  assert found[31] == pytest.approx(
    0.01 + 0.045 * (1 + np.cos(np.pi * phase)), rel=1e-5
  )


def test_cosine_by_epoch_is_constant_within_one():
  by_epoch, by_step = (
    cosine(0.1, 0.0, 100, steps_per_update=10),
    cosine(0.1, 0.0, 100),
  )
  for step in range(100):
    assert by_epoch(step) == by_step(step // 10 * 10)


def test_warm_up_rises_linearly():
  schedule, full = cosine(0.1, 0.0, 100, warmup_steps=10), cosine(0.1, 0.0, 100)
  for step in range(10):
    assert schedule(step) == pytest.approx(full(step) * (step + 1) / 10)
  assert schedule(10) == full(10)


@pytest.mark.parametrize(
  ('make', 'decay', 'moved'), [(Sgd, 0.1, -0.01), (AdamW, 0.5, -0.05)]
)
def test_only_weights_decay_where_asked(make, decay, moved):
  before = {'kernel': jnp.ones(3), 'norm': {'scale': jnp.ones(3)}}
  nothing = jax.tree.map(jnp.zeros_like, before)
  used = jax.tree.map(lambda leaf: jnp.bool_(True), before)
  for everything in (True, False):
    optimizer = make(0.1, weight_decay=decay, decay_all=everything)
    updates, _ = optimizer.update(
      nothing, optimizer.init(before), before, used=used
    )
    np.testing.assert_allclose(updates['kernel'], moved, rtol=1e-6)
    assert bool((updates['norm']['scale'] != 0).all()) == everything


ADAMW = [
  {},
  {'beta1': 0.0},
  {'epsilon': 0.1},
  {'weight_decay': 0.5},
  {'weight_decay': 0.5, 'clip_norm': 0.5, 'beta2': 0.9},
]


def adamw_by_hand(
  beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, clip_norm=None
):
  """Loshchilov and Hutter's rule, where absent gradients are skipped."""
  params = {name: leaf.copy() for name, leaf in PARAMS.items()}
  mean, square = (
    {n: np.zeros_like(p) for n, p in PARAMS.items()} for _ in '12'
  )
  updates = dict.fromkeys(PARAMS, 0)
  for gradient, used in zip(GRADIENTS, USED, strict=True):
    norm = np.sqrt(sum(np.sum(g**2) for n, g in gradient.items() if used[n]))
    scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    for name in params:
      if used[name]:
        g = gradient[name] * scale
        updates[name] += 1
        mean[name] = beta1 * mean[name] + (1 - beta1) * g
        square[name] = beta2 * square[name] + (1 - beta2) * g**2
        m = mean[name] / (1 - beta1 ** updates[name])
        v = square[name] / (1 - beta2 ** updates[name])
        params[name] -= 0.1 * (
          m / (np.sqrt(v) + epsilon) + weight_decay * params[name]
        )
  return params


@pytest.mark.parametrize('options', ADAMW, ids=str)
def test_adamw_equals_the_rule_by_hand(options):
  ours, theirs = run(AdamW, **options), adamw_by_hand(**options)
  for name in PARAMS:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('options', ADAMW, ids=str)
def test_adamw_equals_pytorch(options):
  torch = pytest.importorskip('torch', reason='the twin needs the torch extra')
  given = {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8, 'weight_decay': 0.0}
  given |= options
  clip_norm = given.pop('clip_norm', None)
  params = {n: torch.tensor(p, requires_grad=True) for n, p in PARAMS.items()}
  optimizer = torch.optim.AdamW(
    params.values(),
    lr=0.1,
    betas=(given['beta1'], given['beta2']),
    eps=given['epsilon'],
    weight_decay=given['weight_decay'],
  )
  for gradient, used in zip(GRADIENTS, USED, strict=True):
    for name, param in params.items():
      param.grad = torch.tensor(gradient[name]) if used[name] else None
    if clip_norm is not None:
      torch.nn.utils.clip_grad_norm_(params.values(), clip_norm)
    optimizer.step()
  ours = run(AdamW, **options)
  for name, param in params.items():
    np.testing.assert_allclose(
      ours[name], param.detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_adamw_equals_optax_where_all_is_used():
  always = [dict.fromkeys(PARAMS, True)] * len(GRADIENTS)
  ours = run(AdamW, always, weight_decay=0.5)
  optimizer = optax.adamw(0.1, weight_decay=0.5)
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = optimizer.init(params)
  for gradient in GRADIENTS:
    updates, state = optimizer.update(
      jax.tree.map(jnp.asarray, gradient), state, params
    )
    params = optax.apply_updates(params, updates)
  for name in PARAMS:
    np.testing.assert_allclose(ours[name], params[name], rtol=1e-5)


@pytest.mark.parametrize('freeze', [True, False])
def test_adamw_leaves_what_is_unused_exactly(freeze):
  """A leaf with parts, such as a mixture's members, is left part by part."""
  params = {'a': jnp.ones((2, 3)), 'b': jnp.ones((2, 3))}
  optimizer = AdamW(0.1, weight_decay=0.5, freeze_unused=freeze)
  every = {'a': jnp.ones((2, 1), bool), 'b': jnp.bool_(True)}
  some = {'a': jnp.array([[True], [False]]), 'b': jnp.bool_(False)}
  state = optimizer.init(params, every)
  _, state = optimizer.update(params, state, params, used=every)
  updates, after = optimizer.update(params, state, params, used=some)
  assert int(after.step) == 2
  moved = {
    'a': (updates['a'][1] != 0).any(),
    'b': (updates['b'] != 0).any(),
    'mean': (after.mean['b'] != state.mean['b']).any(),
    'square': (after.square['a'][1] != state.square['a'][1]).any(),
    'updates': int(after.updates['b']) == 2
    or int(after.updates['a'][1, 0]) == 2,
  }
  assert [*map(bool, moved.values())] == [not freeze] * len(moved), moved
  assert (updates['a'][0] != 0).all() and int(after.updates['a'][0, 0]) == 2
