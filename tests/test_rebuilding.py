"""Trees that are built anew within a run, when and from what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import density, samplers, spaces, train
from jaxnas.config import (
  Config,
  Data,
  Debias,
  Density,
  Ranking,
  Sampler,
  run_folder,
)
from jaxnas.experiment import (
  build,
  datasets,
  densities,
  origin,
  rebuild,
  run,
  schedule,
)
from jaxnas.runtime import ledger
from jaxnas.runtime.preemption import Preemption
from jaxnas.samplers.tree import rebuild as rebuild_tree
from jaxnas.samplers.tree import rebuild_from_outputs
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.metrics import MetricsFile
from jaxnas.training.turns import alone
from support.runs import final_state, flags_in, interrupted, same_run

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()
TINY = Config(
  warmup_epochs=1,
  epochs=2,
  data=Data(batch_size=100),
  density=Density(batch_size=50),
  ranking=Ranking(images=100),
)
BUILT = ('iterative', 'hierarchical')
loaded = functools.cache(lambda: datasets.load(TINY.data))


def given(variant, *, rebuilds=None, name='tree', **fields):
  sampler = Sampler(name=name, variant=variant, rebuilds=rebuilds)
  return dataclasses.replace(TINY, sampler=sampler, **fields)


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
  ('warmup', 'epochs', 'variant', 'rebuilds', 'due'),
  [
    (1, 8, 'iterative', None, {1, 3, 5, 7}),
    (5, 10, 'iterative', 4, {5, 7, 10, 12}),
    (2, 3, 'iterative', 1, {2}),
    (2, 3, 'iterative', 2, {2, 3}),
    (2, 3, 'iterative', 3, {2, 3, 4}),
    # More often than there are epochs is every epoch.
    (2, 3, 'iterative', 9, {2, 3, 4}),
    (20, 80, 'hierarchical', None, {20}),
    (20, 80, 'hierarchical', 2, {20, 60}),
    (1, 8, 'default', None, set()),
    (1, 8, 'prioritized', None, set()),
    (1, 8, None, None, set()),
  ],
)
def test_when_a_tree_is_due(warmup, epochs, variant, rebuilds, due):
  config = given(
    variant, rebuilds=rebuilds, warmup_epochs=warmup, epochs=epochs
  )
  assert schedule.rebuild_epochs(config) == due


@pytest.mark.parametrize('name', ['uniform', 'importance', 'mixture'])
def test_other_samplers_are_built_once(name):
  config = given({'importance': 'both'}.get(name), name=name)
  assert schedule.rebuild_epochs(config) == set()


@pytest.mark.parametrize('epochs', range(1, 9))
@pytest.mark.parametrize('rebuilds', range(1, 9))
def test_intervals_are_even(epochs, rebuilds):
  due = schedule.rebuild_epochs(
    given('iterative', rebuilds=rebuilds, warmup_epochs=3, epochs=epochs)
  )
  times = sorted(due)
  assert times[0] == 3 and times[-1] < 3 + epochs
  assert len(times) == min(rebuilds, epochs)
  gaps = np.diff([*times, 3 + epochs])
  assert gaps.max() - gaps.min() <= 1


@functools.cache
def fresh(config):
  """An experiment and its state, before anything is trained."""
  experiment = build.experiment(config, loaded())
  return experiment, experiment.init_state()


# Where the densities around the tree come from.
EXACT = Density(batch_size=50)
PROTOTYPES = Density(batch_size=50, estimator='prototypes', archs=30)


def visited(experiment, state):
  """The state after some rewards, to see that the tree forgets them."""
  feedback = samplers.Feedback(jnp.asarray(ARCHS_AxE[5]), {}, jnp.float32(0.25))
  proposal = samplers.tree(DIGITS, variant=experiment.config.sampler.variant)
  heard = proposal.update(state.sampler.proposal, feedback)
  return dataclasses.replace(
    state, sampler=state.sampler._replace(proposal=heard)
  )


def made_up(monkeypatch, *, accuracy_A=None, outputs_AxD=None):
  """Measurements, of which others than those given must not be asked for."""

  def of(value):
    def measure(experiment, state, poll):
      assert value is not None
      return value

    return measure

  monkeypatch.setattr(rebuild, 'accuracies', of(accuracy_A))
  monkeypatch.setattr(rebuild, 'outputs', of(outputs_AxD))


@pytest.mark.parametrize('variant', BUILT)
@pytest.mark.parametrize('of_density', [EXACT, PROTOTYPES])
def test_the_tree_is_that_of_what_is_measured(monkeypatch, variant, of_density):
  config = given(variant, density=of_density, debias=Debias(temperature=0.1))
  experiment, state = fresh(config)
  state = visited(experiment, state)
  rng = np.random.default_rng(0)
  accuracy_A, outputs_AxD = rng.uniform(size=81), rng.normal(size=(81, 3))
  before = state.sampler.proposal
  assert not before.built and (np.asarray(before.visits_N) > 0).any()
  if variant == 'iterative':
    made_up(monkeypatch, accuracy_A=accuracy_A)
    expected = rebuild_tree(before, accuracy_A)
  else:
    made_up(monkeypatch, outputs_AxD=outputs_AxD)
    expected = rebuild_from_outputs(before, outputs_AxD)
  for epoch in (0, 3):
    assert rebuild.rebuild(experiment, state, epoch) is state
  built = rebuild.rebuild(experiment, state, 1)
  same(built.sampler.proposal, expected)
  assert built.sampler.proposal.built
  assert (built.sampler.proposal.tree.parent_N != before.tree.parent_N).any()
  # Nothing else has changed.
  same(
    dataclasses.replace(built, sampler=built.sampler._replace(proposal=before)),
    state,
  )


def test_a_sampler_without_a_tree_stays(monkeypatch):
  made_up(monkeypatch)
  experiment, state = fresh(given('default'))
  for epoch in range(4):
    assert rebuild.rebuild(experiment, state, epoch) is state


def test_debiasing_multiplies_the_tree_that_was_just_built(
  tmp_path, monkeypatch
):
  """At each epoch of both: the share is that of the new proposal."""
  config = given(
    'iterative',
    rebuilds=2,
    debias=Debias(effective_fraction=0.5),
    density=Density(batch_size=50, refresh_epochs=1),
  )
  rng, measured = np.random.default_rng(0), []

  def accuracies(experiment, state, poll):
    measured.append(rng.uniform(0, 3, 81))
    return measured[-1]

  def estimate(config, snapshot, poll, **options):
    return density.Density(ARCHS_AxE, rng.uniform(1, 2, 81))

  monkeypatch.setattr(rebuild, 'accuracies', accuracies)
  monkeypatch.setattr(densities, 'estimate', estimate)
  experiment, _ = fresh(config)
  seen = []

  def turns(held, *_, before_epoch, **__):
    for epoch in range(3):
      held.put(before_epoch(held.get(), epoch))
      seen.append((len(measured), held.get().sampler))
    yield from ()

  monkeypatch.setattr(loop, 'turns', turns)
  book = ledger.Ledger(tmp_path / ledger.FILE, 0.0, '')
  metrics = MetricsFile(tmp_path / 'metrics.jsonl', of='')
  alone(
    lambda held: run.train_supernet(
      *(experiment, tmp_path, held, None, None, Preemption(), book, metrics),
      origin.Origin(tmp_path),
    ),
    experiment.step_fn.many,
  )
  assert [count for count, _ in seen] == [0, 1, 2]
  assert not np.asarray(seen[0][1].alpha_A).any()
  for accuracy_A, (_, sampler) in zip(measured, seen[1:], strict=True):
    same(sampler.proposal, rebuild_tree(seen[0][1].proposal, accuracy_A))
    plain = samplers.with_density(sampler, np.zeros(81), 1.0)
    numbers = [
      samplers.effective_number(np.asarray(experiment.sampler.log_prob(given)))
      for given in (sampler, plain)
    ]
    assert numbers[0] / numbers[1] == pytest.approx(0.5, abs=1e-3)
    assert numbers[1] < 80


@pytest.mark.parametrize('fields', [{'warmup_epochs': 0}, {'epochs': 0}])
@pytest.mark.parametrize('variant', BUILT)
def test_without_two_phases_it_is_refused(tmp_path, capsys, variant, fields):
  flags, run = flags_in(tmp_path)
  ((name, value),) = fields.items()
  with pytest.raises(SystemExit) as ended:
    train.main(
      [*flags, '--sampler.name', 'tree', '--sampler.variant', variant,
       f'--{name}', str(value)]
    )  # fmt: skip
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert f'sampler.variant {variant} builds its tree after the warm-up' in err
  assert not run.exists()


# 81 architectures, 300 images, 10 classes, 4 bytes.
GB_OF_OUTPUTS = 81 * 300 * 10 * 4 / 1e9


@pytest.mark.parametrize(
  ('variant', 'memory_gb', 'refuses'),
  [
    ('hierarchical', 0.999 * GB_OF_OUTPUTS, True),
    ('hierarchical', 1.001 * GB_OF_OUTPUTS, False),
    # A ranking compares no pairs.
    ('iterative', 1e-6, False),
  ],
)
def test_outputs_beyond_the_memory_are_refused_before_any_work(
  variant, memory_gb, refuses
):
  config = given(variant, density=Density(memory_gb=memory_gb))
  if not refuses:
    build.experiment(config, loaded())
    return
  with pytest.raises(ValueError, match=r'clusters 0\.000972 GB') as raised:
    build.experiment(config, loaded())
  assert '\n' not in str(raised.value)


def test_measurements_are_of_three_validation_batches_that_others_are_not():
  experiment, _ = fresh(given('iterative'))
  x_BxHxWxC, y_B = experiment.held_out.rebuild.batch(np.arange(300))
  _, validation_V = datasets.divide(
    loaded(), experiment.config.data, experiment.config.seed
  )
  expected = loaded().y_train[validation_V]
  assert len(experiment.held_out.rebuild) == 300 == len(x_BxHxWxC)
  # Of 500 images; a shuffle of its own.
  assert (np.bincount(y_B, minlength=10) <= np.bincount(expected)).all()
  others_B = experiment.held_out.density.batch(np.arange(50))[1]
  assert (np.asarray(y_B)[:50] != np.asarray(others_B)).any()


@pytest.mark.slow
def test_what_is_measured_is_what_the_supernet_says():
  experiment, state = fresh(given('hierarchical'))
  outputs_AxD = rebuild.outputs(experiment, state, lambda: None)
  accuracy_A = rebuild.accuracies(experiment, state, lambda: None)
  assert outputs_AxD.shape == (81, 3000)
  forward = jax.jit(
    lambda x, arch_E: experiment.net.apply(
      {'params': state.params}, x, arch_E, train=True
    )
  )
  batches = [
    experiment.held_out.rebuild.batch(np.arange(start, start + 100))
    for start in (0, 100, 200)
  ]
  for a in (0, 7, 80):
    logits_Nx10 = np.concatenate([forward(x, ARCHS_AxE[a]) for x, _ in batches])
    labels_N = np.concatenate([y_B for _, y_B in batches])
    hits = (logits_Nx10.argmax(axis=1) == labels_N).sum()
    assert accuracy_A[a] == pytest.approx(hits / 300)
    p_Nx10 = np.asarray(jax.nn.softmax(logits_Nx10))
    # Distances of these are roots of means over images.
    np.testing.assert_allclose(
      outputs_AxD[a] * np.sqrt(300), p_Nx10.ravel(), atol=1e-5
    )


def flags_with(folder, variant):
  flags, run = flags_in(folder)
  return [
    *flags, '--sampler.name', 'tree', '--sampler.variant', variant,
    '--sampler.rebuilds', {'iterative': '2', 'hierarchical': '1'}[variant],
    '--checkpoint.keep', '9',
  ], run  # fmt: skip


@pytest.fixture(scope='module', params=BUILT)
def whole(request, tmp_path_factory):
  """A debiased run of three epochs of five steps, the first a warm-up."""
  flags, run = flags_with(tmp_path_factory.mktemp('whole'), request.param)
  train.main(flags)
  return request.param, run


def states(run):
  """Returns the experiment and its states by step."""
  experiment = build.experiment(run_folder.read_config(run))
  with Checkpoints(run / 'checkpoints') as checkpoints:
    return experiment, {
      step: checkpoints.restore(step, experiment.init_state())[0]
      for step in checkpoints.steps()
    }


@pytest.mark.slow
def test_a_run_trains_by_the_trees_that_it_builds(whole):
  variant, run = whole
  experiment, at = states(run)
  unranked = experiment.init_state().sampler.proposal.tree
  assert not at[5].sampler.proposal.built
  same(at[5].sampler.proposal.tree, unranked)
  last = 10 if variant == 'iterative' else 5
  built = rebuild.rebuild(experiment, at[last], last // 5)
  final = at[15].sampler.proposal
  assert final.built and (final.tree.parent_N != unranked.parent_N).any()
  same(final.tree, built.sampler.proposal.tree)
  # Every step since is a visit to a child of the root.
  parent_N = np.asarray(final.tree.parent_N)
  top = np.asarray(final.visits_N)[parent_N == len(parent_N)].sum()
  assert top == 15 - last
  if variant == 'iterative':
    earlier = at[10].sampler.proposal.tree
    assert (earlier.parent_N != final.tree.parent_N).any()
  assert float(at[15].sampler.tau) == pytest.approx(0.1)
  assert np.ptp(at[15].sampler.alpha_A) > 0


@pytest.mark.slow
def test_stopped_and_resumed_is_the_same_run(whole, tmp_path):
  """In the warm-up's last step, before a tree is built, or behind it."""
  variant, run = whole
  stop = {'iterative': 5, 'hierarchical': 8}[variant]
  flags, folder = flags_with(tmp_path, variant)
  with interrupted(stop), pytest.raises(SystemExit) as ended:
    train.main(flags)
  assert ended.value.code == 143
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    assert checkpoints.steps()[-1] == stop
  train.main(['--workdir', str(folder), '--resume'])
  same_run(run, folder)
  assert final_state(folder).sampler.proposal.built
