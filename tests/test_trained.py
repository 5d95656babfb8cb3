"""Trained runs, as commands read them."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnas import config, rank, search
from jaxnas.config import run_flags, run_folder
from jaxnas.experiment import build, ranking, trained
from jaxnas.runtime import files
from jaxnas.training.checkpoint import Checkpoints
from support import runs

pytestmark = pytest.mark.usefixtures('small_space')

CONFIG = config.Config(
  space='small',
  warmup_epochs=1,
  epochs=1,
  data=config.Data(batch_size=250),
  ranking=config.Ranking(images=20, batch_size=10),
)


def ran(folder, given=CONFIG, *, steps=4, shown=None):
  """A run directory as if `steps` steps were done, of which none was."""
  run_folder.open_run(folder, given, resume=False)
  state = build.experiment(given).init_state()
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    checkpoints.save(
      dataclasses.replace(state, step=state.step + steps), {}, wait=True
    )
  if shown is not None:
    files.write_text(folder / 'config.json', config.to_json(shown))
  return folder, state


def load(run, **fields):
  given = run_folder.read_config(run)
  asked = dataclasses.replace(run_flags.ranking_of(given), **fields)
  return trained.load(run, given, asked)


DEBIASED = config.Debias(temperature=0.1)
KINDS = {
  'undebiased': {},
  'debiased': {'debias': DEBIASED},
  'prototypes': {
    'debias': config.Debias(temperature=0.1),
    'density': config.Density(
      estimator='prototypes', prototypes=3, archs=8, log_epochs=None
    ),
  },
  'logged': {'density': config.Density(log_epochs=1)},
  'mixture': {'sampler': config.Sampler(name='mixture')},
  'running': {'supernet': config.Supernet(bn_running=True)},
  'importance': {'sampler': config.Sampler(name='importance')},
}


@pytest.mark.parametrize('kind', KINDS)
def test_any_run_is_loaded_whole(tmp_path, kind):
  given = dataclasses.replace(CONFIG, **KINDS[kind])
  run, first = ran(tmp_path / 'run', given)
  experiment, state = load(run, images=30)
  assert int(state.step) == 4
  for name in ('params', 'statistics', 'sampler', 'samples', 'images'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(state, name), getattr(first, name)
    )
  assert len(experiment.held_out.ranking) == 30
  assert not experiment.config.debiases


def test_a_density_file_that_is_gone_is_not_asked_for(tmp_path):
  given = dataclasses.replace(
    CONFIG, debias=DEBIASED, density=config.Density(file='gone.npz')
  )
  like = dataclasses.replace(CONFIG, debias=DEBIASED)
  run, _ = ran(tmp_path / 'run', like, shown=given)
  assert int(load(run)[1].step) == 4


def test_the_ranking_is_as_in_the_run_or_as_asked(tmp_path):
  given = dataclasses.replace(
    CONFIG,
    ranking=dataclasses.replace(
      CONFIG.ranking, bn='recalibrate', calibration_batches=1, every_epochs=1,
      sample=5,
    ),
  )  # fmt: skip
  run, _ = ran(tmp_path / 'run', given)
  experiment, _ = load(run)
  fields = dataclasses.replace(given.ranking, every_epochs=None, sample=100)
  assert experiment.config.ranking == fields
  assert len(experiment.held_out.calibration) == 250
  # What only recalibration uses goes with it.
  experiment, _ = load(run, bn='batch')
  assert experiment.config.ranking.calibration_batches is None
  with pytest.raises(
    ValueError, match=r'calibration_batches is of ranking\.bn'
  ):
    load(run, bn='batch', calibration_batches=2)
  experiment, _ = load(run, calibration_batches=2)
  assert len(experiment.held_out.calibration) == 500
  with pytest.raises(ValueError, match='bn running needs statistics'):
    load(run, bn='running')


def test_the_newest_checkpoint_counts_and_has_to_be_the_last(tmp_path):
  run, state = ran(tmp_path / 'run', steps=2)
  with pytest.raises(ValueError, match=r'is at step 2 of 4: finish it with'):
    load(run)
  with Checkpoints(run / 'checkpoints') as checkpoints:
    checkpoints.save(
      dataclasses.replace(state, step=state.step + 4), {}, wait=True
    )
  assert int(load(run)[1].step) == 4


@pytest.mark.parametrize('command', [rank, search], ids=['rank', 'search'])
def test_what_is_no_finished_run_is_one_line(
  tmp_path, capsys, command, monkeypatch
):
  begun, _ = ran(tmp_path / 'begun', steps=3)
  bare = tmp_path / 'bare'
  run_folder.open_run(bare, CONFIG, resume=False)
  monkeypatch.setattr(ranking, 'accuracies', None)
  for flags, says in (
    ([], 'no run: give --run DIR'),
    (['--run', str(tmp_path / 'nothing')], 'holds no run'),
    (['--run', str(bare)], 'has no checkpoint'),
    (['--run', str(begun)], 'is at step 3 of 4'),
    (['--run', str(begun), '--ranking.images', '1000'], 'there are 500'),
  ):
    with pytest.raises(SystemExit) as ended:
      command.main(flags)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith('error: ') and err.count('\n') == 1
  for folder in (begun, bare):
    assert {file.name for file in folder.iterdir()} <= {
      'config.json',
      'checkpoints',
    }


@pytest.mark.parametrize('name', ['every_epochs', 'sample'])
@pytest.mark.parametrize('command', [rank, search], ids=['rank', 'search'])
def test_fields_of_training_alone_are_not_taken(
  tmp_path, capsys, name, command
):
  run_folder.open_run(tmp_path / 'run', CONFIG, resume=False)
  with pytest.raises(SystemExit) as ended:
    command.main(['--run', str(tmp_path / 'run'), f'--ranking.{name}', '3'])
  assert ended.value.code == 2
  assert f"'--ranking.{name}' is no flag" in capsys.readouterr().err


def test_the_best_is_of_a_search_before_it_is_of_the_ranking(tmp_path):
  with pytest.raises(
    FileNotFoundError, match='has ranked nothing yet'
  ) as found:
    trained.best_arch(tmp_path)
  assert '\n' not in str(found.value) and '--resume' in str(found.value)
  run_folder.open_run(tmp_path, CONFIG, resume=False)
  runs.write_result(tmp_path, 'correlation.json', {'best_arch': '012'})
  assert trained.best_arch(tmp_path) == '012'
  (tmp_path / 'search').mkdir()
  assert trained.best_arch(tmp_path) == '012'
  runs.write_result(tmp_path, 'search/best.json', {'arch': '210'})
  assert trained.best_arch(tmp_path) == '210'
