"""Commands that are killed at any moment go on and end as if never killed.

Three kills a command; `JAXNAS_KILLS=20 pytest -m slow tests/test_kills.py -s`
for more, and to see at which moments they fell.
"""

import collections
import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from jaxnas.runtime import files
from support import commands, small_run
from support.runs import rows

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get('JAXNAS_KILLS', '3'))

# Folders of them.
CHECKPOINTS = ('checkpoints', 'shifted')

# The longest that a run goes on to be killed.
AT_ONCE = 6


def arrays(file):
  if not file.exists():
    return None
  return {
    name: (array.dtype.str, array.shape, array.tobytes())
    for name, array in files.read_npz(file).items()
  }


def states(folder):
  """Digests of every leaf: parameters, optimizer, sampler."""
  return {
    file.parents[1].name: json.loads(file.read_text())['leaves']
    for file in folder.glob('*/notes/metadata')
  }


def metadata(file, *without):
  if not file.exists():
    return None
  values = json.loads(file.read_text())
  return {k: values[k] for k in values if k not in (*without, 'seal')}


def result(run: Path):
  """All that a command leaves, but for times and places."""
  return {
    **{
      str(file.relative_to(run)): arrays(file)
      for file in sorted(run.rglob('*.npz'))
    },
    **{
      str(file.relative_to(run)): rows(file)
      for file in sorted(run.rglob('*.jsonl'))
    },
    **{
      str(folder.relative_to(run)): states(folder)
      for name in CHECKPOINTS
      for folder in sorted(run.rglob(name))
    },
    'correlation': metadata(run / 'correlation.json'),
    'best': metadata(
      run / 'search' / 'best.json', 'command', 'cpus', 'platform'
    ),
    'table': metadata(run / 'table.json', 'command'),
    'result': metadata(run / 'result.json', 'command'),
  }


def assert_the_same(found, expected, log):
  """But for the checkpoint of a stop, which may be one of the newest."""
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    ours = found[key]
    if Path(key).name in CHECKPOINTS:
      more = ours.keys() - value.keys()
      assert len(more) <= 1, (key, more)
      ours = {step: ours[step] for step in ours if step not in more}
    assert ours == value, (key, log.read_text())


@dataclasses.dataclass
class Case:
  """A command, how it starts and how it goes on."""

  command: str
  start: Callable[[Path], list[str]]
  mark: str
  """The file from which on it goes on with --resume."""
  resumes: bool = True

  def argv(self, run: Path) -> list[str]:
    if self.resumes and (run / self.mark).exists():
      return ['--workdir', str(run), '--resume']
    return [*self.start(run), '--workdir', str(run)]


@pytest.fixture(scope='module')
def cases(small, tmp_path_factory):
  folder = tmp_path_factory.mktemp('config')
  flags, _ = small_run.flags_in(folder)
  flags = flags[:-2]
  retrain = [*flags[:2], '--retrain.epochs', '2', '--data.batch_size', '250']
  of_run = ['--run', str(small)]
  search = [*of_run, '--population', '4', '--generations', '3', '--parents',
            '2', '--searcher']  # fmt: skip
  return {
    'train': Case(
      'train',
      lambda _: [*flags, '--debias.temperature', '1'],
      'config.json',
    ),
    'train, baseline': Case(
      'train',
      lambda _: [
        *flags,
        '--debias.temperature',
        '1',
        '--debias.baseline',
        '--sampler.name',
        'tree',
        '--density.log_epochs',
        '1',
      ],
      'config.json',
    ),
    'rank': Case(
      'rank',
      lambda _: [
        *of_run,
        '--ranking.split',
        'test',
        '--ranking.images',
        '400',
        '--ranking.batch_size',
        '8',
      ],
      'none',
      resumes=False,
    ),
    'search, evolution': Case(
      'search', lambda _: [*search, 'evolution'], 'search.json'
    ),
    'search, shifting': Case(
      'search', lambda _: [*search, 'shifting'], 'search.json'
    ),
    'retrain --all': Case(
      'retrain',
      lambda _: [*retrain, '--retrain.seeds', '1', '--all'],
      'retrain.json',
    ),
    'retrain --arch': Case(
      'retrain',
      lambda _: [*retrain, '--retrain.seeds', '2', '--arch', '012'],
      'retrain.json',
    ),
  }


NAMES = (
  'train',
  'train, baseline',
  'rank',
  'search, evolution',
  'search, shifting',
  'retrain --all',
  'retrain --arch',
)


def moment(run: Path) -> str:
  """Returns how far a run has come, read from its files."""
  if not run.exists():
    return 'start'
  for pattern, name in (
    ('**/predictions.npz', 'ranked'),
    ('**/*.orbax-checkpoint-tmp*', 'writing a checkpoint'),
    ('**/density.npz', 'debiased'),
    ('**/state.npz', 'searching'),
    ('**/metrics.jsonl', 'training'),
    ('**/results.jsonl', 'training'),
  ):
    if any(run.glob(pattern)):
      return name
  return 'compiling'


