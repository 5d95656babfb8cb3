"""Additions from outside the package: a file and a line for each kind."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from jaxnas import config, data, measure, search, spaces, train
from jaxnas.config import registry, validation

# The file of somebody who uses jaxnas: what it adds, and how.
MINE = '''
import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxnas import density, samplers, searchers, spaces
from jaxnas.config import registry, validation
from jaxnas.data import Images
from jaxnas.spaces.chain import Block, Stage, chain


@dataclasses.dataclass(frozen=True)
class Weight:
  first: float = 1.0


def often_first(space, *, paths, options):
  """A sampler that draws the zeroth architecture more often."""
  uniform = samplers.uniform(space, paths=paths)
  logp_A = np.zeros(space.size, np.float32)
  logp_A[0] = options.first

  return uniform._replace(
    log_prob=lambda state: jnp.asarray(logp_A)
    - jnp.log(jnp.exp(logp_A).sum())
  )


@dataclasses.dataclass(frozen=True)
class Power:
  exponent: float = 1.0


def powered(options):
  """A measure: a power of the Hamming distance."""
  hamming = density.encoding()
  return hamming._replace(
    distance=lambda a, b: hamming.distance(a, b) ** options.exponent
  )


@dataclasses.dataclass(frozen=True)
class Last:
  count: int = 1


def last(space, limits, *, options):
  """A searcher that scores the last architectures of the space."""
  return searchers.exhaustive(space, limits, population=options.count)


@dataclasses.dataclass(frozen=True)
class Noise:
  images: int = 60


def noise(options):
  """A data set of ten classes of noise."""
  rng = np.random.default_rng(0)
  shape = (options.images, 8, 8, 1)
  x = rng.integers(0, 256, shape, np.uint8)
  y = np.arange(options.images, dtype=np.int32) % 10
  moments = np.array([0.5])
  return Images(x, y, x, y, 10, moments, moments)


def reversed_order(scores):
  """A step of a combination that turns the ranking round."""
  return scores._replace(score_A=-scores.score_A, half_HxA=-scores.half_HxA)


registry.SAMPLERS.add('often_first', f'{__name__}:often_first', Weight)
registry.MEASURES.add('powered', f'{__name__}:powered', Power)
registry.SEARCHERS.add('last', f'{__name__}:last', Last)
registry.DATASETS.add('noise', f'{__name__}:noise', Noise)
registry.COMBINATIONS.add('reversed', f'{__name__}:reversed_order')
spaces.add(
  chain(
    'mine',
    image_shape=(8, 8, 1),
    classes=10,
    stem=4,
    stages=(Stage(2, 6),),
    blocks=(Block(1, 3),),
    head=8,
  )
)
'''

CONFIG = """
import mine
from jaxnas.config import *
def get_config():
  return Config(
    space='mine',
    warmup_epochs=1,
    epochs=1,
    data=Data(name='noise', options={'images': 80}, batch_size=10),
    sampler=Sampler(name='often_first', options={'first': 2.0}),
    density=Density(measure='powered', options={'exponent': 2.0},
                    batch_size=10),
    debias=Debias(temperature=50.0),
    ranking=Ranking(batch_size=20, combine='reversed'),
  )
"""

REGISTRIES = {
  'often_first': registry.SAMPLERS,
  'powered': registry.MEASURES,
  'last': registry.SEARCHERS,
  'noise': registry.DATASETS,
  'reversed': registry.COMBINATIONS,
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run in which space, data, sampler and measure are somebody's own."""
  folder = tmp_path_factory.mktemp('mine')
  (folder / 'mine.py').write_text(MINE)
  (folder / 'config.py').write_text(CONFIG)
  sys.path.insert(0, str(folder))
  try:
    flags = ['--config', str(folder / 'config.py')]
    assert train.main([*flags, '--workdir', str(folder / 'run')]) == 0
    yield folder / 'run'
  finally:
    sys.path.remove(str(folder))
    del spaces.SPACES['mine']
    for name, of_kind in REGISTRIES.items():
      of_kind.remove(name)


def test_everything_is_used_with_its_own_options(run):
  kept = json.loads((run / 'config.json').read_text())
  assert kept['sampler']['options'] == {'first': 2.0}
  assert kept['data']['options'] == {'images': 80}
  ranked = json.loads((run / 'correlation.json').read_text())
  assert (ranked['n'], ranked['images']) == (4, 40)
  (step,) = ranked['combined']
  assert step['uses'] == ['reversed']
  # Of 16 steps, half of the warm-up's and most of the others'.
  samples_A = np.load(run / 'samples.npz')['samples_A']
  assert samples_A.sum() == 8 and samples_A[0] == samples_A.max()


def test_a_searcher_of_ones_own(run, tmp_path):
  flags = ['--run', str(run), '--workdir', str(tmp_path), '--searcher', 'last']
  assert search.main([*flags, '--options', 'count', '2']) == 0
  scored = (tmp_path / 'search.jsonl').read_text().splitlines()
  assert len(scored) == 4
  assert json.loads((tmp_path / 'search.json').read_text())['options'] == {
    'count': 2
  }


def test_a_measure_of_ones_own(run, tmp_path):
  flags = ['--run', str(run), '--workdir', str(tmp_path)]
  assert measure.main([*flags, '--measure', 'powered', 'encoding']) == 0
  files = {file.name for file in tmp_path.glob('density-*.npz')}
  assert len(files) == 2


@pytest.mark.parametrize('of_kind', REGISTRIES.values(), ids=REGISTRIES)
def test_all_that_is_listed_can_be_imported(of_kind):
  for name in of_kind:
    assert callable(of_kind.get(name))


def test_a_name_that_is_not_listed_is_refused():
  with pytest.raises(ValueError, match=r'none of uniform, .*mean uniform'):
    registry.SAMPLERS.get('unifrom')
  with pytest.raises(ValueError, match=r'none of digits, .*mean cifar10\?'):
    data.load('cifar-10')


def test_an_address_where_nothing_is_is_refused():
  registry.SAMPLERS.add('gone', 'no_such_module:nothing')
  try:
    with pytest.raises(ValueError, match=r'no_such_module:nothing, which can'):
      registry.SAMPLERS.get('gone')
  finally:
    registry.SAMPLERS.remove('gone')


def test_options_that_nothing_uses_are_refused():
  given = config.Config(sampler=config.Sampler(options={'strength': 1.0}))
  with pytest.raises(ValueError, match=r'sampler\.options is of entries with'):
    validation.validate(given)


def test_options_of_another_name_or_type_are_refused():
  registry.SAMPLERS.add('own', 'm:f', Strength)
  try:
    for options, says in (
      ({'strenght': 1.0}, r'Did you mean sampler\.options\.strength\?'),
      ({'strength': 'much'}, r"strength is 'much'; it must be a number"),
    ):
      with pytest.raises(ValueError, match=says):
        registry.SAMPLERS.options('own', options)
    made = registry.SAMPLERS.options('own', {'strength': 2})
    assert made == {'options': Strength(2.0)}
  finally:
    registry.SAMPLERS.remove('own')


@dataclasses.dataclass(frozen=True)
class Strength:
  strength: float = 1.0
