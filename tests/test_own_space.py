"""Spaces, and other parts, that come from outside the package."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest

import jaxnas
from jaxnas import search, spaces, supernets
from jaxnas.config import registry, run_folder, trusted
from jaxnas.experiment import artifact, build

EXAMPLE = Path(__file__).parents[1] / 'examples' / 'own_space.py'


@pytest.fixture
def nothing_stays(monkeypatch):
  """Forgets after a test what it registers."""
  monkeypatch.setattr(spaces, 'SPACES', {**spaces.SPACES})
  monkeypatch.setattr(supernets, 'OWN', {})
  monkeypatch.setattr(trusted, '_owners', {})


class Free(jaxnas.Space):
  def costs(self, archs_AxE):
    return spaces.Costs(archs_AxE.sum(1), archs_AxE.sum(1))


FREE = Free('free', (('a', 'b'),) * 2, (8, 8, 1), 10)


class Good(jaxnas.Network):
  @nn.compact
  def __call__(self, x, arch, *, train):
    x = self.block(4)(name='stem')(x, train)
    for e in range(2):
      x = self.choice(e, [self.skip(4), self.block(4)])(x, arch[e], train)
    return self.classify(x)


class Forgetful(jaxnas.Network):
  """A net whose normalisation is its own and keeps nothing."""

  @nn.compact
  def __call__(self, x, arch, *, train):
    x = self.block(4)(name='stem')(x, train)
    return self.classify(x - x.mean(0))


class Flat(jaxnas.Network):
  """A net that gives a map and no logits."""

  @nn.compact
  def __call__(self, x, arch, *, train):
    return self.block(4)(name='stem')(x, train)


class OfFlax(jaxnas.Network):
  """A net with a layer that draws its own weights."""

  @nn.compact
  def __call__(self, x, arch, *, train):
    return self.classify(nn.Conv(4, (3, 3), name='conv')(x))


@pytest.mark.parametrize(
  ('net', 'error'),
  [
    (Good, None),
    (Forgetful, 'predicts an image otherwise alone than in a batch'),
    (Flat, r'shape \(1, 8, 8, 4\) for one image; it must be \(1, 10\)'),
    (OfFlax, 'conv/bias has an initialiser of Flax'),
  ],
)
def test_a_network_that_depends_on_the_batch_is_refused(
  net, error, nothing_stays
):
  jaxnas.register_space(FREE, net)
  given = jaxnas.Config(space='free')
  makers = (
    lambda: build.stand_alone(given, None),
    lambda: build.stand_alone(given, '01'),
    lambda: artifact.network(FREE, (0, 1), np.float32, None),
  )
  for make in makers:
    if error is None:
      make()
    else:
      with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.parametrize(
  ('space', 'net', 'error'),
  [
    (spaces.get('digits'), Good, 'is one of jaxnas: choose another name'),
    (FREE, nn.Dense, 'is no subclass of jaxnas.Network'),
    (FREE, Good(FREE), 'is no subclass of jaxnas.Network'),
    (
      spaces.Space('free', (('a', 'b'),), (8, 8, 1), 10),
      Good,
      'does not define its costs',
    ),
  ],
)
def test_what_is_no_space_of_ones_own(space, net, error, nothing_stays):
  for _ in range(2):
    with pytest.raises(ValueError, match=error):
      jaxnas.register_space(space, net)
  assert 'free' not in spaces.SPACES


def test_a_run_remembers_the_modules_that_it_needs(nothing_stays, tmp_path):
  jaxnas.register_space(FREE, Good)
  jaxnas.register_sampler('own', 'json.decoder:JSONDecoder')
  try:
    for sampler, modules in (
      ('uniform', __name__),
      ('own', f'json.decoder,{__name__}'),
    ):
      given = jaxnas.Config(space='free', sampler=jaxnas.Sampler(name=sampler))
      run_folder.open_run(tmp_path / sampler, given, resume=False)
      found = run_folder.read_config(tmp_path / sampler)
      assert found.modules == modules
      # It is the same experiment.
      assert not jaxnas.config.differences(found, given)
  finally:
    registry.SAMPLERS.remove('own')
  trusted._owners.clear()
  for flags in ([], ['--trust_module', 'jaxnas.spaces']):
    with pytest.raises(SystemExit):
      search.main(['--run', str(tmp_path / 'own'), *flags])
  with pytest.raises(ValueError, match='add --trust_module'):
    jaxnas.open_run(tmp_path / 'own')


NOTE = 'from pathlib import Path\nPath({!r}).touch()\n'


@pytest.fixture
def evil(tmp_path, monkeypatch, finished):
  """A run with a module in it, and the file that its code would write."""
  run, ran = tmp_path / 'run', tmp_path / 'ran'
  shutil.copytree(finished, run)
  for name in ('evil.py', 'undebiased/evil.py', 'pack/__init__.py'):
    file = run / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(NOTE.format(str(ran)))
  found = json.loads((run / 'config.json').read_text())
  del found['warmup_epochs']
  found['modules'] = 'evil'
  (run / 'config.json').write_text(json.dumps(found))
  monkeypatch.syspath_prepend(run)
  return run, ran


COMMANDS = ('rank', 'search', 'measure', 'retrain', 'export', 'report')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize(
  ('flags', 'error'),
  [
    ([], "needs the module 'evil'"),
    (['--trust_module', 'evil'], 'of which no code is run'),
    (['--trust_module', 'pack'], 'of which no code is run'),
    (['--trust_module', 'pack.inner'], 'of which no code is run'),
    (['--trust_module', '../evil'], 'is no name of a module'),
    (['--trust_module', 'absent_module'], 'cannot be imported'),
  ],
)
def test_a_run_that_was_handed_over_runs_no_code(
  command, flags, error, evil, capsys
):
  run, ran = evil
  main = __import__(
    f'jaxnas.{command}' + ('.__main__' if command == 'report' else ''),
    fromlist=['main'],
  ).main
  named = [str(run)] if command == 'report' else ['--run', str(run)]
  with pytest.raises(SystemExit) as ended:
    main([*named, *flags])
  assert ended.value.code == 2
  assert error in capsys.readouterr().err
  assert not ran.exists()


def test_a_module_that_is_trusted_is_imported(tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'trusted_example.py').write_text(
    NOTE.format(str(tmp_path / 'ran')) + 'raise KeyError(3)\n'
  )
  (tmp_path / 'run').mkdir()
  with pytest.raises(SystemExit):
    search.main(['--run', 'run', '--trust_module', 'trusted_example'])
  assert 'cannot be imported (KeyError: 3)' in capsys.readouterr().err
  assert (tmp_path / 'ran').exists()


def test_the_example_is_short():
  assert len(EXAMPLE.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_example_in_other_processes(tmp_path):
  shutil.copy(EXAMPLE, tmp_path)

  def call(*words):
    return subprocess.run(
      [sys.executable, *words],
      cwd=tmp_path,
      capture_output=True,
      text=True,
      check=False,
    )

  first = call('own_space.py')
  assert first.returncode == 0, first.stderr
  trust = '--trust_module', 'own_space'
  of_run = '--run', 'own'
  for words in (
    ('rank', *of_run),
    ('search', *of_run, '--workdir', 'found', '--searcher', 'random'),
    ('measure', *of_run),
    ('report', 'own'),
    ('retrain', *of_run, '--arch', 'best', '--retrain.epochs', '20',
     '--retrain.seeds', '1'),
    ('export', *of_run, '--arch', 'best'),
    ('export', '--run', 'own/retrain'),
    ('train', '--workdir', 'own', '--resume'),
  ):  # fmt: skip
    command, *flags = words
    refused = call('-m', f'jaxnas.{command}', *flags)
    assert refused.returncode == 2 and '--trust_module' in refused.stderr
    done = call('-m', f'jaxnas.{command}', *flags, *trust)
    assert done.returncode == 0, (words, done.stderr)
  result = json.loads((tmp_path / 'own/retrain/result.json').read_text())
  handed = json.loads(
    (tmp_path / 'own/retrain/export/network.json').read_text()
  )
  assert result['accuracy'] > 0.3
  assert handed['accuracy'] == pytest.approx(result['accuracy'], abs=0.02)


def test_a_module_of_this_folder_is_found_by_the_command(tmp_path, monkeypatch):
  """A console script has the folder of the script in its path, not this one."""
  (tmp_path / 'module_of_here.py').write_text('SEEN = True')
  monkeypatch.chdir(tmp_path)
  elsewhere = [p for p in sys.path if p not in ('', str(Path.cwd()))]
  monkeypatch.setattr(sys, 'path', elsewhere)
  monkeypatch.setattr(sys, 'modules', {**sys.modules})
  trusted.trust('module_of_here', lambda folder: False)
  assert sys.modules['module_of_here'].SEEN
