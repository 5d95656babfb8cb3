"""Costs of runs, by hand for small ones, and budgets that make them equal."""

import dataclasses
import functools
import importlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import density, samplers, spaces, supernets
from jaxnas.config import Config, Data, Debias, Density, Ranking, Sampler
from jaxnas.experiment import build, cost, datasets, debias, schedule
from jaxnas.experiment import run as training
from jaxnas.runtime.devices import Chunk
from jaxnas.runtime.rng import generator
from jaxnas.supernets import evaluation

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()
# 5 steps an epoch of 500 images, 15 steps in all.
UNDEBIASED = Config(
  warmup_epochs=1,
  epochs=2,
  data=Data(batch_size=100),
  density=Density(batch_size=50),
  ranking=Ranking(images=100),
)
DEBIASED = dataclasses.replace(UNDEBIASED, debias=Debias(temperature=0.1))
loaded = functools.cache(lambda: datasets.load(UNDEBIASED.data))


def experiment(config, **fields):
  return build.experiment(dataclasses.replace(config, **fields), loaded())


def spent(config, **fields):
  return cost.of_run(experiment(config, **fields))


def by_prefixes(archs_AxE):
  """Multiply-adds of a walk over some of digits, by hand."""
  zeros_E = np.zeros(4, np.int32)
  macs = lambda arch_E: int(DIGITS.costs(arch_E[None]).macs_A[0])  # noqa: E731
  # Stem 3x3 from 1 to 4 channels; identities that halve the map; the head.
  stem, identities, head = 9 * 4 * 64, (4 * 6 * 16, 0, 6 * 8 * 4, 0), 1344
  assert macs(zeros_E) == stem + sum(identities) + head
  assert head == 8 * 32 * 4 + 32 * 10
  total = stem + head * len(archs_AxE)
  for e in range(4):
    for prefix in {tuple(arch_E[: e + 1]) for arch_E in archs_AxE}:
      one_E = zeros_E.copy()
      one_E[e] = prefix[-1]
      total += macs(one_E) - macs(zeros_E) + identities[e]
  return total


@functools.cache
def share():
  """Multiply-adds of a walk over digits, a fraction of those path by path."""
  return by_prefixes(ARCHS_AxE) / int(DIGITS.costs(ARCHS_AxE).macs_A.sum())


@pytest.mark.parametrize('count', [81, 20, 1])
def test_shared_multiply_adds_are_those_of_the_prefixes(count):
  rng = np.random.default_rng(0)
  some_AxE = ARCHS_AxE[rng.permutation(81)[:count]]
  assert DIGITS.shared_macs(some_AxE) == by_prefixes(some_AxE)


def test_what_the_whole_of_nas_bench_macro_shares():
  space = spaces.get('nas_bench_macro')
  archs_AxE = space.enumerate()
  alone = int(space.costs(archs_AxE).macs_A.sum())
  assert alone / space.shared_macs(archs_AxE) == pytest.approx(3.7296, abs=5e-5)


def test_a_space_without_prefixes_shares_nothing():
  space = spaces.get('pooling')
  archs_AxE = space.enumerate()
  assert space.shared_macs(archs_AxE) == space.costs(archs_AxE).macs_A.sum()


def test_uniform():
  assert spent(UNDEBIASED) == {
    'images': 1500,
    'path_gradients': 15,
    'extra_gradients': {},
    'extra_forward_passes': {
      'rewards': 0,
      'density': 0,
      'rebuilding': 0,
      'ranking': 8100,
    },
    'epochs': {
      'training': 3.0,
      'rewards': 0.0,
      'density': 0.0,
      'rebuilding': 0.0,
      'ranking': pytest.approx(8100 / 3 * share() / 500),
    },
  }


@pytest.mark.parametrize(
  ('sampler', 'steps', 'gradients'),
  [
    (Sampler(name='fair'), 15, 45),
    (Sampler(name='fair', budget='paths'), 6, 18),
    (Sampler(paths=2), 15, 30),
    (Sampler(paths=5, budget='paths'), 3, 15),
    (Sampler(paths=9, budget='paths'), 3, 27),
    (Sampler(name='importance', paths=2), 15, 30),
  ],
)
def test_path_gradients_under_both_budgets(sampler, steps, gradients):
  found = spent(UNDEBIASED, sampler=sampler)
  assert found['images'] == 100 * steps
  assert found['path_gradients'] == gradients
  assert found['epochs']['training'] == pytest.approx(gradients / 5)


