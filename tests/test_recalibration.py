"""Statistics of batch normalisation: of PyTorch, of static nets, by hand."""

import contextlib
import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxnas import config, supernets
from jaxnas.config import run_flags, run_folder, validation
from jaxnas.experiment import build, ranking, trained
from jaxnas.runtime import files, seals
from jaxnas.supernets import recalibration
from support import small_run
from support.runs import metrics
from support.small_run import SPACE, ARCHS_AxE
from support.small_spaces import SMALL_CELLS, SMALL_POOLING

pytestmark = pytest.mark.usefixtures('small_space')

NET = supernets.build(SPACE)


def images(space, *shape, seed=0):
  """Far from zero mean and unit variance."""
  rng = np.random.default_rng(seed)
  x = rng.normal(1, 3, size=(*shape, *space.image_shape))
  # Networks tell apart what differs in more than noise.
  x += np.abs(x) * rng.normal(0, 2, size=(*shape, 1, 1, 1))
  return jnp.asarray(x, jnp.float32)


def flat(tree):
  return {
    name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep='/').items()
  }


@functools.cache
def weights(net):
  arch_E = np.zeros(
    net.space.positions + isinstance(net, supernets.Mixture), int
  )
  return supernets.init(net, arch_E.astype(np.int32), 0)['params']


@functools.cache
def measured(net):
  """(params, arch_E, images, x) -> statistics, logits."""

  @jax.jit
  def of(params, arch_E, calibration_NxBxHxWxC, x):
    frozen = recalibration.statistics(
      net, params, arch_E, calibration_NxBxHxWxC
    )
    return frozen, recalibration.logits(net, params, frozen, x, arch_E)

  return of


def static_mean(space, params, arch, images_NxBxHxWxC):
  """Mean over batches of a static network's batch statistics."""
  net = supernets.build(space, momentum=1.0)
  first = supernets.init(net, arch, 0)['batch_stats']

  @jax.jit
  def of_batch(x):
    _, changed = net.apply(
      {'params': params, 'batch_stats': first},
      x,
      arch,
      train=True,
      mutable=['batch_stats'],
    )
    return changed['batch_stats']

  all_of = [flat(of_batch(x)) for x in images_NxBxHxWxC]
  return {
    name: np.mean([of[name] for of in all_of], axis=0) for name in all_of[0]
  }


class Torch:
  """The small space in PyTorch, whose norms average what they see."""

  def __init__(self, torch, params):
    self.torch, self.params = torch, flat(params)
    self.norms = {}

  def conv(self, path, x, stride=1):
    kernel = self.torch.tensor(self.params[f'{path}/kernel'])
    groups = 1
    if kernel.ndim == 2:
      weight = kernel.T[:, :, None, None]
    elif kernel.ndim == 3:
      weight, groups = kernel.permute(2, 0, 1)[:, None], kernel.shape[-1]
    else:
      weight = kernel.permute(3, 2, 0, 1)
    return self.torch.nn.functional.conv2d(
      x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups
    )

  def norm(self, path, x):
    if path not in self.norms:
      self.norms[path] = self.torch.nn.BatchNorm2d(
        x.shape[1], affine=False, momentum=None
      )
    return self.norms[path](x)

  def __call__(self, x_BxHxWxC, arch_E):
    relu = self.torch.relu
    x = self.torch.tensor(np.array(x_BxHxWxC)).permute(0, 3, 1, 2)
    x = relu(self.norm('stem/norm', self.conv('stem/conv', x)))
    for e, (op, layer) in enumerate(zip(arch_E, SPACE.layers, strict=True)):
      at, y = f'position_{e}/op_{op}', x
      if op:
        if f'{at}/expand/kernel' in self.params:
          y = relu(self.norm(f'{at}/expand_norm', self.conv(f'{at}/expand', y)))
        y = self.conv(f'{at}/depthwise', y, layer.stride)
        y = relu(self.norm(f'{at}/depthwise_norm', y))
        y = self.norm(f'{at}/project_norm', self.conv(f'{at}/project', y))
        x = y + x if layer.keeps_shape else y
      elif not layer.keeps_shape:
        y = self.conv(f'{at}/project', x, layer.stride)
        x = self.norm(f'{at}/project_norm', y)
    x = relu(self.norm('head/norm', self.conv('head/conv', x)))
    linear = 'head/linear/kernel', 'head/linear/bias'
    kernel, bias = (self.torch.tensor(self.params[name]) for name in linear)
    return x.mean((2, 3)) @ kernel + bias


