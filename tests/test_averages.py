"""Averages within one run: moving ones, snapshots' weights and their scores."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jaxnas import rank, search
from jaxnas.config import Config, Optimizer, Ranking, run_folder, validation
from jaxnas.experiment import averages, build, ranking, trained
from jaxnas.runtime import files
from jaxnas.training.checkpoint import Checkpoints
from support import small_run
from support.runs import result_of

DECAY, EPOCHS, STEPS = 0.9, 3, 20


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  with small_run.registered():
    yield small_run.train_in(
      tmp_path_factory.mktemp('averages'),
      '--epochs', str(EPOCHS - 1), '--checkpoint.keep', '1',
      '--optimizer.ema_decay', str(DECAY),
      '--ranking.average', 'weights', '--ranking.snapshots', '3',
    )  # fmt: skip


pytestmark = pytest.mark.usefixtures('small_space')


def at_ends(run):
  """The states at the ends of the epochs, by the run's checkpoints."""
  experiment = build.experiment(run_folder.read_config(run))
  with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.steps() == [STEPS, 2 * STEPS, 3 * STEPS]
    like = experiment.init_state()
    return experiment, [
      checkpoints.restore(step, like)[0] for step in checkpoints.steps()
    ]


def accuracies(experiment, params, state):
  given = state.replace(params=params, average={})
  return ranking.accuracies(experiment, given, small_run.ARCHS_AxE, label=None)


def ranked(run, *flags):
  """The accuracies that jaxnas.rank writes."""
  workdir = run.parent / '-'.join(['rank', *flags]).replace('/', '')
  assert rank.main(['--run', str(run), '--workdir', str(workdir), *flags]) == 0
  return files.read_npz(workdir / 'predictions.npz')['accuracy_A']


def mean(trees):
  return jax.tree.map(
    lambda *leaves: np.mean([np.float64(x) for x in leaves], 0).astype('f4'),
    *trees,
  )


@pytest.mark.slow
def test_a_run_ranks_by_the_mean_of_its_weights(run):
  experiment, states = at_ends(run)
  expected_A = accuracies(
    experiment, mean([one.params for one in states]), states[-1]
  )
  found = files.read_npz(run / 'predictions.npz')
  np.testing.assert_array_equal(found['accuracy_A'], expected_A)
  alone_A = accuracies(experiment, states[-1].params, states[-1])
  assert (alone_A != expected_A).any()
  assert result_of(run / trained.RANKED)['average'] == 'weights'


@pytest.mark.slow
def test_a_trained_run_is_ranked_by_other_averages(run):
  experiment, states = at_ends(run)
  each_SxA = [accuracies(experiment, one.params, one) for one in states]
  scores_A = ranked(run, '--ranking.average', 'scores')
  np.testing.assert_allclose(scores_A, np.mean(each_SxA, 0), atol=1e-12)
  last_A = ranked(run, '--ranking.average', 'last')
  np.testing.assert_array_equal(last_A, each_SxA[-1])
  ema_A = ranked(run, '--ranking.average', 'ema')
  average = states[-1].average['params']
  np.testing.assert_array_equal(
    ema_A, accuracies(experiment, average, states[-1])
  )
  two_A = ranked(
    run, '--ranking.average', 'scores', '--ranking.snapshots', '2',
    '--ranking.snapshot_epochs', '2',
  )  # fmt: skip
  np.testing.assert_allclose(
    two_A, np.mean([each_SxA[0], each_SxA[2]], 0), atol=1e-12
  )
  assert len({a.tobytes() for a in (scores_A, last_A, ema_A, two_A)}) == 4


@pytest.mark.slow
def test_halves_are_of_the_same_images_in_every_state(run):
  """With 29 images, every second one of all states alike."""
  _, states = at_ends(run)
  ranked(run, '--ranking.average', 'scores', '--ranking.images', '29')
  workdir = next(run.parent.glob('rank-*29'))
  found = files.read_npz(workdir / 'predictions.npz')
  given = small_run.loaded(run, images=29)[0]
  right_SxAxI = [
    ranking.right(given, one, small_run.ARCHS_AxE, label=None) for one in states
  ]
  share_AxI = np.mean(right_SxAxI, 0)
  np.testing.assert_allclose(
    found['half_HxA'], [share_AxI[:, 0::2].mean(1), share_AxI[:, 1::2].mean(1)]
  )


@pytest.mark.slow
def test_an_average_is_calibrated_itself(run):
  flags = ['--ranking.bn', 'recalibrate', '--ranking.calibration_batches', '3']
  found_A = ranked(run, *flags)
  _, states = at_ends(run)
  experiment, _ = small_run.loaded(run, bn='recalibrate', calibration_batches=3)
  expected_A = accuracies(
    experiment, mean([one.params for one in states]), states[-1]
  )
  np.testing.assert_array_equal(found_A, expected_A)


