"""The command on runs of both kinds; tiny, with weights that are no use."""

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import export, retrain, spaces
from jaxnas.config import (
  Config,
  Data,
  Optimizer,
  Ranking,
  Sampler,
  Supernet,
  run_flags,
  run_folder,
)
from jaxnas.config import Retrain as Retraining
from jaxnas.experiment import artifact, build, ranking, stand_alone, trained
from jaxnas.experiment import export as experiment_export
from jaxnas.runtime import files
from jaxnas.supernets import recalibration
from jaxnas.training.checkpoint import Checkpoints
from support import runs, small_run

ARCH = '120'
GIVEN = Config(
  space='small',
  warmup_epochs=1,
  epochs=1,
  data=Data(batch_size=50),
  optimizer=Optimizer(peak_lr=0.05),
  ranking=Ranking(images=100, batch_size=100, archs=3),
  retrain=Retraining(epochs=1, seeds=2),
)


def write_run(folder, config, *, steps=None):
  """A run as jaxnas.train leaves it, its weights made up."""
  experiment = build.experiment(config)
  rng = np.random.default_rng(0)
  state = experiment.init_state()
  state = dataclasses.replace(
    state,
    step=jnp.int32(
      experiment.training.steps_per_epoch * 2 if steps is None else steps
    ),
    params=jax.tree.map(
      lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32),
      state.params,
    ),
  )
  if config.sampler.name == 'mixture':
    # The second member serves every architecture best, by far.
    balanced = state.sampler.w_AxM.at[::2, 1].set(9).at[1::2, 0].set(9)
    state = dataclasses.replace(
      state, sampler=state.sampler._replace(w_AxM=balanced)
    )
  run_folder.open_run(folder, config, resume=False)
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    checkpoints.save(state, {'window': [], 'skipped': []})
  runs.write_result(folder, 'correlation.json', {'best_arch': ARCH})
  return folder


@pytest.fixture(scope='module', autouse=True)
def registered():
  with small_run.registered():
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('trained') / 'run', GIVEN)


def refused(words, capsys, code=2):
  """Returns the one line with which the command ends."""
  with pytest.raises(SystemExit) as ended:
    export.main(list(map(str, words)))
  err = capsys.readouterr().err
  assert ended.value.code == code, err
  assert err.startswith('error: ') and err.count('\n') == 1
  return err


def inherited_logits(run, arch, images, batches=None):
  """uint8 images -> what the supernet says of them."""
  config = run_folder.read_config(run)
  bn = {'bn': 'recalibrate', 'calibration_batches': batches}
  experiment, state = trained.load(
    run, config, dataclasses.replace(run_flags.ranking_of(config), **bn)
  )
  net, held_out = experiment.net, experiment.held_out.calibration
  arch_F = jnp.asarray(
    experiment.sampler.route(state.sampler, experiment.space.parse(arch)[None])[
      0
    ]
  )
  indices_NxB = np.arange(len(held_out)).reshape(-1, config.data.batch_size)
  frozen = jax.jit(functools.partial(recalibration.statistics, net))(
    state.params,
    arch_F,
    jnp.stack([held_out.batch(indices_B)[0] for indices_B in indices_NxB]),
  )
  say = jax.jit(functools.partial(recalibration.logits, net))
  x = held_out.normalise(jnp.asarray(images))
  return np.asarray(say(state.params, frozen, x, arch_F))


def pixels(count, *, shape=(8, 8, 1)):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (count, *shape)).astype(np.uint8)


# What a stranger does who has jax alone.
STRANGER = """
import sys
sys.modules.update(dict.fromkeys(('jaxnas', 'flax', 'orbax')))
import numpy as np
from jax import export
network = export.deserialize(open(sys.argv[1], 'rb').read())
images = np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: network.call(images[name]) for name in images})
"""