@pytest.mark.parametrize('arch', [(0, 2, 0), (1, 0, 2), (2, 1, 1)])
def test_statistics_are_those_that_pytorch_averages(arch):
  torch = pytest.importorskip('torch', reason='the twin needs the torch extra')
  arch_E, params = np.array(arch, np.int32), weights(NET)
  calibration, x = images(SPACE, 3, 10), images(SPACE, 10, seed=1)
  frozen, logits_BxK = measured(NET)(params, arch_E, calibration, x)
  twin = Torch(torch, params)
  with torch.no_grad():
    for batch in calibration:
      twin(batch, arch)
    for norm in twin.norms.values():
      norm.eval()
    expected_BxK = twin(x, arch).numpy()
  expected = {}
  for path, norm in twin.norms.items():
    expected[f'{path}/mean'] = norm.running_mean.numpy()
    expected[f'{path}/var'] = norm.running_var.numpy()
  found = flat(frozen)
  assert {name for name, leaf in found.items() if leaf.any()} == {*expected}
  for name, leaf in found.items():
    np.testing.assert_allclose(
      leaf, expected.get(name, 0 * leaf), rtol=1e-4, atol=1e-5, err_msg=name
    )
  np.testing.assert_allclose(logits_BxK, expected_BxK, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('space', 'arch'),
  [
    (SPACE, (2, 0, 1)),
    pytest.param(SMALL_POOLING, (0, 1, 1, 0), marks=pytest.mark.slow),
    pytest.param(SMALL_CELLS, (4, 0, 2, 1, 3, 2), marks=pytest.mark.slow),
  ],
  ids=lambda value: getattr(value, 'name', ''),
)
def test_statistics_and_logits_are_those_of_the_static_network(space, arch):
  net = supernets.build(space)
  params, arch_E = weights(net), np.array(arch, np.int32)
  count = 2 if space is not SPACE else 3
  calibration, x = images(space, count, 10), images(space, 10, seed=1)
  frozen, logits_BxK = measured(net)(params, arch_E, calibration, x)
  expected, found = static_mean(space, params, arch, calibration), flat(frozen)
  assert {*expected} <= {*found}
  for name, leaf in found.items():
    np.testing.assert_allclose(
      leaf, expected.get(name, 0 * leaf), rtol=1e-4, atol=1e-5, err_msg=name
    )
  alone = supernets.StandAlone(supernets.build(space, momentum=0.1), arch)
  of_static_BxK = jax.jit(
    lambda x: alone.apply(
      {'params': params, 'batch_stats': frozen}, x, None, train=False
    )
  )(x)
  np.testing.assert_allclose(logits_BxK, of_static_BxK, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_of_a_mixture_the_member_is_measured():
  mixed = supernets.Mixture(NET, 2)
  params = weights(mixed)
  calibration, x = images(SPACE, 3, 10), images(SPACE, 10, seed=1)
  seen = []
  for m in range(2):
    member = jax.tree.map(lambda leaf, m=m: leaf[m], params)
    found = measured(mixed)(params, np.array([2, 0, 1, m]), calibration, x)
    alone = measured(NET)(member, np.array([2, 0, 1], np.int32), calibration, x)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      found,
      alone,
    )
    seen.append(np.asarray(found[1]))
  assert abs(seen[0] - seen[1]).max() > 1e-2


# Of a run.


def logits_of(experiment, variables, x):
  net = experiment.trained_net
  return jax.jit(
    lambda arch_E: net.apply(variables, x, arch_E, train=False).argmax(-1)
  )


