"""Functions of one's own, which a config names as module:function."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnas
from jaxnas import compare, config, export, rank, retrain, search, train
from jaxnas.config import run_folder, trusted, validation
from jaxnas.experiment import build
from support import small_run
from support.runs import interrupted, same_run

MINE = """
import jax
import jax.numpy as jnp

def black(key, images):
  return jnp.zeros_like(images)

def noisy(key, images):
  return images + 0.1 * jax.random.normal(key, images.shape)

def half(key, images):
  return images[:, ::2]

def one_argument(images):
  return images

def host(key, images):
  return float(images.sum()) * images

def brier(logits, targets):
  return ((jax.nn.softmax(logits) - targets) ** 2).sum(-1)

def mean(logits, targets):
  return brier(logits, targets).mean()

VALUE = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
  """The module lies where Python finds it, and nobody trusts it yet."""
  (tmp_path / 'mine_of_tests.py').write_text(MINE)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(trusted, '_owners', {})
  monkeypatch.setattr(trusted, '_functions', {})
  yield 'mine_of_tests'
  sys.modules.pop('mine_of_tests', None)


def trust(module):
  trusted.trust(module, lambda folder: False)


def given(augment=None, loss=None, **fields):
  return config.Config(
    data=config.Data(batch_size=50, augment=augment),
    optimizer=config.Optimizer(peak_lr=0.02, loss=loss),
    **fields,
  )


@pytest.mark.parametrize('field', ['augment', 'loss'])
def test_a_module_that_nobody_trusts_is_not_imported(field, mine):
  named = given(**{field: f'{mine}:brier'})
  with pytest.raises(
    ValueError, match=f'{field} {mine}:brier needs the module'
  ):
    validation.validate(named)
  assert mine not in sys.modules
  # A module that is there already is none that somebody trusts.
  with pytest.raises(ValueError, match='--trust_module os if you trust'):
    validation.validate(given(**{field: 'os:system'}))
  trust(mine)
  validation.validate(named)


@pytest.mark.parametrize(
  'at', ['brier', 'm:', ':f', '../m:f', 'm:f.g', 'm f:g']
)
def test_what_is_no_address(at, mine):
  with pytest.raises(ValueError, match='it must be module:function, such as'):
    validation.validate(given(loss=at))


@pytest.mark.parametrize(
  ('field', 'name', 'says'),
  [
    ('augment', 'absent', 'is no function .key, images.'),
    ('augment', 'VALUE', 'is no function .key, images.'),
    ('augment', 'one_argument', 'is no function .key, images.*too many'),
    ('augment', 'half', r'returns float32 of shape \(50, 4, 8, 1\) for'),
    ('augment', 'host', 'fails on key .* run in jit'),
    ('loss', 'mean', r'returns float32 of shape \(\) for .* of shape \(2,\)'),
    ('loss', 'host', 'fails on logits of shape .* run in jit'),
  ],
)
def test_a_function_is_tried_before_any_work(field, name, says, mine):
  trust(mine)
  named = given(**{field: f'{mine}:{name}'})
  for make in (build.experiment, lambda given: build.stand_alone(given, None)):
    with pytest.raises(ValueError, match=f'{field} {mine}:{name} {says}'):
      make(named)


def test_an_augmentation_comes_last_and_before_normalisation(mine):
  trust(mine)
  named = given(f'{mine}:black', sampler=config.Sampler(name='boltzmann'))
  plain = dataclasses.replace(named, data=config.Data(batch_size=50))
  images = {}
  for name, one in (('own', named), ('plain', plain)):
    training = build.experiment(one).training
    feed = training.feed(0, 0)
    inputs = next(feed)
    feed.close()
    batch = training.batch(inputs, jnp.int32(0), jnp.arange(50))
    images[name] = *batch, training.reward(inputs, jnp.int32(0))
  assert (images['own'][0] == images['own'][0][0, 0, 0, 0]).all()
  assert images['own'][0][0, 0, 0, 0] < 0
  # Neither labels nor the images that reward are changed.
  np.testing.assert_array_equal(images['own'][1], images['plain'][1])
  jax.tree.map(
    np.testing.assert_array_equal, images['own'][2], images['plain'][2]
  )


def scaled(key, images):
  """A function of this module, as of a notebook."""
  return 0.5 * images


def test_a_function_of_this_process(mine, monkeypatch, tmp_path):
  at = jaxnas.register_function(scaled)
  assert at == f'{__name__}:scaled'
  validation.validate(given(at))
  build.experiment(given(at))
  run_folder.open_run(tmp_path / 'run', given(at), resume=False)
  kept = run_folder.read_config(tmp_path / 'run')
  assert kept.modules == __name__ and kept.data.augment == at
  # Another process has registered nothing.
  trusted._owners.clear()
  with pytest.raises(ValueError, match='add --trust_module'):
    run_folder.read_config(tmp_path / 'run')
  with pytest.raises(ValueError, match='has no name of its own in a module'):
    jaxnas.register_function(lambda key, images: images)


def test_the_flags_are_refused_in_one_line(mine, tmp_path, capsys):
  words = ['--config', 'quickstart.py', '--workdir', str(tmp_path / 'run')]
  for more, says in (
    ([f'--data.augment={mine}:noisy'], 'add --trust_module mine_of_tests'),
    ([f'--optimizer.loss={mine}:nothing', '--trust_module', mine], 'is no fun'),
  ):
    with pytest.raises(SystemExit) as ended:
      train.main([*words, *more])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and says in err and err.count('\n') == 1
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_all_of_it_through_the_commands(mine, tmp_path, monkeypatch):
  """Own augmentation and loss, AdamW, a teacher; every command, and resume."""
  with small_run.registered():
    flags, run = small_run.flags_in(tmp_path / 'whole')
    more = [
      '--trust_module', mine, f'--data.augment={mine}:noisy',
      f'--optimizer.loss={mine}:brier', '--optimizer.name', 'adamw',
      '--optimizer.peak_lr', '0.01', '--optimizer.weight_decay', '0.01',
      '--optimizer.distill', '0.5',
    ]  # fmt: skip
    assert train.main([*flags, *more]) == 0
    others, parts = small_run.flags_in(tmp_path / 'parts')
    with interrupted(13), pytest.raises(SystemExit) as ended:
      train.main([*others, *more])
    assert ended.value.code == 143
    again = ['--workdir', str(parts), '--resume']
    trusted._owners.clear()
    with pytest.raises(SystemExit) as refused:
      train.main(again)
    assert refused.value.code == 2
    trust_it = ['--trust_module', mine]
    assert train.main([*again, *trust_it]) == 0
    same_run(run, parts)
    of_run = ['--run', str(run), *trust_it]
    assert rank.main([*of_run, '--ranking.images', '20']) == 0
    assert search.main([*of_run, '--population', '4', '--patience', '1']) == 0
    alone = ['--retrain.epochs', '1', '--retrain.seeds', '1']
    assert retrain.main([*of_run, '--arch', 'best', *alone]) == 0
    assert export.main([*of_run, '--arch', 'best']) == 0
    assert compare.main(
      [*flags[:4], *more, '--workdir', str(tmp_path / 'compared'),
       '--samplers', 'uniform,fair', '--seeds', '1']
    ) == 0  # fmt: skip
    kept = json.loads((run / 'config.json').read_text())
    assert kept['modules'] == mine