@pytest.mark.parametrize('name', NAMES)
def test_killed_at_any_moment_it_ends_the_same(cases, name, tmp_path):
  case, rng = cases[name], random.Random(f'kills of {name}')
  log = tmp_path / 'log'
  whole = tmp_path / 'whole'
  ended = commands.run(case.command, case.argv(whole), log)
  assert ended.code == 0, log.read_text()
  expected = result(whole)
  assert any(expected.values())
  longest_s, kills, codes = ended.wall_s, 0, collections.Counter()
  moments: collections.Counter = collections.Counter()
  for attempt in range(10 * KILLS):
    run, killed_here = tmp_path / f'run_{attempt}', 0
    while True:
      number = rng.choice(commands.SIGNALS)
      more = kills < KILLS and killed_here < AT_ONCE
      after_s = rng.uniform(0, longest_s) if more else None
      ended = commands.run(case.command, case.argv(run), log, after_s, number)
      if ended.number is not None:
        kills, killed_here = kills + 1, killed_here + 1
        moments[moment(run)] += 1
        codes[ended.code] += 1
        assert ended.code in (-number, 128 + number, 0, 1), log.read_text()
      elif ended.code == 0 and after_s is not None:
        longest_s = min(longest_s, ended.wall_s)
      if ended.code == 0:
        break
      assert ended.number is not None, log.read_text()
    assert_the_same(result(run), expected, log)
    if kills >= KILLS:
      break
  print(f'\n{name}: {kills} kills, {dict(moments)}, exit codes {dict(codes)}')
  assert kills >= KILLS


# Long enough for a signal to come in time, with no checkpoint on the way.
LONGER = ('--epochs', '20', '--checkpoint.every_epochs', '21')


def debiases(run):
  """A row of the debiased epochs is there."""
  file = run / 'metrics.jsonl'
  return file.exists() and '"step": 30' in file.read_text()


@pytest.mark.parametrize(
  ('ends', 'code', 'more'),
  [
    # Checkpoints are folders named by their step.
    ({'before': '[0-9]*'}, -SIGKILL, ()),
    ({'before': 'density.npz'}, -SIGKILL, ()),
    # What it saves then, a run that is not stopped never has.
    ({'when': debiases, 'number': SIGTERM}, 143, LONGER),
  ],
  ids=['checkpoint', 'density', 'row'],
)
def test_killed_when_it_writes_it_ends_the_same(
  cases, ends, code, more, tmp_path
):
  def begun(run):
    return [*cases['train'].start(run), *more]

  case, log = dataclasses.replace(cases['train'], start=begun), tmp_path / 'log'
  whole, run = tmp_path / 'whole', tmp_path / 'run'
  assert commands.run('train', case.argv(whole), log).code == 0
  if when := ends.get('when'):
    ends = {**ends, 'when': lambda: when(run)}
  ended = commands.run('train', case.argv(run), log, **ends)
  assert ended.code == code, log.read_text()
  assert commands.run('train', case.argv(run), log).code == 0, log.read_text()
  ours, theirs = result(run), result(whole)
  assert_the_same(ours, theirs, log)
  assert len(ours['checkpoints']) == len(theirs['checkpoints']) + bool(more)


def test_suspended_it_keeps_its_folder_and_ends_the_same(cases, tmp_path):
  def begun(run):
    return [*cases['train'].start(run), *LONGER]

  case, log = dataclasses.replace(cases['train'], start=begun), tmp_path / 'log'
  whole, run, refused = tmp_path / 'whole', tmp_path / 'run', []

  def suspend():
    if not refused and debiases(run):
      pid = json.loads((run / '.lock').read_text())['pid']
      os.kill(pid, SIGSTOP)
      refused.append(commands.run('train', case.argv(run), log).code)
      os.kill(pid, SIGCONT)
    return False

  assert commands.run('train', case.argv(whole), log).code == 0
  ended = commands.run('train', case.argv(run), log, when=suspend)
  assert ended.code == 0 and refused == [2], log.read_text()
  assert 'is in use by process' in log.read_text()
  assert_the_same(result(run), result(whole), log)


def test_the_same_seed_gives_the_same_bits(cases, tmp_path):
  """In two processes, one of them with the flags that a GPU needs."""
  case, log = cases['train'], tmp_path / 'log'
  one, other = tmp_path / 'one', tmp_path / 'other'
  for run, more in ((one, []), (other, ['--deterministic'])):
    argv = [*case.argv(run), *more]
    assert commands.run('train', argv, log).code == 0, log.read_text()
  assert result(one) == result(other)


SIGNALLED_TWICE = """
import os, signal
from jaxnas.runtime.preemption import Preemption
with Preemption() as preemption:
  os.kill(os.getpid(), signal.SIGTERM)
  assert preemption.requested
  os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_second_signal_ends_at_once():
  ended = subprocess.run([sys.executable, '-c', SIGNALLED_TWICE])
  assert ended.returncode == 130