def test_running_statistics_rank(small):
  experiment, state = small_run.loaded(small, bn='running')
  found_A = ranking.accuracies(experiment, state, ARCHS_AxE, label=None)
  split = experiment.held_out.ranking
  x, y_B = split.batch(np.arange(30))
  assert {*state.variables} == {'params', 'batch_stats'}
  of_arch = logits_of(experiment, state.variables, x)
  expected_A = [float((of_arch(a_E) == y_B).mean()) for a_E in ARCHS_AxE]
  np.testing.assert_allclose(found_A, expected_A, atol=1e-6)
  by_batch_A = files.read_npz(small / 'predictions.npz')['accuracy_A']
  assert (found_A != by_batch_A).any() and len({*expected_A}) > 2


def test_recalibration_ranks_by_the_first_training_images(small):
  experiment, state = small_run.loaded(small, bn='recalibrate')
  found_A = ranking.accuracies(experiment, state, ARCHS_AxE, label=None)
  # Twenty batches where it is not said how many.
  split = experiment.held_out.calibration
  assert len(split) == 500
  calibration = jnp.stack(
    [split.batch(np.arange(25) + 25 * n)[0] for n in range(20)]
  )
  x, y_B = experiment.held_out.ranking.batch(np.arange(30))
  of = measured(experiment.net)
  expected_A = [
    (of(state.params, a_E, calibration, x)[1].argmax(-1) == y_B).mean()
    for a_E in ARCHS_AxE
  ]
  np.testing.assert_allclose(found_A, expected_A, atol=1e-6)
  assert len({*found_A.tolist()}) > 2
  # They are the first of a shuffle of their own.
  fewer, _ = small_run.loaded(small, bn='recalibrate', calibration_batches=2)
  assert len(fewer.held_out.calibration) == 50
  np.testing.assert_array_equal(
    fewer.held_out.calibration.batch(np.arange(50))[0],
    split.batch(np.arange(50))[0],
  )


def after_steps(given, count=3):
  """The state of a run after some steps."""
  experiment = build.experiment(given)
  state = experiment.init_state()
  with contextlib.closing(experiment.training.feed(given.seed, 0)) as feed:
    for inputs in itertools.islice(feed, count):
      state, _ = experiment.step_fn(state, inputs)
  return state


def same_but_for_statistics(kept, without):
  assert kept.statistics and not without.statistics
  for name in ('step', 'params', 'optimizer', 'sampler', 'samples'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(kept, name), getattr(without, name)
    )


def test_statistics_beside_them_change_no_step(small):
  given = run_folder.read_config(small)
  plain = dataclasses.replace(given.supernet, bn_running=False)
  without = dataclasses.replace(given, supernet=plain)
  same_but_for_statistics(after_steps(given), after_steps(without))
  with pytest.raises(ValueError, match='bn running needs statistics'):
    trained.load(
      small,
      without,
      run_flags.Ranking(images=30, batch_size=10, bn='running'),
    )


@pytest.mark.slow
def test_statistics_beside_it_change_nothing_that_is_trained(small, tmp_path):
  other = small_run.train_in(tmp_path, '--supernet.no_bn_running')
  (_, kept), (_, without) = small_run.loaded(small), small_run.loaded(other)
  same_but_for_statistics(kept, without)
  assert metrics(small) == metrics(other)
  for name in ('predictions.npz', 'samples.npz'):
    one, two = files.read_npz(small / name), files.read_npz(other / name)
    # They are of two configurations, and say so.
    for key in {*one} - {seals.FACTS}:
      np.testing.assert_array_equal(one[key], two[key])


def test_a_result_says_how_it_was_normalised(small):
  result = json.loads((small / 'correlation.json').read_text())
  assert result['bn'] == 'batch' and 'calibration_images' not in result


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'bn': 'running'}, 'ranking.bn running needs statistics'),
    ({'calibration_batches': 3}, 'ranking.calibration_batches is of'),
    ({'bn': 'recalibrate', 'calibration_batches': 0}, 'it must be at least 1'),
  ],
)
def test_settings_at_odds_are_refused(fields, says):
  given = config.Config(ranking=config.Ranking(**fields))
  with pytest.raises(ValueError, match=says):
    validation.validate(given)


def test_more_calibration_than_training_images_is_refused():
  given = config.Config(
    data=config.Data(batch_size=100),
    ranking=config.Ranking(bn='recalibrate', calibration_batches=6),
  )
  validation.validate(given)
  with pytest.raises(ValueError, match='is 600; there are 500 training images'):
    build.experiment(given)
