"""Runs of the real command, in process, on a few batches of digits."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxnas import density, spaces, train, truth
from jaxnas.config import digest, run_folder
from jaxnas.experiment import build, debias, densities, warm_up
from jaxnas.runtime import errors, files
from jaxnas.runtime.errors import Stopped
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.truth import table
from support.runs import final_state, flags_in, interrupted, metrics, same_run


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run of 15 steps with its undebiased twin."""
  flags, run = flags_in(tmp_path_factory.mktemp('whole'))
  assert train.main([*flags, '--debias.baseline']) == 0
  return run


@pytest.fixture
def tiny(tmp_path):
  """Flags of a run that is not there yet, and where it will be."""
  return flags_in(tmp_path)


@pytest.mark.smoke
def test_a_run_leaves_what_any_figure_is_drawn_from(whole):
  space = spaces.get('digits')
  environment = json.loads((whole / 'environment.json').read_text())
  assert environment['versions']['jax'] == jax.__version__
  predictions = files.read_npz(whole / 'predictions.npz')
  np.testing.assert_array_equal(predictions['archs_AxE'], space.enumerate())
  hits_A = predictions['accuracy_A'] * 100
  np.testing.assert_allclose(hits_A, hits_A.round(), atol=1e-9)
  summary = json.loads((whole / 'correlation.json').read_text())
  assert {
    'kendall', 'spearman', 'n', 'best_arch', 'best_arch_true_accuracy',
    'baselines', 'split', 'images', 'bn',
  } <= {*summary}  # fmt: skip
  assert summary['n'] == 81
  samples = files.read_npz(whole / 'samples.npz')
  assert samples['samples_A'].sum() == 15
  assert [row['step'] for row in metrics(whole)] == [2, 4, 6, 8, 10, 12, 14, 15]


def test_the_density_is_that_of_the_warm_up_and_feeds_the_sampler(whole):
  read = density.load(whole / 'density.npz', spaces.get('digits').enumerate())
  assert (read.alpha_A > 0).all() and np.ptp(read.alpha_A) > 0
  sampler = final_state(whole).sampler
  np.testing.assert_array_equal(
    sampler.alpha_A, read.alpha_A.astype(np.float32)
  )
  assert float(sampler.tau) == pytest.approx(0.1)
  experiment = build.experiment(run_folder.read_config(whole))
  with Checkpoints(whole / 'checkpoints') as checkpoints:
    state, _ = checkpoints.restore(5, experiment.init_state())
  assert not np.asarray(state.sampler.alpha_A).any()


def test_the_baseline_is_the_uniform_run_from_scratch(whole, tiny):
  flags, folder = tiny
  train.main(
    [*flags, '--debias.temperature', 'None']
  )  # fmt: skip
  assert not (folder / 'density.npz').exists()
  rows = metrics(folder)
  assert rows[-6:] == metrics(whole / 'undebiased')
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(folder).params,
    final_state(whole / 'undebiased').params,
  )
  np.testing.assert_array_equal(
    files.read_npz(folder / 'predictions.npz')['accuracy_A'],
    files.read_npz(whole / 'undebiased' / 'predictions.npz')['accuracy_A'],
  )


def test_stopped_by_a_signal_and_resumed_is_the_same_run(whole, tiny, capsys):
  steps = 3  # In the warm-up, and within a row of metrics.
  flags, folder = tiny
  with interrupted(steps), pytest.raises(SystemExit) as ended:
    train.main(flags)
  assert ended.value.code == errors.STOPPED == 143
  assert '--resume' in capsys.readouterr().err
  assert not (folder / 'predictions.npz').exists()
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    assert checkpoints.steps()[-1] == steps
  train.main(['--workdir', str(folder), '--resume'])
  same_run(whole, folder)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run(whole, tiny):
  """kill -9 of a child process after its first checkpoint."""
  flags, folder = tiny
  child = subprocess.Popen(
    [sys.executable, '-c', KILLED, *flags],
    stderr=subprocess.PIPE,
  )  # fmt: skip
  _, err = child.communicate(timeout=300)
  assert child.returncode == -signal.SIGKILL, err.decode()
  assert not (folder / 'predictions.npz').exists()
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [5]
  train.main(['--workdir', str(folder), '--resume'])
  same_run(whole, folder)


