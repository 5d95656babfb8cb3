"""Spaces of small images on images of any size and number of classes."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import export, rank, retrain, spaces, supernets, train, truth
from jaxnas.experiment import artifact, outcomes


def write(file, shape, classes, *, floats=False):
  """Writes images whose class shows in their brightness."""
  rng, out = np.random.default_rng(0), {}
  for part, count in (('train', 80), ('test', 40)):
    y_N = np.arange(count) % classes
    x = rng.uniform(0, 0.3, (count, *shape))
    x += (y_N / classes)[:, None, None, None] * 0.7
    out[f'x_{part}'] = x.astype(np.float32)
    if not floats:
      out[f'x_{part}'] = (255 * x).astype(np.uint8)
    out[f'y_{part}'] = y_N
  np.savez(file, **out)
  return str(file)


@pytest.mark.slow
@pytest.mark.parametrize('side', [(13, 10), (9, 14)])
def test_pooling_of_odd_sides_is_the_network_alone(side):
  space = spaces.get('pooling').on_images((*side, 2), 4)
  net = supernets.build(space)
  variables = supernets.init(net, space.enumerate()[0], 0)
  x = jax.random.normal(jax.random.key(0), (4, *space.image_shape))
  shared = jax.jit(lambda arch_E: net.apply(variables, x, arch_E, train=True))
  for arch_E in space.enumerate()[::9]:
    arch = tuple(arch_E.tolist())
    np.testing.assert_allclose(
      shared(jnp.asarray(arch_E)),
      net.apply(variables, x, arch, train=True),
      atol=1e-4,
    )


CONFIG = """
from jaxnas.config import *
def get_config():
  return Config(
    space={space!r}, warmup_epochs=1, epochs=1,
    data=Data(name='arrays', dir={file!r}, batch_size=10),
    density=Density(batch_size=10, estimator='prototypes', prototypes=4,
                    archs=8),
    optimizer=Optimizer(peak_lr=0.02),
    ranking=Ranking(images=20, archs=6, batch_size=10),
    retrain=Retrain(epochs=2, seeds=1),
  )
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'shape', 'floats'),
  [
    ('digits', (12, 9, 3), True),
    ('pooling', (13, 10, 1), False),
    ('nas_bench_macro', (10, 10, 1), True),
  ],
)
def test_train_rank_retrain_and_export(name, shape, floats, tmp_path, capsys):
  file = write(tmp_path / 'own.npz', shape, 4, floats=floats)
  (tmp_path / 'c.py').write_text(CONFIG.format(space=name, file=file))
  run = str(tmp_path / 'run')
  assert train.main(['--config', str(tmp_path / 'c.py'), '--workdir', run]) == 0
  said = capsys.readouterr().out
  assert f'images of {"x".join(map(str, shape))} in 4 classes' in said
  assert ('in 4 classes, floats of 0 to 1' in said) == floats
  assert rank.main(['--run', run, '--ranking.split', 'test']) == 0
  assert retrain.main(['--run', run, '--arch', 'best']) == 0
  assert export.main(['--run', run, '--arch', 'best']) == 0
  folder = next((tmp_path / 'run').rglob('network.json')).parent
  made = json.loads((folder / 'network.json').read_text())
  space = spaces.get(name).on_images(shape, 4)
  costs = space.costs(space.parse(made['arch'])[None])
  assert (made['params'], made['macs']) == (costs.params_A, costs.macs_A)
  assert made['pixels'] == ('float32' if floats else 'uint8')
  assert made['image_shape'] == [*shape] and made['classes'] == 4
  # The loader of its README takes what it says.
  page = (folder / 'README.md').read_text()
  code = page.split('```python')[1].split('```')[0]
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  logits = artifact.load_program(folder).call(
    np.zeros((2, *shape), made['pixels'])
  )
  assert logits.shape == (2, 4)


def test_a_table_says_which_images_it_is_on(tmp_path):
  space = spaces.get('digits').on_images((12, 9, 3), 4)
  table = truth.from_seeds(space, np.full((81, 2), 0.5))
  file = tmp_path / 'table.json'
  outcomes.write_table(table, file, {'data': 'arrays'})
  assert truth.find(space, 'arrays', file, None).images == ((12, 9, 3), 4)
  for other in (space.on_images((12, 9, 1), 4), space.on_images((12, 9, 3), 5)):
    with pytest.raises(ValueError, match='is on images of 12x9x3 in 4 classes'):
      truth.find(other, 'arrays', file, None)
  # A column is taken whatever it is of.
  other = space.on_images((8, 8, 1), 10)
  taken = truth.find(other, 'digits', file, None, 'arrays')
  assert taken is not None and taken.images is None
  content = json.loads(file.read_text())
  del content['seal']
  for wrong in ({'classes': None}, {'image_shape': [1, 2]}):
    file.write_text(json.dumps(content | wrong))
    with pytest.raises(ValueError, match='are no images'):
      truth.find(space, 'arrays', file, None)
