"""Members of an ensemble at once have the bits of one after the other.

Devices are this machine's, in child processes.
"""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxnas import train
from jaxnas.config import Config, Mesh, Sampler, validation
from jaxnas.experiment import ensembles, trained
from jaxnas.runtime import files
from jaxnas.runtime.errors import Stopped
from jaxnas.training import together
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.turns import Asked
from support import runs, small_run
from support.many_devices import environment, found_by
from support.runs import result_of

DEBIASED = '--debias.temperature', '0.1'


def child(devices, *words):
  """Runs a module of these tests; returns its code and what it said."""
  done = subprocess.run(
    [sys.executable, '-m', *words],
    capture_output=True,
    text=True,
    env=environment(devices),
  )
  return done.returncode, done.stdout, done.stderr


def at_once(folder, devices, members):
  flags, run = small_run.flags_in(folder)
  more = '--ensemble', str(members), *DEBIASED
  code, out, err = child(devices, 'support.small_run', *flags, *more)
  assert not code, err
  size = min(devices, members)
  assert f'{members} members to train, {size} at once' in out
  return run


def resumed(run, devices, *more):
  return child(
    devices, 'support.small_run', '--workdir', str(run), '--resume', *more
  )


def steps(run):
  with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
    return checkpoints.steps()


def same_members(one, other, count):
  for number in range(count):
    first, second = (ensembles.folder(run, number) for run in (one, other))
    runs.same_run(first, second)
    densities = [files.read_npz(x / 'density.npz') for x in (first, second)]
    np.testing.assert_array_equal(*(found['alpha_A'] for found in densities))
    assert steps(first)[0] == steps(second)[0] == 20
    digests = []
    for run in (first, second):
      with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
        digests.append(checkpoints.digest(20))
    assert digests[0] == digests[1]


@pytest.fixture(scope='module')
def in_turn(tmp_path_factory):
  """Four members, one after the other."""
  with small_run.registered():
    folder = tmp_path_factory.mktemp('in_turn')
    yield small_run.train_in(folder, '--ensemble', '4', *DEBIASED)


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_each_member_on_a_device_has_the_same_bits(in_turn, tmp_path):
  run = at_once(tmp_path, devices=4, members=4)
  same_members(in_turn, run, 4)
  ours, theirs = (result_of(x / trained.ENSEMBLE) for x in (run, in_turn))
  assert ours == theirs
  names = [
    {path.relative_to(x).parts[:3] for path in x.rglob('*')}
    for x in (run, in_turn)
  ]
  assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_a_member_takes_the_device_of_one_that_is_done(in_turn, tmp_path):
  same_members(in_turn, at_once(tmp_path, devices=2, members=3), 3)


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_what_was_stopped_at_once_goes_on_in_turn(in_turn, tmp_path):
  """Stopped in the warm-up, and killed after it."""
  flags, run = small_run.flags_in(tmp_path)
  more = '--ensemble', '2', *DEBIASED
  code, _, err = child(2, 'support.member_runs', 'SIGTERM', '1', *flags, *more)
  assert code == 143, err
  places = [ensembles.folder(run, number) for number in range(2)]
  stopped = [steps(place)[-1] for place in places]
  # The first one hears of it after its next step, with the second one.
  assert stopped == [11, 11]
  code, _, err = child(
    2, 'support.member_runs', 'SIGKILL', '7', '--workdir', str(run), '--resume'
  )
  assert code == -9, err
  assert [steps(place)[-1] for place in places] == [20, 20]
  assert train.main(['--workdir', str(run), '--resume']) == 0
  same_members(in_turn, run, 2)


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_what_was_stopped_in_turn_goes_on_at_once(in_turn, tmp_path):
  """From different steps: one member waits where the other has some alone."""
  flags, run = small_run.flags_in(tmp_path)
  with runs.interrupted(40 + 12), pytest.raises(SystemExit):
    train.main([*flags, '--ensemble', '3', *DEBIASED])
  assert steps(ensembles.folder(run, 1)) == [12]
  code, out, err = resumed(run, 2, '--mesh.steps_per_dispatch', '5')
  assert not code, err
  assert '2 members to train, 2 at once' in out
  same_members(in_turn, run, 3)


@pytest.mark.slow
def test_a_member_that_is_not_finite_ends_the_run_by_its_name(tmp_path):
  flags, run = small_run.flags_in(tmp_path)
  code, _, err = child(
    2, 'support.member_runs', 'nan', '1', *flags, '--ensemble', '2'
  )
  assert code == 1
  said = err.splitlines()[-1]
  assert said.startswith('error: member 1: ') and 'step 0: loss nan' in said
  assert (run / 'members' / '1' / 'dump-0').is_dir()


def test_a_member_that_waits_keeps_its_state(tmp_path):
  found = found_by(2, 'support.group_runs', tmp_path / 'found.npz')
  np.testing.assert_array_equal(found['got'], found['expected'])


