"""A space of 27 architectures on digits that compiles fast, and runs on it.

`python -m support.small_run FLAGS...` is jaxnas.train where it is known.
"""

import contextlib
import dataclasses
import sys

import numpy as np
import pytest

from jaxnas import spaces, train, truth
from jaxnas.config import run_folder
from jaxnas.experiment import build, trained
from jaxnas.runtime import progress, streams
from jaxnas.spaces.chain import Block, Stage, chain

SPACE = chain(
  'small',
  image_shape=(8, 8, 1),
  classes=10,
  stem=4,
  stages=(Stage(2, 6), Stage(1, 8, 1)),
  blocks=(Block(1, 3), Block(2, 3)),
  head=12,
)
ARCHS_AxE = SPACE.enumerate()
TABLE = truth.from_seeds(
  SPACE, np.random.default_rng(0).uniform(0.5, 1, (27, 3))
)

# Twenty steps an epoch; the ranking has three batches of 10 images.
CONFIG = """
from jaxnas.config import *
def get_config():
  return Config(
    space='small',
    warmup_epochs=1,
    epochs=1,
    data=Data(batch_size=25),
    supernet=Supernet(bn_running=True),
    density=Density(batch_size=20),
    optimizer=Optimizer(peak_lr=0.05),
    ranking=Ranking(images=30, batch_size=10, every_epochs=1, sample=9),
    logging=Logging(every_steps=10),
  )
"""


@contextlib.contextmanager
def registered():
  """The space is known by its name."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(spaces.SPACES, 'small', SPACE)
    yield


def flags_in(folder):
  """Returns flags of jaxnas.train in a folder, and the run folder they name."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'small.py').write_text(CONFIG)
  truth.dump(TABLE, folder / 'truth.json')
  run = folder / 'run'
  return [
    '--config', str(folder / 'small.py'),
    '--table', str(folder / 'truth.json'), '--workdir', str(run),
  ], run  # fmt: skip


def train_in(folder, *more):
  flags, run = flags_in(folder)
  assert train.main([*flags, *more]) == 0
  return run


def resume(run):
  assert train.main(['--workdir', str(run), '--resume']) == 0


def loaded(run, **ranking):
  """(experiment, last state), to be ranked otherwise."""
  given = run_folder.read_config(run)
  given = dataclasses.replace(
    given, ranking=dataclasses.replace(given.ranking, **ranking)
  )
  experiment = build.experiment(given)
  return experiment, trained.finished(experiment, run)


if __name__ == '__main__':
  # As in conftest.py: what tests read does not hang on the machine's speed.
  progress.LONG_S = 3600.0
  with registered():
    streams.run(lambda: train.main(sys.argv[1:]))