def run_by_stranger(file, images, folder):
  np.savez(folder / 'in.npz', *images)
  command = [sys.executable, '-I', '-c', STRANGER, file]
  subprocess.run(
    [*command, folder / 'in.npz', folder / 'out.npz'],
    check=True,
    cwd=folder,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  return list(files.read_npz(folder / 'out.npz').values())


def close(found, expected, share=1e-5):
  np.testing.assert_allclose(
    found, expected, rtol=0, atol=share * abs(expected).max()
  )


@pytest.fixture(scope='module')
def handed_over(run, tmp_path_factory):
  """(folder, uint8 images, what the run says of them)."""
  workdir = tmp_path_factory.mktemp('exported') / 'deep' / 'network'
  words = ['--run', run, '--arch', 'best', '--batches', '3', '--out', workdir]
  assert export.main(list(map(str, words))) == 0
  # Those on which the command compared, so that no shape is a new one.
  held_out = build.experiment(GIVEN).held_out.ranking
  images = np.asarray(held_out.read(np.arange(artifact.COMPARED))[0])
  return workdir, images, inherited_logits(run, ARCH, images, 3)


def test_inherited_weights_run_where_there_is_no_jaxnas(handed_over, tmp_path):
  workdir, images, expected = handed_over
  sizes = (1, 5, len(images))
  found = run_by_stranger(
    workdir / 'network.bin', [images[:size] for size in sizes], tmp_path
  )
  for size, logits_BxK in zip(sizes, found, strict=True):
    assert logits_BxK.dtype == np.float32
    close(logits_BxK, expected[:size])


def test_parameters_and_facts_are_those_of_the_network(run, handed_over):
  workdir, images, expected = handed_over
  assert {file.name for file in workdir.iterdir()} == {
    'network.bin', 'network.json', 'params', 'README.md', 'requirements.txt',
  }  # fmt: skip
  space, metadata = small_run.SPACE, runs_json(workdir / 'network.json')
  costs = space.costs(space.parse(ARCH)[None])
  experiment = build.experiment(GIVEN)
  mean_C = experiment.held_out.ranking.normalise.mean_C
  assert metadata['arch'] == ARCH and metadata['space'] == 'small'
  assert metadata['ops'] == ['MB1_K3', 'MB2_K3', 'ID']
  assert metadata['mean'] == mean_C.tolist()
  assert metadata['image_shape'] == [8, 8, 1] and metadata['classes'] == 10
  assert metadata['params'] == costs.params_A[0] > 0
  assert metadata['macs'] == costs.macs_A[0]
  assert metadata['weights'] == {
    'from': 'inherited',
    'run': str(run),
    'step': 20,
    'calibration_batches': 3,
    'calibration_images': 150,
  }
  assert metadata['largest_difference'] < 1e-4
  assert metadata['versions']['jax'] == jax.__version__
  assert (metadata['accuracy_images'], metadata['accuracy_split']) == (
    100,
    'validation',
  )

  alone, variables = artifact.load(workdir)
  assert alone.arch == (1, 2, 0)
  own = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert own == metadata['params']
  x = experiment.held_out.ranking.normalise(jnp.asarray(images))
  say = jax.jit(functools.partial(artifact.logits, alone))
  close(say(variables, x), expected)


def runs_json(file):
  return json.loads(file.read_text())


# A page's code with images of one's own, which says its logits.
YOURS = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))
{code}
np.save('/'.join((sys.argv[2], 'out.npy')), np.asarray(logits.tolist()))
"""


def codes(folder):
  """Returns the pieces of code of an exported page."""
  page = (folder / 'README.md').read_text()
  return re.findall(r'```python\n(.*?)```', page, re.DOTALL)


def told_by(code, folder, images, absent, tmp_path):
  """A stranger who pastes the code in the exported folder learns this."""
  np.save(tmp_path / 'in.npy', images)
  yours = f"images = np.load('{tmp_path}/in.npy')"
  code, replaced = re.subn('images = .* # yours', yours, code)
  assert replaced == 1
  subprocess.run(
    [sys.executable, '-c', YOURS.format(code=code), absent, tmp_path],
    check=True,
    cwd=folder,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  return np.load(tmp_path / 'out.npy')


def test_the_page_says_how_to_load_it(handed_over, tmp_path):
  workdir, images, expected = handed_over
  (code,) = codes(workdir)
  found = told_by(code, workdir, images, 'jaxnas,flax,orbax', tmp_path)
  close(found, expected)
  page = (workdir / 'README.md').read_text()
  for says in (
    '# 120 of small', '(N, 8, 8, 1)', 'one, grey', 'classes | 0 to 9',
    'shared in the supernet', 'mean 0.3', '150 training',
  ):  # fmt: skip
    assert says in page, page
  assert (
    f'jax>={jax.__version__}\n' in (workdir / 'requirements.txt').read_text()
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('space', 'arch', 'activation'),
  [
    ('digits', '0121', None),
    ('digits', '0121', 'hard_swish'),
    ('pooling', '4,7', None),
    ('nas_bench_201', None, None),
  ],
)
def test_pages_say_how_to_load_it_into_others(
  space, arch, activation, own_images, tmp_path
):
  """PyTorch, and any runtime of ONNX."""
  forms = ['--torch']
  if all(map(importlib.util.find_spec, export.PACKAGES['onnx'])):
    forms.append('--onnx')
  config = dataclasses.replace(
    GIVEN,
    space=space,
    data=GIVEN.data if space == 'digits' else own_images,
    supernet=Supernet(activation=activation),
    ranking=Ranking(split='test', archs=2, batch_size=20),
  )
  run = write_run(tmp_path / 'run', config)
  subset = spaces.get(space)
  arch = arch or subset.format(subset.random(np.random.default_rng(3), 1)[0])
  workdir = tmp_path / 'network'
  words = ['--run', run, '--arch', arch, '--workdir', workdir, *forms]
  assert export.main(list(map(str, words))) == 0
  images = pixels(3, shape=subset.image_shape)
  expected = inherited_logits(run, arch, images)
  _, *others = codes(workdir)
  assert len(others) == len(forms)
  for code, absent in zip(others, ('optax', 'jaxnas,jax,torch'), strict=False):
    found = told_by(code, workdir, images, absent, tmp_path)
    close(found, expected, 1e-4)


@pytest.mark.slow
def test_its_accuracy_is_that_of_a_ranking(run, tmp_path):
  words = ['--run', run, '--arch', '201', '--workdir', tmp_path / 'network']
  export.main(list(map(str, words)))
  metadata = runs_json(tmp_path / 'network' / 'network.json')
  as_given = dataclasses.replace(run_flags.ranking_of(GIVEN), bn='recalibrate')
  experiment, state = trained.load(run, GIVEN, as_given)
  archs_1xE = small_run.SPACE.parse('201')[None]
  (accuracy,) = ranking.accuracies(experiment, state, archs_1xE)
  assert metadata['accuracy'] == accuracy
  assert metadata['accuracy_images'] == 100
  # Twenty of them do not fit.
  assert metadata['weights']['calibration_batches'] == 10


@pytest.mark.slow
def test_of_a_mixture_the_member_that_serves_the_architecture(tmp_path):
  config = dataclasses.replace(GIVEN, sampler=Sampler('mixture', members=2))
  run = write_run(tmp_path / 'run', config)
  said = {}
  for arch in ('120', '121'):
    words = ['--run', run, '--arch', arch, '--workdir', tmp_path / arch]
    export.main(list(map(str, words)))
    metadata = runs_json(tmp_path / arch / 'network.json')
    said[arch] = metadata['weights']['member']
    images = pixels(4)
    found = artifact.load_program(tmp_path / arch).call(images)
    close(np.asarray(found), inherited_logits(run, arch, images))
  assert said == {'120': 0, '121': 1}


@pytest.fixture(scope='module')
def own_images(tmp_path_factory):
  """Images of 32x32, for spaces that take no other size."""
  rng, file = np.random.default_rng(0), tmp_path_factory.mktemp('x') / 'x.npz'
  x = {
    f'x_{part}': rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    for part, count in (('train', 40), ('test', 20))
  }
  y = {f'y_{part}': np.arange(count) % 10 for part, count in
       (('train', 40), ('test', 20))}  # fmt: skip
  np.savez(file, **x, **y)
  return Data('arrays', str(file), batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('space', 'arch'), [('pooling', '4,7'), ('nas_bench_201', None)]
)
def test_other_spaces(space, arch, own_images, tmp_path):
  config = dataclasses.replace(
    GIVEN,
    space=space,
    data=own_images,
    ranking=Ranking(split='test', archs=2, batch_size=20),
  )
  run = write_run(tmp_path / 'run', config)
  subset = spaces.get(space)
  arch = arch or subset.format(subset.random(np.random.default_rng(3), 1)[0])
  words = ['--run', run, '--arch', arch, '--workdir', tmp_path / 'network']
  assert export.main(list(map(str, words))) == 0
  images = pixels(3, shape=(32, 32, 3))
  found = artifact.load_program(tmp_path / 'network').call(images)
  close(np.asarray(found), inherited_logits(run, arch, images))


TINY = """
from jaxnas.config import *
def get_config():
  return Config(
    space='small',
    data=Data(batch_size=250),
    optimizer=Optimizer(peak_lr=0.05),
    retrain=Retrain(epochs=2, seeds=2, ema_decay=0.5),
  )
