"""What is killed at any moment, and goes on, ends as if it had not been.

Three kills a command; `JAXNAS_KILLS=20 pytest -m slow tests/test_kills.py -s`
for more, and to see at which moments they fell.
"""

import collections
import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM

import children
import pytest
import small_run

from jaxnas import runs

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
    for name, array in runs.read_npz(file).items()
  }


def rows(file):
  """But for times."""
  return [
    {key: value for key, value in row.items() if key != 'images_per_s'}
    for row in runs.read_rows(file, {})
  ]


def states(folder):
  """Digests of every leaf: parameters, optimizer, sampler."""
  return {
    file.parents[1].name: json.loads(file.read_text())['leaves']
    for file in folder.glob('*/notes/metadata')
  }


def facts(file, *without):
  if not file.exists():
    return None
  values = json.loads(file.read_text())
  return {key: values[key] for key in values if key not in without}


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
    'correlation': facts(run / 'correlation.json'),
    'best': facts(run / 'search' / 'best.json', 'command', 'cpus', 'platform'),
    'table': facts(run / 'table.json', 'command'),
    'result': facts(run / 'result.json', 'command'),
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
  """What a run was at."""
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
  ended = children.run(case.command, case.argv(whole), log)
  assert ended.code == 0, log.read_text()
  expected = result(whole)
  assert any(expected.values())
  longest_s, kills, codes = ended.wall_s, 0, collections.Counter()
  moments: collections.Counter = collections.Counter()
  for attempt in range(10 * KILLS):
    run, killed_here = tmp_path / f'run_{attempt}', 0
    while True:
      number = rng.choice(children.SIGNALS)
      more = kills < KILLS and killed_here < AT_ONCE
      after_s = rng.uniform(0, longest_s) if more else None
      ended = children.run(case.command, case.argv(run), log, after_s, number)
      if ended.number is not None:
        kills, killed_here = kills + 1, killed_here + 1
        moments[moment(run)] += 1
        codes[ended.code] += 1
        assert ended.code in (-number, 143, 0, 1), log.read_text()
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


def writes(pattern):
  """Of a run: whether there is such a file."""
  return lambda run: any(run.glob(pattern))


def debiases(run):
  """A row of the debiased epochs is there."""
  file = run / 'metrics.jsonl'
  return file.exists() and '"step": 30' in file.read_text()


@pytest.mark.parametrize(
  ('when', 'number', 'code', 'more'),
  [
    (writes('checkpoints/*.orbax-checkpoint-tmp*'), SIGKILL, -SIGKILL, ()),
    (writes('density.npz.part'), SIGKILL, -SIGKILL, ()),
    # What it saves then, a run that is not stopped never has.
    (debiases, SIGTERM, 143, LONGER),
  ],
  ids=['checkpoint', 'density', 'row'],
)
def test_killed_when_it_writes_it_ends_the_same(
  cases, when, number, code, more, tmp_path
):
  def begun(run):
    return [*cases['train'].start(run), *more]

  case, log = dataclasses.replace(cases['train'], start=begun), tmp_path / 'log'
  whole, run = tmp_path / 'whole', tmp_path / 'run'
  assert children.run('train', case.argv(whole), log).code == 0
  ended = children.run(
    'train',
    case.argv(run),
    log,
    number=number,
    when=lambda: when(run),
  )
  assert ended.code == code, log.read_text()
  assert children.run('train', case.argv(run), log).code == 0, log.read_text()
  ours, theirs = result(run), result(whole)
  assert_the_same(ours, theirs, log)
  assert len(ours['checkpoints']) == len(theirs['checkpoints']) + bool(more)


def test_the_same_seed_gives_the_same_bits(cases, tmp_path):
  """In two processes, one of them with the flags that a GPU needs."""
  case, log = cases['train'], tmp_path / 'log'
  one, other = tmp_path / 'one', tmp_path / 'other'
  for run, more in ((one, []), (other, ['--deterministic'])):
    argv = [*case.argv(run), *more]
    assert children.run('train', argv, log).code == 0, log.read_text()
  assert result(one) == result(other)


def test_a_second_signal_ends_at_once():
  from jaxnas.training.preemption import Preemption

  pid = os.fork()
  if pid == 0:
    with Preemption() as preemption:
      os.kill(os.getpid(), children.signal.SIGTERM)
      assert preemption.requested
      os.kill(os.getpid(), children.signal.SIGINT)
      os._exit(0)
  assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