@pytest.mark.slow
def test_a_run_cut_short_averages_the_same(run, tmp_path):
  other = tmp_path / 'run'
  shutil.copytree(run, other)
  for gone in ('checkpoints/40', 'checkpoints/60'):
    shutil.rmtree(other / gone)
  for file in ('predictions.npz', 'correlation.json'):
    (other / file).unlink()
  small_run.resume(other)
  for file in ('predictions.npz', 'samples.npz'):
    one, same = (files.read_npz(r / file) for r in (run, other))
    for name in one:
      assert one[name].tobytes() == same[name].tobytes()
  (_, ours), (_, theirs) = at_ends(run), at_ends(other)
  for x, y in zip(
    jax.tree.leaves(ours[-1]), jax.tree.leaves(theirs[-1]), strict=True
  ):
    np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_search_scores_by_the_average(run):
  for average in ('weights', 'scores'):
    workdir = run.parent / f'search-{average}'
    flags = ['--ranking.average', average, '--searcher', 'exhaustive']
    assert (
      search.main(['--run', str(run), '--workdir', str(workdir), *flags]) == 0
    )
    found = files.read_npz(workdir / 'state.npz')
    expected_A = (
      files.read_npz(run / 'predictions.npz')['accuracy_A']
      if average == 'weights'
      else ranked(run, '--ranking.average', 'scores')
    )
    rows = small_run.SPACE.index(found['archs_VxE'])
    np.testing.assert_allclose(found['accuracy_V'], expected_A[rows])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--ranking.snapshot_epochs', '2'], 'would begin after epoch -1, before'),
    (['--ranking.average', 'scores', '--searcher', 'shifting'], 'one set of'),
    (['--searcher', 'random', '--ranking.combine', 'macs'], 'a few at a time'),
  ],
)
def test_what_cannot_be_meant_is_refused(run, flags, says, capsys):
  command = search if '--searcher' in flags else rank
  with pytest.raises(SystemExit) as ended:
    command.main(['--run', str(run), *flags])
  assert ended.value.code == 2
  error = capsys.readouterr().err
  assert says in error and error.count('\n') == 1


@pytest.mark.slow
def test_a_checkpoint_that_was_not_kept_is_named(run, tmp_path):
  experiment, states = at_ends(run)
  other = tmp_path / 'run'
  shutil.copytree(run / 'checkpoints', other / 'checkpoints')
  shutil.rmtree(other / 'checkpoints' / '40')
  with pytest.raises(ValueError, match=r'epoch 2, but after 1, 3: set'):
    averages.states(experiment, states[-1], other)


@pytest.mark.slow
def test_a_moving_average_follows_every_step():
  """The step's average is NumPy's, and training does not use it."""
  plain = Config(space='small', epochs=1, warmup_epochs=0)
  config = dataclasses.replace(plain, optimizer=Optimizer(ema_decay=DECAY))
  experiment, other = build.experiment(config), build.experiment(plain)
  state, alone = experiment.init_state(), other.init_state()
  expected = jax.tree.map(np.float64, state.params)
  feeds = [e.training.feed(0, 0) for e in (experiment, other)]
  for step in range(4):
    before = jax.tree.map(np.array, state.params)
    state, values = experiment.step_fn(state, next(feeds[0]))
    alone, _ = other.step_fn(alone, next(feeds[1]))
    keeps = min(DECAY, (1 + step) / (10 + step))
    expected = jax.tree.map(
      lambda mean, leaf, keeps=keeps: keeps * mean + (1 - keeps) * leaf,
      expected,
      jax.tree.map(np.float64, state.params),
    )
    # Ops that the step did not use stay, and so pull the average to them.
    used = experiment.net.used(before, values.archs_PxE[0])
    assert not all(np.all(u) for u in jax.tree.leaves(used))
  for feed in feeds:
    feed.close()
  found = jax.tree.leaves(state.average['params'])
  for one, leaf in zip(found, jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, leaf, rtol=1e-4, atol=1e-6)
  for one, same in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True
  ):
    np.testing.assert_array_equal(one, same)


def test_snapshots_are_the_ends_of_cosines():
  def epochs(**changes):
    given = Ranking(average='scores', **changes)
    config = Config(
      warmup_epochs=10, epochs=30, optimizer=Optimizer(cycles=CYCLES),
      ranking=given,
    )  # fmt: skip
    validation.validate(config)
    return config.snapshot_epochs

  CYCLES = 4
  assert epochs() == [10, 20, 30, 40]
  assert epochs(snapshot_epochs=3, snapshots=2) == [37, 40]
  CYCLES = 1
  assert epochs() == [28, 32, 36, 40]
  assert Config().snapshot_epochs == []
  with pytest.raises(ValueError, match='begin after epoch 4, before the warm'):
    epochs(snapshots=10)


def test_ema_needs_one_that_was_kept():
  with pytest.raises(ValueError, match='ema needs a moving average'):
    validation.validate(Config(ranking=Ranking(average='ema')))


def test_cycles_divide_the_epochs():
  given = Config(
    space='small', warmup_epochs=1, epochs=4, optimizer=Optimizer(cycles=2)
  )
  with pytest.raises(ValueError, match='cycles 2 does not divide 5 epochs'):
    build.experiment(given)