def test_more_devices_than_there_are_are_refused(tmp_path, capsys):
  flags, run = small_run.flags_in(tmp_path)
  with small_run.registered(), pytest.raises(SystemExit) as ended:
    train.main([*flags, '--ensemble', '2', '--mesh.members', '2'])
  assert ended.value.code == 2 and not run.exists()
  said = capsys.readouterr().err.splitlines()[-1]
  assert said == (
    'error: mesh.members 2 is 2 devices; there are 1. It may be left out.'
  )


def test_several_processes_have_no_members_at_once(monkeypatch):
  given = Config(ensemble=2, mesh=Mesh(members=2))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='of one process, and there are 2'):
    ensembles.check(given)


@pytest.mark.parametrize(
  ('given', 'said'),
  [
    (Config(mesh=Mesh(members=2)), 'more than the ensemble of 1'),
    (
      Config(
        ensemble=2, mesh=Mesh(members=2, paths=2), sampler=Sampler(paths=2)
      ),
      'times mesh.paths 2 asks for 2',
    ),
  ],
)
def test_members_that_cannot_be_at_once_are_refused(given, said):
  with pytest.raises(ValueError, match=said):
    validation.validate(given)


@pytest.mark.parametrize(
  ('ensemble', 'devices', 'processes', 'mesh', 'expected'),
  [
    (4, 1, 1, Mesh(), 1),
    (4, 2, 1, Mesh(), 2),
    (3, 8, 1, Mesh(), 3),
    (4, 8, 1, Mesh(members=2), 2),
    (4, 8, 2, Mesh(), 1),
    (4, 8, 1, Mesh(data=4), 1),
  ],
)
def test_how_many_are_at_once(
  monkeypatch, ensemble, devices, processes, mesh, expected
):
  monkeypatch.setattr(jax, 'device_count', lambda: devices)
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  given = Config(ensemble=ensemble, mesh=mesh)
  assert ensembles.at_once(given) == expected


class FakeGroup:
  """Notes which places take how many steps; its 'metrics' are those steps."""

  def __init__(self, step_fn, size):
    self.places = range(size)
    self.ran = step_fn

  def run(self, asked, steps):
    self.ran.append(
      (steps, {place: inputs for place, (_, inputs) in asked.items()})
    )
    if 'fail' in self.ran[-1][1].values():
      raise MemoryError
    return {place: lambda: steps for place in asked}


@pytest.fixture
def trainings(monkeypatch):
  """trainings(names): members that ask for steps, and what was run."""
  monkeypatch.setattr(together, 'Group', FakeGroup)
  ran, ended = [], []

  def make(*given):
    def turns(name, asks, held):
      try:
        for steps in asks:
          if isinstance(steps, BaseException):
            raise steps
          read = yield Asked(name, steps)
          assert read() == steps
      except MemoryError:
        raise OSError(name) from None
      except GeneratorExit:
        ended.append(name)
        raise
      return name, held

    return [
      together.Member(ran, lambda held, of=one: turns(*of, held))
      for one in given
    ]

  return make, ran, ended


def test_the_next_member_takes_the_place_of_one_that_is_done(trainings):
  make, ran, _ = trainings
  members = make(('a', [1]), ('b', []), ('c', [1, 1]), ('d', [1, 1]))
  # The second one had nothing to do.
  assert together.drive(members, 2) == [('a', 0), ('b', 1), ('c', 1), ('d', 0)]
  assert [sorted(places.values()) for _, places in ran] == [
    ['a', 'c'], ['c', 'd'], ['d'],
  ]  # fmt: skip


def test_who_asks_for_more_steps_waits(trainings):
  make, ran, _ = trainings
  together.drive(make(('a', [5, 5]), ('b', [1, 1, 5])), 2)
  assert [(steps, [*places.values()]) for steps, places in ran] == [
    (1, ['b']), (1, ['b']), (5, ['a', 'b']), (5, ['a']),
  ]  # fmt: skip


def test_a_signal_stops_all_and_begins_none(trainings):
  make, ran, ended = trainings
  members = make(('a', [1, Stopped()]), ('b', [1, 1, Stopped()]), ('c', [1]))
  with pytest.raises(Stopped):
    together.drive(members, 2)
  assert [list(places.values()) for _, places in ran] == [['a', 'b'], ['b']]
  assert not ended


def test_an_error_of_one_ends_all(trainings):
  make, _, ended = trainings
  members = make(('a', [1, 1]), ('b', [1, ValueError('b')]), ('c', [1]))
  with pytest.raises(ValueError, match='b'):
    together.drive(members, 2)
  assert ended == ['a']


def test_an_error_of_the_program_is_told_by_one(trainings):
  make, _, ended = trainings
  with pytest.raises(OSError, match='fail'):
    together.drive(make(('fail', [1]), ('b', [1])), 2)
  assert ended == ['b']
