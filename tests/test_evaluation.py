"""Images classified by a walk, path by path, and after a cut."""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces, supernets
from jaxnas.experiment import predictions
from jaxnas.runtime import files
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.rng import generator
from jaxnas.supernets import evaluation
from support import small_run
from support.small_run import SPACE, ARCHS_AxE

pytestmark = pytest.mark.usefixtures('small_space')

NET = supernets.build(SPACE)
MIXTURE = supernets.Mixture(NET, 2)
MEMBER_A = np.random.default_rng(1).integers(2, size=27)
ROUTED_AxF = np.column_stack([ARCHS_AxE, MEMBER_A]).astype(np.int32)


def images(space, count, seed=0):
  """Random ones, by index."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(count, *space.image_shape)).astype(np.float32)
  y = rng.integers(space.classes, size=count).astype(np.int32)
  return jnp.asarray(x), jnp.asarray(y)


def counts(net, variables, archs_AxE, x, y, batch_size, **options):
  """(right_AxI, accuracy_A)."""
  kept = []
  accuracy_A = evaluation.accuracies(
    net,
    variables,
    archs_AxE,
    lambda indices_B: (x[indices_B], y[indices_B]),
    len(y),
    batch_size=batch_size,
    label=None,
    keep=lambda right_AxI: kept.append(right_AxI.copy()),
    **options,
  )
  return kept[-1], accuracy_A


def walk_and_paths(space, archs_AxE, count, batch_size):
  net = supernets.build(space)
  variables = supernets.init(net, archs_AxE[0], 0)
  data = images(space, count)
  return [
    counts(each, variables, archs_AxE, *data, batch_size)
    for each in (net, supernets.StandAlone(net))
  ]


@pytest.mark.parametrize(
  ('name', 'count', 'batch_size', 'archs'),
  [
    ('small', 240, 80, 27),
    pytest.param('digits', 24, 8, 81, marks=pytest.mark.slow),
    pytest.param('nas_bench_macro', 32, 32, 200, marks=pytest.mark.slow),
  ],
)
def test_a_walk_counts_what_each_path_alone_counts(
  name, count, batch_size, archs
):
  space = spaces.get(name)
  archs_AxE = space.subset(generator(0, 'some'), archs)
  rng = np.random.default_rng(0)
  (walked_AxI, accuracy_A), (alone_AxI, _) = walk_and_paths(
    space, rng.permutation(archs_AxE), count, batch_size
  )
  np.testing.assert_array_equal(walked_AxI, alone_AxI)
  np.testing.assert_array_equal(accuracy_A, walked_AxI.sum(1) / count)
  assert len(np.unique(walked_AxI, axis=0)) > 5


@dataclasses.dataclass(frozen=True)
class Shifted:
  """Says of an image what its first pixel is, plus what the arch is."""

  sequential: ClassVar[bool] = False

  def apply(self, variables, x_BxHxWxC, arch_E, *, train):
    assert not train and not variables
    return jax.nn.one_hot((x_BxHxWxC[:, 0, 0, 0] + arch_E[0]) % 10, 10)


def test_batches_are_nearly_equal_and_each_image_counts_once():
  x, y = jnp.zeros((29, 8, 8, 1)), jnp.arange(29, dtype=jnp.int32) % 10
  archs_AxE = np.arange(10, dtype=np.int32)[:, None]
  right_AxI, accuracy_A = counts(Shifted(), {}, archs_AxE, x, y, 10)
  expected_AxI = np.arange(10)[:, None] == np.arange(29) % 10
  np.testing.assert_array_equal(right_AxI, expected_AxI)
  np.testing.assert_array_equal(accuracy_A, expected_AxI.sum(1) / 29)
  assert [len(part) for part in evaluation.split(29, 10)] == [10, 10, 9]


def way(name):
  """Net, archs and options of one way to evaluate."""
  net = MIXTURE if name == 'mixture' else NET
  archs_AxF = ROUTED_AxF if name == 'mixture' else ARCHS_AxE
  options = {}
  if name == 'calibrated':
    # As many and as large as those of the run below: compiled once.
    x, _ = images(SPACE, 500, seed=3)
    options['calibration'] = jnp.stack(jnp.split(x, 20))
  variables = supernets.init(net, archs_AxF[0], 0)
  return functools.partial(counts, net, variables, archs_AxF, **options)


def test_a_mixture_counts_what_its_members_count():
  x, y = images(SPACE, 30)
  right_AxI, _ = way('mixture')(x, y, 10)
  variables = supernets.init(MIXTURE, ROUTED_AxF[0], 0)
  of_members = [
    counts(
      NET,
      jax.tree.map(lambda leaf, m=m: leaf[m], variables),
      ARCHS_AxE, x, y, 10,
    )[0]
    for m in range(2)
  ]  # fmt: skip
  assert (of_members[0] != of_members[1]).any()
  np.testing.assert_array_equal(
    right_AxI, np.choose(MEMBER_A[:, None], of_members)
  )


@pytest.mark.parametrize(
  ('name', 'at_once', 'exchanges'),
  [('walk', 64, 3), ('walk', 10, 9), ('mixture', 64, 3), ('calibrated', 64, 3)],
)
def test_several_processes_exchange_a_batch_at_once(
  name, at_once, exchanges, monkeypatch
):
  x, y = images(SPACE, 30)
  wanted, _ = way(name)(x, y, 10)
  fetched, fetch = [], evaluation.processes.fetch
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(evaluation, 'AT_ONCE', at_once)
  monkeypatch.setattr(
    evaluation.processes, 'fetch', lambda x: fetched.append(x) or fetch(x)
  )
  found, _ = way(name)(x, y, 10)
  np.testing.assert_array_equal(found, wanted)
  assert len(fetched) == exchanges


@pytest.mark.parametrize('name', ['walk', 'mixture', 'calibrated'])
def test_what_is_known_is_not_evaluated_again(name):
  evaluate, (x, y) = way(name), images(SPACE, 30)
  whole_AxI, accuracy_A = evaluate(x, y, 10)
  known = np.random.default_rng(2).random((27, 3)) < 0.5
  # Batches and architectures of which nothing is missing.
  known[:, 1], known[:20] = True, True
  # What is said to be known is wrong.
  known_AxI = known.repeat(10, axis=1)
  planted_AxI = np.where(known_AxI, 1 - whole_AxI, evaluation.MISSING)
  before_AxI = planted_AxI.copy()
  polls = []
  found_A = evaluate(
    x, y, 10, known=planted_AxI, poll=lambda: polls.append(1),
  )[1]  # fmt: skip
  np.testing.assert_array_equal(planted_AxI, before_AxI)
  expected_AxI = np.where(known_AxI, 1 - whole_AxI, whole_AxI)
  np.testing.assert_array_equal(found_A, expected_AxI.sum(1) / 30)
  missing_N = (~known).sum(0)
  assert (
    len(polls)
    == {
      'walk': missing_N.sum(),
      # What is missing of a batch is one block.
      'mixture': (missing_N > 0).sum(),
      'calibrated': (missing_N > 0).sum(),
    }[name]
  )
  assert accuracy_A.max() <= 1


@pytest.mark.parametrize('name', ['walk', 'mixture', 'calibrated'])
def test_with_all_known_no_image_is_read(name):
  evaluate, (x, y) = way(name), images(SPACE, 30)
  whole_AxI, accuracy_A = evaluate(x, y, 10)

  def poll():
    raise AssertionError

  def keep(right_AxI):
    raise AssertionError

  net, variables, archs_AxE = evaluate.args
  found_A = evaluation.accuracies(
    net, variables, archs_AxE, poll, 30, batch_size=10, label=None, poll=poll,
    keep=keep, known=whole_AxI, **evaluate.keywords,
  )  # fmt: skip
  np.testing.assert_array_equal(found_A, accuracy_A)


def test_keep_sees_every_cell_come_once():
  seen = []
  x, y = images(SPACE, 30)
  variables = supernets.init(NET, ARCHS_AxE[0], 0)
  evaluation.accuracies(
    NET, variables, ARCHS_AxE, lambda i_B: (x[i_B], y[i_B]), 30, batch_size=10,
    label=None, keep=lambda right_AxI: seen.append(right_AxI.copy()),
  )  # fmt: skip
  assert [(right_AxI >= 0).sum() for right_AxI in seen] == [*range(10, 820, 10)]
  for one, next_ in itertools.pairwise(seen):
    assert (next_[one >= 0] == one[one >= 0]).all()


# Rankings of a run.


class Polls:
  """Counts, and stops a ranking after so many."""

  def __init__(self, until=None):
    self.until, self.count = until, 0

  def __call__(self):
    if self.count == self.until:
      raise Stopped
    self.count += 1


class Noted(Polls):
  def __init__(self, note):
    super().__init__()
    self.note = note

  def __call__(self):
    self.note()
    super().__call__()


@functools.cache
def loaded(run, bn):
  return small_run.loaded(run, bn=bn)


def predict(run, bn, workdir, poll=None, archs_AxE=ARCHS_AxE):
  workdir.mkdir(exist_ok=True)
  poll = poll or Polls()
  predictions.predict(*loaded(run, bn), archs_AxE, workdir, poll)
  return files.read_npz(workdir / 'predictions.npz'), poll.count


# Evaluations in all, until it stops, and of the rest: blocks of 8 calibrated
# architectures, all of them on one of three batches after the other.
CUTS = {
  'batch': (81, 40, 41),
  'running': (81, 40, 41),
  'recalibrate': (12, 5, 7),
}


@pytest.mark.parametrize(
  'bn',
  ['batch', pytest.param('running', marks=pytest.mark.slow), 'recalibrate'],
)
def test_a_ranking_cut_short_goes_on_to_the_same_end(small, tmp_path, bn):
  total, until, rest = CUTS[bn]
  whole, polls = predict(small, bn, tmp_path / 'whole')
  assert polls == total
  right_AxI = np.unpackbits(whole['right_AxW'], axis=1, count=30)
  np.testing.assert_array_equal(right_AxI.mean(axis=1), whole['accuracy_A'])
  with pytest.raises(Stopped):
    predict(small, bn, tmp_path / 'cut', Polls(until))
  part = tmp_path / 'cut' / 'predictions.part.npz'
  assert [*(tmp_path / 'cut').iterdir()] == [part]
  resumed, polls = predict(small, bn, tmp_path / 'cut')
  assert polls == rest
  assert whole.keys() == resumed.keys()
  for name in whole:
    assert whole[name].tobytes() == resumed[name].tobytes()
  assert [*(tmp_path / 'cut').iterdir()] == [
    tmp_path / 'cut' / 'predictions.npz'
  ]
  assert np.ptp(whole['accuracy_A']) > 0


def test_without_a_warning_little_is_lost(small, tmp_path, monkeypatch):
  monkeypatch.setattr(predictions, 'SECONDS_BETWEEN_COPIES', -1.0)
  part, seen = tmp_path / 'predictions.part.npz', []

  def poll():
    if part.exists():
      seen.append((files.read_npz(part)['right_AxI'] >= 0).sum())

  predict(small, 'batch', tmp_path, Noted(poll))
  assert seen == [*range(10, 810, 10)]


def planted(run, workdir):
  """A part that claims that every image is right."""
  with pytest.raises(Stopped):
    predict(run, 'batch', workdir, Polls(1))
  part = workdir / 'predictions.part.npz'
  kept = files.read_npz(part)
  files.write_npz(part, kept | {'right_AxI': np.ones((27, 30), np.int8)})


def test_a_part_is_believed(small, tmp_path):
  planted(small, tmp_path)
  found, polls = predict(small, 'batch', tmp_path)
  assert polls == 0
  assert (found['accuracy_A'] == 1).all()


def test_a_part_that_has_everything_is_believed_where_calibrated(
  small, tmp_path
):
  """Killed between the last copy and the predictions."""
  whole, _ = predict(small, 'recalibrate', tmp_path / 'whole')
  with pytest.raises(Stopped):
    predict(small, 'recalibrate', tmp_path, Polls(11))
  part = tmp_path / 'predictions.part.npz'
  kept = files.read_npz(part)
  kept['right_AxI'][kept['right_AxI'] == evaluation.MISSING] = 0
  files.write_npz(part, kept)
  found, polls = predict(small, 'recalibrate', tmp_path)
  assert polls == 0
  np.testing.assert_array_equal(
    found['accuracy_A'][:24], whole['accuracy_A'][:24]
  )


@pytest.mark.parametrize('other', ['step', 'weights', 'ranking', 'archs'])
def test_a_part_of_something_else_is_not(small, tmp_path, other):
  planted(small, tmp_path)
  experiment, state = loaded(small, 'batch')
  archs_AxE = ARCHS_AxE
  if other == 'step':
    state = dataclasses.replace(state, step=state.step - 1)
  if other == 'weights':
    params = jax.tree.map(lambda leaf: leaf + 0.01, state.params)
    state = dataclasses.replace(state, params=params)
  if other == 'ranking':
    fields = dataclasses.replace(experiment.config.ranking, split='test')
    given = dataclasses.replace(experiment.config, ranking=fields)
    experiment = dataclasses.replace(experiment, config=given)
  if other == 'archs':
    archs_AxE = ARCHS_AxE[::-1].copy()
  polls = Polls()
  predictions.predict(experiment, state, archs_AxE, tmp_path, polls)
  assert polls.count == 81
  found = files.read_npz(tmp_path / 'predictions.npz')
  assert found['accuracy_A'].max() < 1
  np.testing.assert_array_equal(found['archs_AxE'], archs_AxE)
