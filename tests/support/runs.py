"""A short run on digits, and what tests read from a run's folder."""

import contextlib
import os
import signal

import jax
import numpy as np
import pytest

from jaxnas import config
from jaxnas.config import run_folder
from jaxnas.experiment import build
from jaxnas.runtime import files, jsonl, seals
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.step import WithNumbers

# Five steps an epoch.
TINY = """
from jaxnas.config import *
def get_config():
  return Config(
    warmup_epochs=1,
    epochs=2,
    data=Data(batch_size=100),
    debias=Debias(temperature=0.1),
    density=Density(batch_size=50),
    optimizer=Optimizer(peak_lr=0.02),
    ranking=Ranking(images=100, batch_size=100),
    logging=Logging(every_steps=2),
    retrain=Retrain(epochs=1, seeds=2),
  )
"""


def write_result(run, name, value):
  """Writes JSON as a result of this run."""
  facts = {'config': config.digest(run_folder.read_config(run))}
  files.write_result(run / name, value, facts)


def result_of(file):
  """Reads a result, without what it was made of."""
  return files.read_result(file, {}, {})


def flags_in(folder):
  """Writes the short config; returns the flags of train, and the run."""
  (folder / 'tiny.py').write_text(TINY)
  run = folder / 'run'
  return ['--config', str(folder / 'tiny.py'), '--workdir', str(run)], run


def final_state(run):
  """The training state of the newest checkpoint."""
  experiment = build.experiment(run_folder.read_config(run))
  with Checkpoints(run / 'checkpoints') as checkpoints:
    return checkpoints.restore(
      checkpoints.steps()[-1], experiment.init_state()
    )[0]


# Fields of rows that no two runs have in common.
TIMED = ('images_per_s', 'wall_s', 'seal')


def rows(file, types=None):
  """The rows of a jsonl file, without what time it took."""
  return [
    {k: v for k, v in row.items() if k not in TIMED}
    for row in jsonl.read_rows(file, types or {})
  ]


def metrics(run):
  """All rows of metrics.jsonl, none cut short, without what time it took."""
  file = run / 'metrics.jsonl'
  found = rows(file)
  assert len(found) == len(file.read_text().splitlines())
  return found


def same_run(one, other):
  """Asserts that two runs ended with the same bits, in every file."""
  jax.tree.map(
    np.testing.assert_array_equal, final_state(one), final_state(other)
  )
  for name in ('predictions.npz', 'samples.npz'):
    found = files.read_npz(other / name)
    for key, value in files.read_npz(one / name).items():
      # Another config may make the same steps.
      if key != seals.FACTS:
        np.testing.assert_array_equal(value, found[key])
  assert metrics(one) == metrics(other)


@contextlib.contextmanager
def interrupted(after, number=signal.SIGTERM):
  """Sends this process a signal when training begins its step `after`."""
  many, calls = WithNumbers.many, []

  def counted(self, count):
    inner = many(self, count)

    def step(*operands):
      calls.append(1)
      if len(calls) == after:
        os.kill(os.getpid(), number)
      return inner(*operands)

    return step

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(WithNumbers, 'many', counted)
    yield