@pytest.mark.parametrize('every', [1, 3, 4, 99])
@pytest.mark.parametrize('name', ['boltzmann', 'tree'])
def test_rewards_are_a_forward_pass_a_path_now_and_then(name, every):
  found = spent(
    UNDEBIASED, sampler=Sampler(name=name, paths=2, reward_every=every)
  )
  measured = sum(2 for step in range(15) if step % every == 0)
  assert found['extra_forward_passes']['rewards'] == measured * 100
  assert found['epochs']['rewards'] == pytest.approx(measured / 3 / 5)


@pytest.mark.parametrize(
  ('fields', 'kind', 'images', 'weight'),
  [
    # Tensors behind the last choice need no backward pass through choices.
    ({}, 'gradients', 4050, lambda: share() / 3),
    ({'batches': 3}, 'gradients', 12150, lambda: share() / 3),
    ({'tensors': 'all'}, 'gradients', 4050, lambda: 1),
    ({'estimator': 'kde'}, 'gradients', 4050, lambda: share() / 3),
    ({'measure': 'functional'}, 'forward_passes', 4050, lambda: share() / 3),
    (
      {'measure': 'representational'},
      'forward_passes',
      4050,
      lambda: share() / 3,
    ),
    # Every epoch of the two behind the warm-up.
    ({'refresh_epochs': 1}, 'gradients', 8100, lambda: share() / 3),
    ({'refresh_epochs': 2}, 'gradients', 4050, lambda: share() / 3),
    # The log only observes.
    ({'log_epochs': 1}, 'gradients', 4050, lambda: share() / 3),
  ],
)
def test_density_by_hand(fields, kind, images, weight):
  found = spent(DEBIASED, density=Density(**{'batch_size': 50, **fields}))
  assert found[f'extra_{kind}']['density'] == images
  assert found['epochs']['density'] == pytest.approx(images * weight() / 500)
  kinds = [found['extra_gradients'], found['extra_forward_passes']]
  assert sorted('density' in of_kind for of_kind in kinds) == [False, True]


def floats_of_the_head():
  """Numbers that 'deep' compares of an architecture of digits."""
  params = supernets.shapes(supernets.build(DIGITS), ARCHS_AxE[0])['params']
  measure = density.gradient(supernets.build(DIGITS), params, ARCHS_AxE)
  assert isinstance(measure.read, density.features.Gradients)
  assert all(name.startswith('head/') for name in measure.read.tensors)
  return measure.read.floats(params, 1, 50, 10)


@pytest.mark.parametrize(('beyond', 'times'), [(0.5, 1), (-0.5, 2)])
def test_gradients_beyond_the_memory_are_computed_twice(
  monkeypatch, beyond, times
):
  """A run counts gradients as often as an estimate asks for them."""
  memory_gb = (4 * 81 * floats_of_the_head() + beyond) / 1e9
  fields = Density(batch_size=50, memory_gb=memory_gb)
  of_run = experiment(DEBIASED, density=fields)
  found = cost.of_run(of_run)
  assert found['extra_gradients']['density'] == times * 4050
  assert found['epochs']['density'] == pytest.approx(
    times * 4050 / 3 * share() / 500
  )
  asked = []

  def read(net, params, archs_AxE, images, labels, readout, **options):
    asked.append(len(archs_AxE) * sum(map(len, images)))
    unit_CxD = np.zeros((81, readout.floats(params, 1, 50, 10)), np.float32)
    unit_CxD[np.arange(81), np.arange(81) % 3] = 1
    values = {'all': jnp.asarray(unit_CxD)}
    yield Chunk(np.arange(81), np.ones(81, bool), values)

  module = importlib.import_module('jaxnas.density.estimate')
  monkeypatch.setattr(module, 'read', read)
  params = supernets.shapes(of_run.net, ARCHS_AxE[0])['params']
  state = dataclasses.replace(of_run.init_state(), params=params)
  debias.current(of_run, state)
  assert sum(asked) == found['extra_gradients']['density']