# Dies in the middle of the second epoch.
KILLED = """
import signal, sys
from support import runs
from jaxnas import train
with runs.interrupted(8, signal.SIGKILL):
  train.main(sys.argv[1:])
"""


def test_a_finished_run_is_not_repeated(whole, monkeypatch, capsys):
  monkeypatch.setattr(loop, 'fit', None)
  before = (whole / 'predictions.npz').stat().st_mtime_ns
  assert train.main(['--workdir', str(whole), '--resume']) == 0
  assert (whole / 'predictions.npz').stat().st_mtime_ns == before
  assert 'Kendall' in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
  tiny, capsys
):
  flags, folder = tiny
  with pytest.raises(SystemExit) as ended:
    train.main(
      [*flags, '--optimizer.peak_lr', '1e30',
       '--optimizer.lr_warmup_steps', '0', '--checkpoint.every_epochs', '1']
    )  # fmt: skip
  assert ended.value.code == 1
  assert 'step 1' in capsys.readouterr().err
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == []


def test_a_density_file_is_used_instead_of_estimating(whole, tiny, tmp_path):
  flags, folder = tiny
  alpha_A = np.linspace(1, 2, 81)
  mine = density.Density(spaces.get('digits').enumerate(), alpha_A)
  density.save(mine, tmp_path / 'mine.npz')
  train.main(
    [*flags, '--density.batch_size', '256', '--density.file',
     str(tmp_path / 'mine.npz'), '--warmup_from', str(whole)]
  )  # fmt: skip
  np.testing.assert_allclose(final_state(folder).sampler.alpha_A, alpha_A)


@pytest.fixture(scope='module')
def taken_over(whole, tmp_path_factory):
  """A run that takes over the warm-up of `whole`, and its estimates."""
  calls, estimate = [], densities.estimate

  def counted(*given):
    calls.append(given)
    return estimate(*given)

  flags, run = flags_in(tmp_path_factory.mktemp('taken_over'))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(densities, 'estimate', counted)
    train.main([*flags, '--warmup_from', str(whole)])
  return run, calls


def test_what_the_run_that_warmed_up_has_estimated_is_taken_over(
  whole, taken_over
):
  run, calls = taken_over
  assert not calls
  theirs, ours = (density.read_file(r / 'density.npz') for r in (whole, run))
  np.testing.assert_array_equal(theirs[0].alpha_A, ours[0].alpha_A)
  # It is of this run from then on.
  mine = digest(run_folder.read_config(run))
  assert ours[1] == theirs[1] | {'config': mine}
  jax.tree.map(
    np.testing.assert_array_equal, final_state(run), final_state(whole)
  )


@pytest.mark.parametrize(
  ('section', 'changed', 'same'),
  [
    ('debias', {'temperature': 0.2}, True),
    # Another measurement, though its first density would be the same.
    ('density', {'refresh_epochs': 1}, False),
    ('density', {'batch_size': 40}, False),
    ('density', {'tensors': 'deep'}, False),
  ],
)
def test_only_the_same_measurement_is_taken_over(whole, section, changed, same):
  given = run_folder.read_config(whole)
  fields = dataclasses.replace(getattr(given, section), **changed)
  given = dataclasses.replace(given, **{section: fields})
  file = whole / 'density.npz'
  facts = density.read_file(file)[1]
  facts |= {'density': dataclasses.asdict(given.density)}
  assert debias.is_of(file, facts, given.density) == same


def test_a_run_that_took_over_a_warm_up_needs_no_other(
  whole, taken_over, tiny, tmp_path
):
  first = shutil.copytree(taken_over[0], tmp_path / 'first')
  flags, second = tiny
  train.main([*flags, '--warmup_from', str(first)])
  for run in (first, second):
    with Checkpoints(run / 'checkpoints') as checkpoints:
      assert 5 in checkpoints.steps()
    jax.tree.map(
      np.testing.assert_array_equal, final_state(run), final_state(whole)
    )


