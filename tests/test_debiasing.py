"""Densities within a run: what is logged, what the sampler is given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from test_training import final_state, flags_in, metrics, same_run

from jaxnas import (
  build,
  config,
  debiasing,
  density,
  density_config,
  density_log,
  runs,
  samplers,
  spaces,
  streams,
  tables,
  train,
)
from jaxnas.density import prototypes, streaming
from jaxnas.density.estimate import gather
from jaxnas.spaces import base
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints

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
    '--debias.temperature', 'None', '--debias.effective_fraction', '0.5',
    '--density.log_epochs', '2', '--debias.baseline',
  ]  # fmt: skip
  train.main(flags)
  return flags, run


@pytest.mark.slow
def test_the_log_holds_what_table_6_and_figure_2_are_drawn_from(online):
  _, run = online
  log = runs.read_npz(run / 'density_log.npz')
  # Every other epoch, after the warm-up, and at the end.
  np.testing.assert_array_equal(log['epoch_L'], [0, 1, 2, 3])
  np.testing.assert_array_equal(log['archs_AxE'], ARCHS_AxE)
  tensors = len(log['tensors_T'])
  assert {name: values.shape for name, values in log.items()} == {
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
  # Nothing was visited before the first step.
  np.testing.assert_array_equal(log['prototype_alpha_LxA'][0], 1)
  assert np.ptp(log['prototype_alpha_LxA'][1]) > 0


@pytest.mark.slow
def test_the_undebiased_twin_has_the_log_of_the_warm_up(online):
  _, run = online
  log = runs.read_npz(run / 'density_log.npz')
  of_twin = runs.read_npz(run / 'undebiased' / 'density_log.npz')
  np.testing.assert_array_equal(of_twin['epoch_L'], [0, 1, 2, 3])
  np.testing.assert_array_equal(of_twin['alpha_LxA'][:2], log['alpha_LxA'][:2])
  assert (of_twin['alpha_LxA'][2:] != log['alpha_LxA'][2:]).any()


@pytest.mark.slow
def test_the_last_row_is_the_final_density(online):
  _, run = online
  log = runs.read_npz(run / 'density_log.npz')
  experiment, state = build.experiment(runs.read_config(run)), final_state(run)
  subject = density_config.subject(experiment, state)
  fine = density_config.estimate(experiment.config, subject)
  np.testing.assert_allclose(log['alpha_LxA'][-1], fine.alpha_A, rtol=1e-5)
  alpha_A = prototypes.linear(
    state.sampler.density, jnp.asarray(ARCHS_AxE), ops=3
  )
  np.testing.assert_allclose(log['prototype_alpha_LxA'][-1], alpha_A, rtol=1e-5)


@pytest.mark.slow
def test_distances_of_pairs_are_those_that_densities_compare(online):
  """Exact against two gradients; 1 / their mean is the density among them."""
  _, run = online
  log = runs.read_npz(run / 'density_log.npz')
  experiment, state = build.experiment(runs.read_config(run)), final_state(run)
  some_AxE = ARCHS_AxE[log['some_M']]
  np.testing.assert_array_equal(
    log['some_M'],
    streams.rng(0, 'density log').choice(81, density_log.SOME, replace=False),
  )
  subject = density_config.subject(experiment, state, some_AxE)
  alone = density_config.estimate(experiment.config, subject)
  distance_MxM = log['distance_LxMxM'][-1].astype(float)
  np.testing.assert_array_equal(distance_MxM, distance_MxM.T)
  np.testing.assert_allclose(np.diag(distance_MxM), 0, atol=1e-6)
  np.testing.assert_allclose(
    63 / distance_MxM.sum(axis=1), alone.alpha_A, rtol=1e-5
  )


@pytest.mark.slow
def test_pairs_are_of_as_many_as_fit_memory(online):
  _, run = online
  config = runs.read_config(run)
  experiment, state = build.experiment(config), final_state(run)
  subject = density_config.subject(experiment, state)
  whole_MxM = density_log.of_pairs(experiment, subject, lambda: None)
  compared = density_config.measure(
    config, experiment.net, state.params, ARCHS_AxE
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
    some_MxM = density_log.of_pairs(tight, subject, lambda: None)
    np.testing.assert_allclose(some_MxM, whole_MxM[:fit, :fit], atol=1e-6)


@pytest.mark.slow
def test_distances_by_tensor_are_those_of_pairs(online):
  """Against all pairs of the architectures that have the tensor."""
  _, run = online
  experiment, state = build.experiment(runs.read_config(run)), final_state(run)
  row = density_log.measured(experiment, state, lambda: None)
  names = density_log.weights(experiment, state.params)
  some_AxE = ARCHS_AxE[
    streams.rng(0, 'density log').choice(81, density_log.SOME, replace=False)
  ]
  subject = density_config.subject(experiment, state, some_AxE)
  measure = density.gradient(
    experiment.net, state.params, some_AxE, tensor_set='all'
  )
  units = gather(subject, measure)
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
  experiment, state = build.experiment(runs.read_config(run)), final_state(run)
  subject = density_config.subject(experiment, state, ARCHS_AxE[[5, 5]])
  own = lambda: density_log.on_batches_of_their_own(  # noqa: E731
    experiment, state, subject
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
  log = runs.read_npz(run / 'density_log.npz')
  later = {name: values for name, values in log.items()}
  for name in log:
    if '_Lx' in name:
      later[name] = np.concatenate([log[name], 0 * log[name][:1]])
  later['epoch_L'] = np.append(log['epoch_L'], 3)
  runs.write_npz(run / 'density_log.npz', later)
  train.main(['--workdir', str(run), '--resume'])
  same_run(whole, run)
  for name, values in runs.read_npz(whole / 'density_log.npz').items():
    np.testing.assert_array_equal(
      runs.read_npz(run / 'density_log.npz')[name], values
    )


@pytest.mark.slow
def test_the_warm_up_is_undebiased_and_then_a_temperature_is_set(online):
  _, run = online
  experiment = build.experiment(runs.read_config(run))
  with Checkpoints(run / 'checkpoints') as checkpoints:
    warm, _ = checkpoints.restore(5, experiment.init_state())
  assert float(warm.sampler.tau) == np.inf
  assert int(warm.sampler.density.visit_V.max()) == 5
  saved, facts = density.read_file(run / 'density.npz')
  assert facts['step'] == 5
  np.testing.assert_array_equal(
    saved.alpha_A,
    debiasing.of_prototypes(experiment, warm.sampler.density).alpha_A,
  )
  tau = float(final_state(run).sampler.tau)
  share = samplers.effective_number(-saved.alpha_A / tau) / 81
  assert share == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
def test_a_space_too_large_to_list_is_debiased_by_prototypes(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(base, 'LARGEST_ENUMERATION', 80)
  monkeypatch.setattr(tables, 'shipped', lambda *args: False)
  flags, run = flags_in(tmp_path)
  train.main(
    [*flags, '--density.estimator', 'prototypes', '--ranking.archs', '5']
  )
  assert np.isfinite(final_state(run).sampler.tau)
  assert len(density.read_file(run / 'density.npz')[0].archs_AxE) == 4096
  assert len(metrics(run)) == 8


@pytest.mark.parametrize(
  ('fields', 'listed', 'says'),
  [
    ({}, False, 'density.estimator prototypes'),
    ({'estimator': 'prototypes', 'log_epochs': 1}, False, 'log_epochs'),
    (
      {'estimator': 'prototypes', 'tensors': 'position_0/op_1/.*kernel'},
      True,
      'choose other density.tensors',
    ),
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
  debiased = debiasing.debias(experiment, state, 1, tmp_path)
  saved = density.load(tmp_path / 'density.npz', ARCHS_AxE)
  np.testing.assert_array_equal(
    debiased.sampler.alpha_A, saved.alpha_A.astype(np.float32)
  )
  assert np.ptp(saved.alpha_A) > 0