def test_what_pairs_need_is_never_computed_twice():
  found = spent(DEBIASED, density=Density(batch_size=50, estimator='kde'))
  small = dataclasses.replace(
    DEBIASED,
    density=Density(batch_size=50, estimator='kde', memory_gb=1e-9),
  )
  # That memory would be refused: the arithmetic alone is looked at.
  of_run = dataclasses.replace(experiment(DEBIASED), config=small)
  assert cost.of_run(of_run) == found


def test_a_file_an_encoding_and_no_debiasing_cost_nothing(tmp_path):
  free = spent(UNDEBIASED)
  file = tmp_path / 'mine.npz'
  density.save(density.Density(ARCHS_AxE, np.linspace(1, 2, 81)), file)
  assert spent(DEBIASED, density=Density(file=str(file))) == free
  encoding = dataclasses.replace(
    DEBIASED, density=Density(measure='encoding', batch_size=50)
  )
  # All architectures of digits have the same, which a run refuses.
  of_run = dataclasses.replace(experiment(DEBIASED), config=encoding)
  assert cost.of_run(of_run) == free
  logged = Density(batch_size=50, log_epochs=1)
  assert spent(UNDEBIASED, density=logged) == free


@pytest.mark.parametrize(
  ('fields', 'times'),
  [
    ({'variant': 'default'}, 0),
    ({'variant': 'prioritized'}, 0),
    ({'variant': 'hierarchical'}, 1),
    ({'variant': 'hierarchical', 'rebuilds': 2}, 2),
    ({'variant': 'iterative', 'rebuilds': 1}, 1),
    # Four times in two epochs are two.
    ({'variant': 'iterative'}, 2),
  ],
)
def test_rebuilding_looks_at_three_batches(fields, times):
  found = spent(UNDEBIASED, sampler=Sampler(name='tree', **fields))
  images = times * 81 * 300
  assert found['extra_forward_passes']['rebuilding'] == images
  assert found['epochs']['rebuilding'] == pytest.approx(
    images / 3 * share() / 500
  )


@pytest.mark.parametrize(
  ('variant', 'images'), [('iterative', 2 * 500), ('hierarchical', 300)]
)
def test_calibration_counts_and_shares_no_prefixes(variant, images):
  found = spent(
    UNDEBIASED,
    sampler=Sampler(name='tree', variant=variant),
    ranking=Ranking(images=100, bn='recalibrate', calibration_batches=2),
  )
  assert found['extra_forward_passes']['ranking'] == 81 * 300
  assert found['epochs']['ranking'] == pytest.approx(81 * 300 / 3 / 500)
  # Outputs that are clustered are not calibrated.
  assert found['extra_forward_passes']['rebuilding'] == 81 * images
  assert found['epochs']['rebuilding'] == pytest.approx(
    81 * images / 3 / 500 * (share() if variant == 'hierarchical' else 1)
  )


def test_a_mixture_shares_no_prefixes():
  found = spent(DEBIASED, sampler=Sampler(name='mixture', members=3))
  assert found['epochs'] == pytest.approx(
    {
      'training': 3,
      'rewards': 1,
      'density': 4050 / 500,
      'rebuilding': 0,
      'ranking': 8100 / 3 / 500,
    }
  )


def test_an_epoch_counts_the_images_that_it_drops():
  # 480 of 500 in three batches.
  found = spent(UNDEBIASED, data=Data(batch_size=160))
  assert found['images'] == 9 * 160
  assert found['epochs']['training'] == pytest.approx(9 * 160 / 500)


def test_some_ranked_architectures_share_less():
  found = spent(UNDEBIASED, ranking=Ranking(images=70, archs=5))
  archs_AxE = DIGITS.subset(generator(0, 'ranking_archs'), 5)
  macs = by_prefixes(archs_AxE) / int(DIGITS.costs(archs_AxE).macs_A.sum())
  assert found['extra_forward_passes']['ranking'] == 350
  assert found['epochs']['ranking'] == pytest.approx(350 / 3 * macs / 500)


@pytest.mark.parametrize('warmup', [0, 1, 3])
@pytest.mark.parametrize('epochs', [0, 1, 5, 6])
@pytest.mark.parametrize('every', [None, 1, 2, 5, 9])
def test_when_the_density_is_due(warmup, epochs, every):
  given = dataclasses.replace(
    DEBIASED,
    warmup_epochs=warmup,
    epochs=epochs,
    density=Density(refresh_epochs=every),
  )
  expected, since = [], None
  for epoch in range(warmup + epochs):
    if epoch < warmup:
      continue
    if since is None or since == every:
      expected.append(epoch)
      since = 0
    since += 1
  assert list(schedule.density_epochs(given)) == expected
  assert not schedule.density_epochs(given.undebiased())