"""


@pytest.mark.slow
def test_retrained_weights_as_they_are(tmp_path, capsys):
  (tmp_path / 'tiny.py').write_text(TINY)
  run = tmp_path / 'run'
  words = ['--config', str(tmp_path / 'tiny.py'), '--workdir', str(run)]
  retrain.main([*words, '--arch', ARCH])
  built = build.stand_alone(run_folder.read_config(run), ARCH)
  say = jax.jit(
    lambda variables, x: built.net.apply(variables, x, None, train=False)
  )
  images, said = pixels(7), []
  for flags, seed in (([], 0), (['--seed', '1', '--arch', ARCH], 1)):
    workdir = tmp_path / str(seed)
    export.main(['--run', str(run), '--workdir', str(workdir), *flags])
    state = stand_alone.last_state(built, run, seed)
    alone, variables = artifact.load(workdir)
    assert alone == built.net
    jax.tree.map(np.testing.assert_array_equal, variables, state.average)
    found = artifact.load_program(workdir).call(images)
    x = built.test.normalise(jnp.asarray(images))
    close(np.asarray(found), np.asarray(say(state.average, x)))
    assert abs(found - say({'params': state.params, **state.statistics}, x)
               ).max() > 1e-3  # fmt: skip
    weights = runs_json(workdir / 'network.json')['weights']
    result = runs_json(run / 'result.json')
    assert weights == {
      'from': 'retrained',
      'run': str(run),
      'step': 4,
      'seed': seed,
      'moving_average': True,
      'test_accuracy': result['seeds'][seed],
    }
    said.append(found)
  assert abs(said[0] - said[1]).max() > 1e-3
  words = ['--run', run, '--workdir', tmp_path / 'no']
  assert 'has 0 to 1' in refused([*words, '--seed', 2], capsys)
  assert 'retrained 120, not 000' in refused([*words, '--arch', '000'], capsys)
  (run / 'result.json').unlink()
  assert 'retrain --workdir' in refused(words, capsys)


def retrained_runs(monkeypatch, taken):
  """Lets `export` say which weights it takes, and stop there."""

  class Taken(Exception):
    pass

  def take(kind):
    def make(run, *args):
      taken.append((kind, run.name))
      raise Taken

    return make

  for kind in ('retrained', 'inherited'):
    monkeypatch.setattr(experiment_export, kind, take(kind))
  return Taken


OWN = ('retrained', 'retrain')
SHARED = ('inherited', 'run')
WEIGHTS = [
  # (what retrain/ trained, finished, flags, what is taken, what is said)
  (None, False, [], SHARED, ''),
  (ARCH, True, [], OWN, ''),
  (ARCH, True, ['--seed', 1], OWN, ''),
  (ARCH, True, ['--weights', 'inherited'], SHARED, 'are asked for'),
  (ARCH, True, ['--batches', 3], SHARED, 'are asked for'),
  (ARCH, False, [], SHARED, 'is not done'),
  ('000', True, [], SHARED, 'retrained 000, not 120'),
  (None, True, [], SHARED, 'kept no weights'),
]


@pytest.mark.parametrize(('trained', 'done', 'flags', 'want', 'says'), WEIGHTS)
def test_retrained_weights_are_taken_where_there_are_any(
  trained, done, flags, want, says, tmp_path, monkeypatch, capsys
):
  run, taken = tmp_path / 'run', []
  run_folder.open_run(run, GIVEN, resume=False)
  if trained or done:
    run_folder.open_run(run / 'retrain', GIVEN, resume=False, command='retrain')
    files.write_json(run / 'retrain' / 'retrain.json', {'arch': trained})
  if done:
    files.write_json(run / 'retrain' / 'result.json', {})
  words = ['--run', run, '--arch', ARCH, *flags]
  with pytest.raises(retrained_runs(monkeypatch, taken)):
    export.main(list(map(str, words)))
  assert taken == [want]
  assert says in capsys.readouterr().out


def test_a_retrained_run_must_have_kept_one_network(tmp_path, capsys):
  run_folder.open_run(tmp_path / 'run', GIVEN, resume=False)
  files.write_json(tmp_path / 'run' / 'retrain.json', {'arch': None})
  words = ['--run', tmp_path / 'run', '--workdir', tmp_path / 'no']
  assert 'kept no weights' in refused(words, capsys)
  files.write_json(tmp_path / 'run' / 'retrain.json', {'arch': ARCH})
  assert 'not done (no result.json)' in refused(words, capsys)
  result = {'arch': ARCH, 'accuracy': 0.5, 'seeds': [0.5, 0.5]}
  runs.write_result(tmp_path / 'run', 'result.json', result)
  assert 'no checkpoint of seed 0 at step 10' in refused(words, capsys)
  assert 'of inherited weights' in refused([*words, '--batches', 3], capsys)
  assert not (tmp_path / 'no').exists()


BAD = [
  ([], 'give --arch ARCH, or --arch best'),
  (['--arch', '0120'], "'0120' has 4 digits; small has 3 positions"),
  (['--arch', '013'], 'op 3 at position 2'),
  (['--arch', 'ID,ID'], 'not all digits'),
  (['--arch', ARCH, '--seed', '0'], '--seed is of retrained weights'),
  (['--arch', ARCH, '--weights', 'retrained'], 'makes them'),
  (['--arch', ARCH, '--batches', '11'], 'there are 500 training images'),
  (['--arch', ARCH, '--batches', '0'], 'must be at least 1'),
]


@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_ends_before_any_work(run, tmp_path, capsys, more, says):
  workdir = tmp_path / 'no'
  assert says in refused(['--run', run, '--workdir', workdir, *more], capsys)
  assert not any(tmp_path.iterdir())


def test_runs_that_are_none_or_not_done(tmp_path, capsys):
  words = ['--arch', ARCH, '--workdir', tmp_path / 'no', '--run']
  assert 'holds no run' in refused([*words, tmp_path], capsys)
  half = write_run(tmp_path / 'half', GIVEN, steps=10)
  assert 'at step 10 of 20' in refused([*words, half], capsys)


def test_nothing_is_overwritten(run, tmp_path, capsys):
  words = ['--run', run, '--arch', ARCH, '--workdir', tmp_path]
  (tmp_path / 'mine').write_text('')
  assert 'is not empty: choose another' in refused(words, capsys)
  words[-1] = tmp_path / 'mine'
  assert 'is no folder' in refused(words, capsys)


def test_another_network_is_not_handed_over(
  run, handed_over, tmp_path, monkeypatch, capsys
):
  workdir, _, expected = handed_over
  held_out = build.experiment(GIVEN).held_out.ranking
  for wrong in (1.1 * expected, np.nan * expected):
    with pytest.raises(ArithmeticError, match='more than'):
      artifact.check(workdir, lambda x, wrong=wrong: wrong, held_out)
  # The command keeps nothing of it.
  monkeypatch.setattr(artifact, 'TOLERANCE', {'float32': -1.0})
  words = ['--run', run, '--arch', ARCH, '--batches', 3]
  words += ['--workdir', tmp_path / 'network']
  assert 'logits of the exported network differ' in refused(words, capsys, 1)
  assert not (tmp_path / 'network').exists()


def test_the_best_is_what_a_search_found_else_what_ranks_first(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no correlation\.json'):
    trained.best_arch(tmp_path)
  run_folder.open_run(tmp_path, GIVEN, resume=False)
  runs.write_result(tmp_path, 'correlation.json', {'best_arch': '0001'})
  assert trained.best_arch(tmp_path) == '0001'
  steps = [{'best_arch': '0010', 'tied': 1}, {'best_arch': '0011', 'tied': 1}]
  runs.write_result(
    tmp_path, 'correlation.json', {'best_arch': '0001', 'combined': steps}
  )
  assert trained.best_arch(tmp_path) == '0011'
  (tmp_path / 'search').mkdir()
  runs.write_result(tmp_path, 'search/best.json', {'arch': '0002'})
  assert trained.best_arch(tmp_path) == '0002'
