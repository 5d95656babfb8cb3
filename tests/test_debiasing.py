"""Densities within a run: what is logged, what the sampler is given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import config, density, samplers, spaces, train
from jaxnas.config import run_folder
from jaxnas.density import streaming
from jaxnas.density.estimate import gather
from jaxnas.experiment import build, debias, densities, density_log
from jaxnas.experiment import online as prototypes
from jaxnas.experiment import run as training
from jaxnas.runtime import files
from jaxnas.runtime.rng import generator
from jaxnas.spaces import base
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.truth import correlation, table
from support.runs import final_state, flags_in, metrics, same_run

ARCHS_AxE = spaces.get('digits').enumerate()


def given(folder, **density_fields):
  """The tiny config with other fields of density."""
  flags_in(folder)
  tiny = config.load(str(folder / 'tiny.py'))
  fields = {'batch_size': 50, **density_fields}
  return dataclasses.replace(tiny, density=config.Density(**fields))


@pytest.fixture(scope='module')
def online(tmp_path_factory):
  """A run debiased by prototypes, its densities logged."""
  flags, run = flags_in(tmp_path_factory.mktemp('online'))
  flags += [
    '--density.estimator', 'prototypes', '--density.prototypes', '8',
    '--density.archs', '60',
    '--debias.temperature', 'None', '--debias.effective_fraction', '0.5',
    '--density.log_epochs', '2', '--debias.baseline',
  ]  # fmt: skip
  train.main(flags)
  return flags, run


@pytest.mark.slow
def test_the_log_holds_what_table_6_and_figure_2_are_drawn_from(online):
  _, run = online
  log = files.read_npz(run / 'density_log.npz')
  # Every other epoch, after the warm-up, and at the end.
  np.testing.assert_array_equal(log['epoch_L'], [0, 1, 2, 3])
  np.testing.assert_array_equal(log['archs_AxE'], ARCHS_AxE)
  tensors = len(log['tensors_T'])
  assert {name: values.shape for name, values in log.items()} == {
    'facts': (),
    'epoch_L': (4,),
    'archs_AxE': (81, 4),
    'tensors_T': (tensors,),
    'alpha_LxA': (4, 81),
    'prototype_alpha_LxA': (4, 81),
    'some_M': (64,),
    'distance_LxMxM': (4, 64, 64),
    'validation_distance_LxT': (4, tensors),
    'training_distance_LxT': (4, tensors),
  }
  assert 'stem/conv/kernel' in log['tensors_T']
  for exact_A, few_A in zip(
    log['alpha_LxA'], log['prototype_alpha_LxA'], strict=True
  ):
    assert correlation.spearman(exact_A, few_A) > 0.5


@pytest.mark.slow
def test_the_undebiased_twin_has_the_log_of_the_warm_up(online):
  _, run = online
  log = files.read_npz(run / 'density_log.npz')
  of_twin = files.read_npz(run / 'undebiased' / 'density_log.npz')
  np.testing.assert_array_equal(of_twin['epoch_L'], [0, 1, 2, 3])
  np.testing.assert_array_equal(of_twin['alpha_LxA'][:2], log['alpha_LxA'][:2])
  assert (of_twin['alpha_LxA'][2:] != log['alpha_LxA'][2:]).any()


@pytest.mark.slow
def test_the_last_row_is_the_final_density(online):
  _, run = online
  log = files.read_npz(run / 'density_log.npz')
  experiment, state = (
    build.experiment(run_folder.read_config(run)),
    final_state(run),
  )
  snapshot = densities.snapshot(experiment, state)
  fine = densities.estimate(experiment.config.density, snapshot)
  np.testing.assert_allclose(log['alpha_LxA'][-1], fine.alpha_A, rtol=1e-5)
  alpha_A = prototypes.of_all(prototypes.measure(experiment, state, run))
  np.testing.assert_allclose(log['prototype_alpha_LxA'][-1], alpha_A, rtol=1e-5)


@pytest.mark.slow
def test_distances_of_pairs_are_those_that_densities_compare(online):
  """Exact against two gradients; 1 / their mean is the density among them."""
  _, run = online
  log = files.read_npz(run / 'density_log.npz')
  experiment, state = (
    build.experiment(run_folder.read_config(run)),
    final_state(run),
  )
  some_AxE = ARCHS_AxE[log['some_M']]
  np.testing.assert_array_equal(
    log['some_M'],
    generator(0, 'density log').choice(81, density_log.SOME, replace=False),
  )
  snapshot = densities.snapshot(experiment, state, some_AxE)
  alone = densities.estimate(experiment.config.density, snapshot)
  distance_MxM = log['distance_LxMxM'][-1].astype(float)
  np.testing.assert_array_equal(distance_MxM, distance_MxM.T)
  np.testing.assert_allclose(np.diag(distance_MxM), 0, atol=1e-6)
  np.testing.assert_allclose(
    63 / distance_MxM.sum(axis=1), alone.alpha_A, rtol=1e-5
  )


@pytest.mark.slow
def test_pairs_are_of_as_many_as_fit_memory(online):
  _, run = online
  config = run_folder.read_config(run)
  experiment, state = build.experiment(config), final_state(run)
  snapshot = densities.snapshot(experiment, state)
  whole_MxM = density_log.of_pairs(experiment, snapshot, lambda: None)
  compared = densities.measure(
    config.density, experiment.net, state.params, ARCHS_AxE
  )
  one = density.feature_bytes(
    compared, experiment.net, state.params, 1, 1, config.density.batch_size
  )
  for fit in (10, 0):
    memory_gb = (fit + 0.5) * one / 1e9
    small = dataclasses.replace(config.density, memory_gb=memory_gb)
    tight = dataclasses.replace(
      experiment, config=dataclasses.replace(config, density=small)
    )
    some_MxM = density_log.of_pairs(tight, snapshot, lambda: None)
    np.testing.assert_allclose(some_MxM, whole_MxM[:fit, :fit], atol=1e-6)


@pytest.mark.slow
def test_distances_by_tensor_are_those_of_pairs(online):
  """Against all pairs of the architectures that have the tensor."""
  _, run = online
  experiment, state = (
    build.experiment(run_folder.read_config(run)),
    final_state(run),
  )
  row = density_log.measured(experiment, state, run, lambda: None)
  names = density_log.weights(experiment, state.params)
  some_AxE = ARCHS_AxE[
    generator(0, 'density log').choice(81, density_log.SOME, replace=False)
  ]
  snapshot = densities.snapshot(experiment, state, some_AxE)
  measure = density.gradient(
    experiment.net, state.params, some_AxE, tensors='all'
  )
  units = gather(snapshot, measure)
  for t, name in enumerate(names):
    u_AxD = units[name].astype(float)
    u_MxD = u_AxD[(u_AxD != 0).any(axis=1)]
    cosine_MxM = u_MxD @ u_MxD.T
    count = len(u_MxD)
    expected = np.nan
    if count > 1:
      others = cosine_MxM.sum() - np.trace(cosine_MxM)
      expected = 1 - others / (count * (count - 1))
    np.testing.assert_allclose(
      row['validation_distance_LxT'][t], expected, atol=1e-5
    )


@pytest.mark.slow
def test_training_distances_use_a_batch_an_architecture(online):
  _, run = online
  experiment, state = (
    build.experiment(run_folder.read_config(run)),
    final_state(run),
  )
  snapshot = densities.snapshot(experiment, state, ARCHS_AxE[[5, 5]])
  own = lambda: density_log.on_batches_of_their_own(  # noqa: E731
    experiment, state, snapshot
  )
  # The same architecture twice: on one batch its distance would be zero.
  assert [block.indices_C[0] for block in own()] == [0, 1]
  assert streaming.distance_by_tensor(own)['head/linear/kernel'] > 0.01


@pytest.mark.slow
def test_logging_changes_nothing_in_the_run(online, tmp_path):
  flags, _ = online
  _, run = flags_in(tmp_path)
  bare = [*flags, '--workdir', str(run), '--density.log_epochs', 'None']
  train.main(bare)
  assert not (run / 'density_log.npz').exists()
  same_run(run, online[1])


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_prototypes_and_log(
  online, tmp_path, monkeypatch
):
  flags, whole = online
  _, run = flags_in(tmp_path)
  flags = [*flags, '--workdir', str(run)]

  class Crash(Exception):
    pass

  def save_twice(self, state, notes, save=Checkpoints.save):
    if int(state.step) > 10:
      raise Crash
    save(self, state, notes)

  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, 'save', save_twice)
    with pytest.raises(Crash):
      train.main(flags)
  # What a crash after the row of the last epoch would have left.
  log = files.read_npz(run / 'density_log.npz')
  later = {name: values for name, values in log.items()}
  for name in log:
    if '_Lx' in name:
      later[name] = np.concatenate([log[name], 0 * log[name][:1]])
  later['epoch_L'] = np.append(log['epoch_L'], 3)
  files.write_npz(run / 'density_log.npz', later)
  train.main(['--workdir', str(run), '--resume'])
  same_run(whole, run)
  for name, values in files.read_npz(whole / 'density_log.npz').items():
    np.testing.assert_array_equal(
      files.read_npz(run / 'density_log.npz')[name], values
    )


@pytest.mark.slow
def test_the_warm_up_is_undebiased_and_then_a_temperature_is_set(online):
  _, run = online
  experiment = build.experiment(run_folder.read_config(run))
  with Checkpoints(run / 'checkpoints') as checkpoints:
    warm, _ = checkpoints.restore(5, experiment.init_state())
  np.testing.assert_array_equal(warm.sampler.alpha_A, 0)
  saved, metadata = density.read_file(run / 'density.npz')
  assert metadata['step'] == 5
  np.testing.assert_array_equal(
    saved.alpha_A,
    prototypes.of_all(prototypes.measure(experiment, warm, run)),
  )
  tau = float(final_state(run).sampler.tau)
  share = samplers.effective_number(-saved.alpha_A / tau) / 81
  assert share == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('rule', ['eq8', 'self_consistent'])
def test_a_space_too_large_to_list_is_debiased_by_prototypes(
  tmp_path, monkeypatch, rule
):
  monkeypatch.setattr(base, 'LARGEST_ENUMERATION', 80)
  monkeypatch.setattr(table, 'shipped', lambda *args: False)
  flags, run = flags_in(tmp_path)
  train.main(
    [*flags, '--density.archs', '30', '--ranking.archs', '5',
     '--debias.rule', rule]
  )  # fmt: skip
  assert np.isfinite(final_state(run).sampler.tau)
  assert len(density.read_file(run / 'density.npz')[0].archs_AxE) == 30
  (row,) = [row for row in metrics(run) if 'density_spearman' in row]
  assert row['step'] == 5 and 0 < row['density_spearman'] <= 1


@pytest.mark.parametrize(
  ('fields', 'listed', 'says'),
  [
    ({'estimator': 'kde'}, False, 'density.estimator prototypes'),
    ({'estimator': 'prototypes', 'log_epochs': 1}, False, 'log_epochs'),
    ({'estimator': 'kde', 'memory_gb': 1e-4}, True, 'no pairs'),
    ({'absent': 'skip', 'memory_gb': 1e-4}, True, 'no pairs'),
    ({'measure': 'functional', 'memory_gb': 1e-4}, True, 'no pairs'),
    (
      {'measure': 'representational', 'layers': 'stem'},
      True,
      'head, head/linear',
    ),
    ({'log_epochs': 1, 'batch_size': 501}, True, '500 validation images'),
    ({'measure': 'encoding'}, True, 'debias by another'),
    ({'measure': 'encoding', 'estimator': 'kde'}, True, 'debias by another'),
  ],
)
def test_what_cannot_be_had_is_refused_before_any_work(
  tmp_path, monkeypatch, fields, listed, says
):
  if not listed:
    monkeypatch.setattr(base, 'LARGEST_ENUMERATION', 80)
  monkeypatch.setattr(loop, 'fit', None)
  with pytest.raises(ValueError, match=says) as raised:
    build.experiment(given(tmp_path, **fields))
  assert '\n' not in str(raised.value)


def test_probabilities_that_are_not_finite_stop_a_run(tmp_path):
  flags_in(tmp_path)
  built = build.experiment(config.load(str(tmp_path / 'tiny.py')))
  state = built.init_state()
  alpha_A = np.linspace(1, 2, 81)
  given = samplers.Evidence(ARCHS_AxE, alpha_A)
  debias.apply_density(built, state.sampler, given)
  with pytest.raises(
    ArithmeticError, match=r'of 81 of 81 .* not finite: raise'
  ):
    # Above the least temperature, and still too small for such densities.
    debias.apply_density(
      built, state.sampler, given._replace(alpha_A=1e38 * alpha_A)
    )
  assert training.adapt(built, state, 0, tmp_path) is state
  lost = state.sampler._replace(tau=jnp.zeros(()))
  with pytest.raises(ArithmeticError, match='of 81 of 81'):
    training.adapt(built, dataclasses.replace(state, sampler=lost), 0, tmp_path)


def test_a_density_that_is_known_is_tried_before_any_work(tmp_path):
  flags_in(tmp_path)
  tiny = config.load(str(tmp_path / 'tiny.py'))
  file = tmp_path / 'd.npz'
  alpha_A = np.repeat([1.0, 2.0], [27, 54])
  density.save(density.Density(ARCHS_AxE, alpha_A), file)

  def build_with(**fields):
    build.experiment(
      dataclasses.replace(
        tiny,
        debias=config.Debias(**fields),
        density=config.Density(file=str(file)),
      )
    )

  build_with(effective_fraction=0.4)
  with pytest.raises(ValueError, match=r'0\.3 is below 0\.333'):
    build_with(effective_fraction=0.3)
  density.save(density.Density(ARCHS_AxE, 1e9 * alpha_A), file)
  build_with(temperature=1e-28)
  with pytest.raises(ValueError, match=r'of 81 of 81 .* not finite'):
    build_with(temperature=1e-30)


@pytest.mark.parametrize(
  'fields',
  [
    {'estimator': 'kde', 'bandwidth': 0.7},
    {'measure': 'functional', 'outputs': 'kl'},
    {'measure': 'representational', 'unbiased': True},
  ],
)
def test_a_run_can_be_debiased_by_every_measure(tmp_path, fields):
  experiment = build.experiment(given(tmp_path, **fields))
  state = experiment.init_state()
  debiased = debias.debias(experiment, state, 1, tmp_path)
  saved = density.load(tmp_path / 'density.npz', ARCHS_AxE)
  np.testing.assert_array_equal(
    debiased.sampler.alpha_A, saved.alpha_A.astype(np.float32)
  )
  assert np.ptp(saved.alpha_A) > 0
