"""Path and data importance, by hand and against loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces, supernets, train
from jaxnas.data import importance as images
from jaxnas.samplers.base import Feedback
from jaxnas.samplers.importance import importance
from jaxnas.samplers.uniform import uniform
from support.runs import final_state, flags_in

DIGITS = spaces.get('digits')

note = jax.jit(images.note)


def heard(arch, leaves):
  """Feedback with these leaves and others that are zero.

  leaves: (position, op, name) -> numbers, or 'stem' -> numbers.
  """

  def leaf(where, count):
    return np.array(leaves.get(where, [0] * count), np.float32)

  gradient = {
    f'position_{e}': {
      f'op_{o}': {
        'a': {'kernel': leaf((e, o, 'a/kernel'), 2)},
        'b': {'bias': leaf((e, o, 'b/bias'), 1)},
      }
      for o in (1, 2)
    }
    for e in range(4)
  }
  gradient['stem'] = {'kernel': leaf('stem', 4)}
  return Feedback(jnp.array(arch, jnp.int32), gradient, jnp.float32(jnp.nan))


FIRST = heard(
  [0, 1, 1, 2],
  {
    (1, 1, 'a/kernel'): [3, 4],
    (1, 1, 'b/bias'): [1],
    (2, 1, 'a/kernel'): [0, 2],
    (3, 2, 'a/kernel'): [6, 8],
    'stem': [6, 1, 1, 1],
  },
)


def test_a_trace_by_hand():
  sampler = importance(DIGITS, steps_per_epoch=2, epochs=2)
  update = jax.jit(sampler.update)
  state = sampler.init()
  third = [1 / 3] * 3
  # Sum of op 1's norms 5 + 1 + 2 over two positions; op 2's is 10. Op 0 has
  # no parameters.
  state = update(state, FIRST)
  np.testing.assert_allclose(state.g_O, [0, 2, 5], rtol=1e-6)
  np.testing.assert_allclose(state.p_O, third, rtol=1e-6)
  # g_1 = (2 + 6) / 2; op 2 is not used and stays. The epoch ends with t = 1/2.
  state = update(state, heard([0, 0, 0, 1], {(3, 1, 'a/kernel'): [6, 0]}))
  np.testing.assert_array_equal(state.g_O, [0, 0, 0])
  np.testing.assert_allclose(state.p_O, [3 / 18, 7 / 18, 8 / 18], rtol=1e-6)
  # g starts from 0: op 2 has (5 + 7) / 2 at its positions.
  leaves = {(0, 2, 'a/kernel'): [3, 4], (1, 2, 'a/kernel'): [7, 0]}
  state = update(state, heard([2, 2, 0, 0], leaves))
  np.testing.assert_allclose(state.g_O, [0, 0, 3], rtol=1e-6)
  np.testing.assert_allclose(state.p_O, [3 / 18, 7 / 18, 8 / 18], rtol=1e-6)
  # g = (0, (0 + 2) / 2, (3 + 5) / 2), and t = 1.
  leaves = {(0, 1, 'a/kernel'): [2, 0], (1, 2, 'a/kernel'): [0, 5]}
  state = update(state, heard([1, 2, 0, 0], leaves))
  np.testing.assert_allclose(state.p_O, [0, 0.2, 0.8], rtol=1e-6)
  assert int(state.trained) == 4


@pytest.mark.parametrize(
  ('clip_norm', 'expected'), [(6.5, [0, 1, 2.5]), (13.5, [0, 2, 5])]
)
def test_norms_are_those_of_the_clipped_gradient(clip_norm, expected):
  # Squares of FIRST: 25 + 1 + 4 + 100 + 39 = 13^2.
  sampler = importance(DIGITS, steps_per_epoch=9, epochs=1, clip_norm=clip_norm)
  state = jax.jit(sampler.update)(sampler.init(), FIRST)
  np.testing.assert_allclose(state.g_O, expected, rtol=1e-6)


def test_every_path_counts_towards_the_epoch():
  sampler = importance(DIGITS, paths=3, steps_per_epoch=1, epochs=1)
  update, state = jax.jit(sampler.update), sampler.init()
  for _ in range(2):
    state = update(state, FIRST)
  np.testing.assert_allclose(state.p_O, [1 / 3] * 3, rtol=1e-6)
  state = update(state, FIRST)
  # s is (0, 4, 10) thrice.
  np.testing.assert_allclose(state.p_O, [0, 2 / 7, 5 / 7], rtol=1e-6)


def test_an_epoch_without_gradients_is_uniform():
  sampler = importance(DIGITS, steps_per_epoch=1, epochs=1)
  state = jax.jit(sampler.update)(sampler.init(), heard([0, 0, 0, 0], {}))
  np.testing.assert_allclose(state.p_O, [1 / 3] * 3, rtol=1e-6)


def test_finds_the_ops_of_a_supernet():
  space = spaces.get('nas_bench_201')
  some_arch_E = np.zeros(space.positions, np.int32)
  params = supernets.shapes(supernets.build(space), some_arch_E)['params']
  ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), params)
  sampler = importance(space, steps_per_epoch=99, epochs=1)
  heard = Feedback(jnp.arange(6) % 5, ones, jnp.float32(jnp.nan))
  state = jax.jit(sampler.update)(sampler.init(), heard)
  # The two convolutions.
  np.testing.assert_array_equal(np.flatnonzero(state.g_O), [2, 3])


def test_probabilities_are_products_and_frequencies_follow():
  sampler = importance(DIGITS, paths=20_000, steps_per_epoch=1, epochs=1)
  p_O = np.array([0.1, 0.3, 0.6])
  state = sampler.init()._replace(p_O=jnp.asarray(p_O, jnp.float32))
  p_A = np.exp(np.asarray(sampler.log_prob(state), np.float64))
  expected_A = [np.prod([p_O[o] for o in row]) for row in DIGITS.enumerate()]
  np.testing.assert_allclose(p_A, expected_A, rtol=1e-5)
  assert p_A.sum() == pytest.approx(1, abs=1e-5)
  archs_PxE = np.asarray(sampler.sample(state, jax.random.key(0)))
  assert archs_PxE.dtype == np.int32
  share_A = np.bincount(DIGITS.index(archs_PxE), minlength=81) / 20_000
  # Five standard errors.
  assert (abs(share_A - p_A) < 5 * np.sqrt(p_A / 20_000)).all()


def test_probabilities_sum_to_one_and_faded_ops_are_not_drawn():
  sampler = importance(DIGITS, paths=50, steps_per_epoch=3, epochs=4)
  rng = np.random.default_rng(0)
  update, state, seen = jax.jit(sampler.update), sampler.init(), []
  for trained in range(1, 50 * 12 + 1):
    arch = rng.integers(0, 3, 4)
    leaves = {
      (e, int(o), 'a/kernel'): rng.normal(size=2)
      for e, o in enumerate(arch)
      if o
    }
    state = update(state, heard(arch, leaves))
    if trained % 150 == 0:
      assert float(state.p_O.sum()) == pytest.approx(1, abs=1e-6)
      logp_A = np.asarray(sampler.log_prob(state), np.float64)
      assert np.exp(logp_A).sum() == pytest.approx(1, abs=1e-5)
      seen.append(float(state.p_O[0]))
  np.testing.assert_allclose(seen, [1 / 4, 1 / 6, 1 / 12, 0], atol=1e-6)
  assert (sampler.sample(state, jax.random.key(0)) > 0).all()


def test_a_space_too_large_to_list_has_no_probabilities():
  space = spaces.get('mobilenet')
  sampler = importance(space, paths=2, steps_per_epoch=1, epochs=1)
  assert sampler.log_prob(sampler.init()) is None
  archs_PxE = np.asarray(
    jax.jit(sampler.sample)(sampler.init(), jax.random.key(0))
  )
  space.validate(archs_PxE)
  assert archs_PxE.shape == (2, 21)


@pytest.mark.parametrize(
  ('name', 'says'),
  [
    ('pooling', "of pooling's 512 combinations only 36 are"),
    ('mobilenet_strict', 'position 1 of mobilenet_strict offers other ops'),
  ],
)
def test_refuses_other_spaces(name, says):
  with pytest.raises(ValueError, match=f'sampler importance .*{says}'):
    importance(spaces.get(name), steps_per_epoch=1, epochs=1)


def test_data_alone_leaves_architectures_uniform():
  """In spaces too where ops could not be drawn by importance."""
  space = spaces.get('pooling')
  sampler = importance(
    space, paths=5, steps_per_epoch=0, epochs=0, variant='data'
  )
  plain = uniform(space, paths=5)
  assert sampler.init() == () and sampler.update((), FIRST) == ()
  np.testing.assert_array_equal(sampler.log_prob(()), plain.log_prob(()))
  key = jax.random.key(0)
  np.testing.assert_array_equal(sampler.sample((), key), plain.sample((), key))


def test_paths_are_drawn_alike_whatever_draws_images():
  states = []
  for variant in ('both', 'path'):
    sampler = importance(DIGITS, steps_per_epoch=1, epochs=1, variant=variant)
    states.append(sampler.update(sampler.init(), FIRST))
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert np.ptp(states[0].p_O) > 0


def test_refuses_other_variants():
  says = "no variant 'paths'; there are both, path, data"
  with pytest.raises(ValueError, match=says):
    importance(DIGITS, steps_per_epoch=1, epochs=1, variant='paths')


@pytest.mark.parametrize('wrong', ['steps_per_epoch', 'epochs'])
def test_refuses_runs_without_steps(wrong):
  with pytest.raises(ValueError, match=f'{wrong} of .* is 0; it must be 1'):
    importance(DIGITS, **({'steps_per_epoch': 1, 'epochs': 1} | {wrong: 0}))


def by_hand(score, seen, indices, logits, labels):
  """`note` with loops over images and their duplicates."""
  sights = {}
  for n, z, y in zip(indices, logits.astype(float), labels, strict=True):
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    p[y] -= 1
    sights.setdefault(int(n), []).append(np.sqrt((p**2).sum()))
  for n, h in sights.items():
    new = sum(h) / len(h)
    score[n] = (score[n] + new) / 2 if seen[n] else new
    seen[n] = True


def test_scores_equal_the_loop_in_numpy():
  rng, count = np.random.default_rng(0), 12
  state = images.init(count)
  score, seen = np.ones(count), np.zeros(count, bool)
  for epoch in range(1, 4):
    for _ in range(2):
      # Nine of at most ten images: most batches hold some twice.
      indices = rng.integers(0, 10, 9).astype(np.int32)
      logits = rng.normal(size=(9, 5), scale=3).astype(np.float32)
      labels = rng.integers(0, 5, 9).astype(np.int32)
      state = note(state, *map(jnp.asarray, (indices, logits, labels)))
      by_hand(score, seen, indices, logits, labels)
      np.testing.assert_allclose(state.score_N, score, rtol=1e-5)
      np.testing.assert_array_equal(state.seen_N, seen)
    assert not seen.all()
    t = epoch / 3
    state = images.end_epoch(state, jnp.float32(t))
    seen[:] = False
    np.testing.assert_array_equal(state.seen_N, seen)
    np.testing.assert_allclose(
      state.weight_N, t * score / score.sum() + (1 - t) / count, rtol=1e-5
    )
    assert float(state.weight_N.sum()) == pytest.approx(1, abs=1e-6)


def test_a_score_by_hand():
  # softmax (3/4, 1/4); the errors are (-1/4, 1/4) and (3/4, -3/4).
  logits_BxK = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]]))
  indices_B, labels_B = jnp.array([2, 0]), jnp.array([0, 1])
  state = note(images.init(3), indices_B, logits_BxK, labels_B)
  expected = [0.75 * np.sqrt(2), 1, 0.25 * np.sqrt(2)]
  np.testing.assert_allclose(state.score_N, expected, rtol=1e-6)
  state = note(state, jnp.array([0]), logits_BxK[:1], labels_B[:1])
  assert float(state.score_N[0]) == pytest.approx(0.5 * np.sqrt(2))


def test_the_order_of_a_batch_does_not_matter():
  rng = np.random.default_rng(1)
  indices_B = jnp.asarray(rng.integers(0, 3, 40), jnp.int32)
  logits_BxK = jnp.asarray(rng.normal(size=(40, 5)), jnp.float32)
  labels_B = jnp.asarray(rng.integers(0, 5, 40), jnp.int32)
  one = note(images.init(3), indices_B, logits_BxK, labels_B)
  other = note(
    images.init(3), indices_B[::-1], logits_BxK[::-1], labels_B[::-1]
  )
  np.testing.assert_allclose(one.score_N, other.score_N, rtol=1e-6)


def test_scores_of_zero_draw_uniformly():
  state = images.init(4)._replace(score_N=jnp.zeros(4))
  np.testing.assert_allclose(images.end_epoch(state, 1.0).weight_N, 0.25)


def test_draws_follow_the_weights():
  weight_N = np.array([0.0, 0.5, 0.2, 0.3, 0.0])
  state = images.init(5)._replace(weight_N=jnp.asarray(weight_N, jnp.float32))
  indices_B = images.draw(state, jax.random.key(0), 20_000)
  assert indices_B.dtype == jnp.int32
  share_N = np.bincount(np.asarray(indices_B), minlength=5) / 20_000
  # Five standard errors: an image without weight is never drawn.
  assert (abs(share_N - weight_N) <= 5 * np.sqrt(weight_N / 20_000)).all()
  again_B = images.draw(state, jax.random.key(0), 20_000)
  np.testing.assert_array_equal(indices_B, again_B)


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['both', 'path', 'data'])
def test_a_run_draws_by_what_it_was_told(tmp_path, variant):
  flags, run = flags_in(tmp_path)
  flags += ['--sampler.name', 'importance', '--sampler.variant', variant]
  train.main([*flags, '--debias.temperature', 'None'])
  state = final_state(run)
  if variant == 'path':
    assert state.images == ()
  else:
    score_N, seen_N, weight_N = map(np.asarray, state.images)
    # 5 batches of 100 of 500 images, with replacement: 1 - 1/e of them.
    assert 250 < seen_N.sum() < 380
    # What the last epoch has not seen has the score that it is drawn by: q is
    # 2/3 of its share, and 1/3 of 1/500.
    share_N = (weight_N - 1 / 3 / 500) / (2 / 3)
    total_N = (score_N / share_N)[~seen_N]
    np.testing.assert_allclose(total_N, total_N[0], rtol=1e-4)
    assert np.ptp(score_N[~seen_N]) > 0.05
  if variant != 'data':
    assert np.ptp(state.sampler.proposal.p_O) > 0.1