def test_every_result_says_what_it_cost(tmp_path, monkeypatch, capsys):
  of_run = experiment(DEBIASED, sampler=Sampler(name='boltzmann'))

  def train_supernet(of_run, workdir, held, *_):
    held.put(of_run.init_state())
    yield from ()

  monkeypatch.setattr(training, 'train_supernet', train_supernet)
  monkeypatch.setattr(
    evaluation, 'accuracies', lambda *_, **__: np.linspace(0.1, 0.9, 81)
  )
  training.train(of_run, tmp_path)
  written = json.loads((tmp_path / 'correlation.json').read_text())
  assert written['compute'] == cost.of_run(of_run)
  assert (
    'epochs of one path: training 3, rewards 1, density 0.708, ranking 1.42\n'
    in capsys.readouterr().out
  )


@pytest.mark.parametrize(
  ('sampler', 'steps'),
  [
    (Sampler(budget='paths'), 5),
    (Sampler(paths=2, budget='paths'), 2),
    (Sampler(paths=3, budget='paths'), 2),
    (Sampler(paths=4, budget='paths'), 1),
    # An epoch has one at least.
    (Sampler(paths=11, budget='paths'), 1),
    (Sampler(name='fair', budget='paths'), 2),
    (Sampler(name='fair', paths=3, budget='paths'), 2),
    (Sampler(name='mixture', paths=3, budget='paths'), 2),
    (Sampler(paths=3), 5),
    (Sampler(name='fair'), 5),
  ],
)
def test_an_epoch_has_fewer_steps_where_a_step_has_paths(sampler, steps):
  of_run = experiment(UNDEBIASED, sampler=sampler)
  assert of_run.training.steps_per_epoch == steps
  assert of_run.warmup_steps == steps


def images_of(of_run, steps):
  """Indices and pixels of some steps."""
  feed, order = of_run.training.feed(3, 0), of_run.training.order
  state, out = order.init(), []
  for step in range(steps):
    inputs = next(feed)
    state, indices_B = order.draw(state, inputs, np.int32(step))
    pixels, _ = of_run.training.batch(inputs, np.int32(step), indices_B)
    out.append((np.asarray(indices_B), np.asarray(pixels)))
  feed.close()
  return out


@pytest.mark.parametrize('name', ['fair', 'uniform'])
def test_a_budget_changes_no_batch(name):
  """All images are seen before any is seen again."""
  sampler = Sampler(name=name, paths=3)
  of_steps = images_of(experiment(UNDEBIASED, sampler=sampler), 7)
  of_paths = images_of(
    experiment(
      UNDEBIASED, sampler=dataclasses.replace(sampler, budget='paths')
    ),
    7,
  )
  for (indices_B, pixels), (others_B, others) in zip(
    of_steps, of_paths, strict=True
  ):
    np.testing.assert_array_equal(indices_B, others_B)
    np.testing.assert_array_equal(pixels, others)
  seen = np.concatenate([indices_B for indices_B, _ in of_paths[:5]])
  np.testing.assert_array_equal(np.sort(seen), np.arange(500))


@pytest.mark.parametrize(('budget', 'steps'), [('steps', 5), ('paths', 2)])
def test_samplers_and_images_hear_of_the_budgets_epoch(
  monkeypatch, budget, steps
):
  heard = []

  module = importlib.import_module('jaxnas.samplers.importance')

  @functools.wraps(samplers.importance)
  def importance(*args, **options):
    heard.append(options)
    return samplers.importance(*args, **options)

  monkeypatch.setattr(module, 'importance', importance)
  of_run = experiment(
    UNDEBIASED, sampler=Sampler(name='importance', paths=2, budget=budget)
  )
  assert heard[-1]['steps_per_epoch'] == steps
  # Images look back on an epoch when it is over.
  order, inputs = of_run.training.order, next(of_run.training.feed(0, 0))
  seen = []
  for step in range(6):
    state = order.init()._replace(seen_N=np.ones(500, bool))
    state, _ = order.draw(state, inputs, np.int32(step))
    seen.append(not np.asarray(state.seen_N).any())
  assert seen == [step % steps == 0 for step in range(6)]