def test_what_was_estimated_before_a_cut_is_not_estimated_again(
  whole, tiny, monkeypatch
):
  flags, folder = tiny

  def cut(*given):
    raise Stopped

  with monkeypatch.context() as patch:
    patch.setattr(debias, 'apply_density', cut)
    with pytest.raises(SystemExit) as ended:
      train.main(flags)
  assert ended.value.code == errors.STOPPED
  assert (folder / 'density.npz').exists()
  with monkeypatch.context() as patch:
    patch.setattr(densities, 'estimate', None)
    train.main(['--workdir', str(folder), '--resume'])
  same_run(folder, whole)


def test_a_density_of_another_step_or_damaged_is_estimated_again(
  whole, tmp_path
):
  facts = density.read_file(whole / 'density.npz')[1]
  file = tmp_path / 'density.npz'
  config = run_folder.read_config(whole)
  density.save(density.read_file(whole / 'density.npz')[0], file, facts)
  assert debias.is_of(file, facts, config.density)
  assert not debias.is_of(file, facts | {'step': 6}, config.density)
  assert not debias.is_of(file, facts | {'state': 'x'}, config.density)
  file.write_bytes(file.read_bytes()[:-9])
  assert not debias.is_of(file, facts, config.density)


def test_refresh_estimates_again(whole, tiny, monkeypatch, capsys):
  calls, estimate = [], densities.estimate
  monkeypatch.setattr(
    densities,
    'estimate',
    lambda *given, **more: calls.append(1) or estimate(*given, **more),
  )
  flags, _ = tiny
  train.main(
    [*flags, '--density.refresh_epochs', '1', '--warmup_from', str(whole)]
  )  # fmt: skip
  assert len(calls) == capsys.readouterr().out.count('effectively') == 2


BAD = [
  (['--data.name', 'cifar10'], '--data.dir'),
  (['--data.batch_size', '501'], 'above the 500 training images'),
  (['--ranking.images', '501'], 'there are 500'),
  (['--ranking.archs', '82'], 'there are 81'),
  (['--density.batches', '11'], 'there are 500 validation images'),
  (['--density.tensors', 'nothing'], 'matches no weight tensor'),
  (['--space', 'digit'], 'Did you mean digits?'),
  (['--table', '{foreign}'], 'is on images of 9x9x3 in 4 classes, and these'),
  (['--table', 'missing.json'], 'does not exist'),
  (['--warmup_from', 'missing'], 'holds no run'),
]


@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_ends_before_any_work(tiny, capsys, more, says):
  flags, folder = tiny
  foreign = folder.parent / 'foreign.json'
  table = truth.load(spaces.get('digits'))
  images = (9, 9, 3), 4
  truth.dump(dataclasses.replace(table, images=images), foreign, data='digits')
  with pytest.raises(SystemExit) as ended:
    train.main([*flags, *(word.format(foreign=foreign) for word in more)])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert not folder.exists()


def test_a_run_is_never_overwritten_nor_resumed_as_another(whole, capsys):
  flags = ['--config', str(whole.parent / 'tiny.py'), '--workdir', str(whole)]
  for more, says in (
    (['--debias.baseline'], 'holds a run already'),
    (['--debias.baseline', '--resume', '--seed', '1'], 'with seed 0, not 1'),
  ):
    with pytest.raises(SystemExit) as ended:
      train.main([*flags, *more])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_another_warm_up_is_refused(whole):
  other = run_folder.read_config(whole)
  with pytest.raises(ValueError, match='warmed up with seed 0, not 3'):
    warm_up.check(whole, dataclasses.replace(other, seed=3), 5)
  with pytest.raises(ValueError, match='no checkpoint at step 4'):
    warm_up.check(whole, other, 4)
  assert warm_up.check(whole, other, 5) == whole


def test_without_truth_the_chosen_architecture_is_still_told(
  whole, monkeypatch, capsys
):
  (whole / 'table.json').unlink()
  monkeypatch.setattr(table, 'shipped', lambda *args: False)
  train.main(['--workdir', str(whole), '--resume'])
  # Lines break where the terminal ends.
  assert 'no ground truth' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_without_a_warm_up_the_baseline_starts_afresh(tiny):
  flags, folder = tiny
  train.main(
    [*flags, '--warmup_epochs', '0', '--epochs', '1', '--debias.baseline']
  )
  assert [row['step'] for row in metrics(folder / 'undebiased')] == [2, 4, 5]
