"""Runs of the real command, in process, on a few batches of digits."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxnas import (
  build,
  cli,
  debiasing,
  density,
  density_config,
  runs,
  spaces,
  tables,
  train,
  warm_up,
)
from jaxnas.training import loop
from jaxnas.training.checkpoint import Checkpoints
from jaxnas.training.preemption import Stopped

TIMES = ('images_per_s',)


def final_state(folder):
  experiment = build.experiment(runs.read_config(folder))
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    return checkpoints.restore(
      checkpoints.steps()[-1], experiment.init_state()
    )[0]


def metrics(folder):
  rows = (folder / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(row).items() if k not in TIMES} for row in rows
  ]


def same_run(one, other):
  """The final state bit for bit, and every file."""
  jax.tree.map(
    np.testing.assert_array_equal, final_state(one), final_state(other)
  )
  for name in ('predictions.npz', 'samples.npz'):
    for key, value in runs.read_npz(one / name).items():
      np.testing.assert_array_equal(value, runs.read_npz(other / name)[key])
  assert metrics(one) == metrics(other)


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


def flags_in(folder):
  """The tiny config in a folder, and the run beside it."""
  (folder / 'tiny.py').write_text(TINY)
  run = folder / 'run'
  return ['--config', str(folder / 'tiny.py'), '--workdir', str(run)], run


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
  predictions = runs.read_npz(whole / 'predictions.npz')
  np.testing.assert_array_equal(predictions['archs_AxE'], space.enumerate())
  hits_A = predictions['accuracy_A'] * 100
  np.testing.assert_allclose(hits_A, hits_A.round(), atol=1e-9)
  summary = json.loads((whole / 'correlation.json').read_text())
  assert {
    'kendall', 'spearman', 'n', 'best_arch', 'best_arch_true_accuracy',
    'baselines', 'split', 'images', 'bn',
  } <= {*summary}  # fmt: skip
  assert summary['n'] == 81
  samples = runs.read_npz(whole / 'samples.npz')
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
  experiment = build.experiment(runs.read_config(whole))
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
    runs.read_npz(folder / 'predictions.npz')['accuracy_A'],
    runs.read_npz(whole / 'undebiased' / 'predictions.npz')['accuracy_A'],
  )


def test_stopped_by_a_signal_and_resumed_is_the_same_run(
  whole, tiny, monkeypatch, capsys
):
  steps = 3  # In the warm-up, and within a row of metrics.
  flags, folder = tiny
  make_step = build.step.make_step

  def interrupted(*args, **kwargs):
    inner, calls = make_step(*args, **kwargs), []

    def step(*operands):
      calls.append(1)
      if len(calls) == steps:
        os.kill(os.getpid(), signal.SIGTERM)
      return inner(*operands)

    return step

  with monkeypatch.context() as patch:
    patch.setattr(build.step, 'make_step', interrupted)
    with pytest.raises(SystemExit) as ended:
      train.main(flags)
  assert ended.value.code == cli.STOPPED == 143
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
import os, signal, sys
from jaxnas import build, cli, train
make_step = build.step.make_step
def killed(*args, **kwargs):
  inner, calls = make_step(*args, **kwargs), []
  def step(*operands):
    calls.append(1)
    if len(calls) == 8:
      os.kill(os.getpid(), signal.SIGKILL)
    return inner(*operands)
  return step
build.step.make_step = killed
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


@pytest.mark.parametrize(
  ('changed', 'estimates'),
  [
    ([], 0),
    (['--debias.temperature', '0.2'], 0),
    # Another measurement, though its first density would be the same.
    (['--density.refresh_epochs', '1'], 2),
    (['--density.batch_size', '40'], 1),
    (['--density.tensors', 'deep'], 1),
  ],
)
def test_what_the_run_that_warmed_up_has_estimated_is_taken_over(
  whole, tiny, monkeypatch, changed, estimates
):
  calls, estimate = [], density_config.estimate

  def counted(*given):
    calls.append(given)
    return estimate(*given)

  flags, folder = tiny
  monkeypatch.setattr(density_config, 'estimate', counted)
  train.main([*flags, *changed, '--warmup_from', str(whole)])
  assert len(calls) == estimates
  if not calls:
    theirs, ours = (
      density.read_file(run / 'density.npz') for run in (whole, folder)
    )
    np.testing.assert_array_equal(theirs[0].alpha_A, ours[0].alpha_A)
    assert theirs[1] == ours[1]
  if not changed:
    jax.tree.map(
      np.testing.assert_array_equal, final_state(folder), final_state(whole)
    )


def test_a_run_that_took_over_a_warm_up_needs_no_other(whole, tiny, tmp_path):
  flags, folder = tiny
  first = shutil.copytree(whole, tmp_path / 'first')
  train.main([*flags, '--warmup_from', str(first)])
  shutil.rmtree(first)
  second = tmp_path / 'second'
  flags = [second if flag == str(folder) else flag for flag in flags]
  train.main([*map(str, flags), '--warmup_from', str(folder)])
  for run in (folder, second):
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
    patch.setattr(debiasing, 'feed', cut)
    with pytest.raises(SystemExit) as ended:
      train.main(flags)
  assert ended.value.code == cli.STOPPED
  assert (folder / 'density.npz').exists()
  with monkeypatch.context() as patch:
    patch.setattr(density_config, 'estimate', None)
    train.main(['--workdir', str(folder), '--resume'])
  same_run(folder, whole)


def test_a_density_of_another_step_or_damaged_is_estimated_again(
  whole, tmp_path
):
  facts = density.read_file(whole / 'density.npz')[1]
  file = tmp_path / 'density.npz'
  config = runs.read_config(whole)
  density.save(density.read_file(whole / 'density.npz')[0], file, facts)
  assert debiasing.is_of(file, facts, config)
  assert not debiasing.is_of(file, facts | {'step': 6}, config)
  file.write_bytes(file.read_bytes()[:-9])
  assert not debiasing.is_of(file, facts, config)


def test_refresh_estimates_again(whole, tiny, capsys):
  flags, _ = tiny
  train.main(
    [*flags, '--density.refresh_epochs', '1', '--warmup_from', str(whole)]
  )  # fmt: skip
  assert capsys.readouterr().out.count('effectively') == 2


BAD = [
  (['--data.name', 'cifar10'], '--data.dir'),
  (['--data.batch_size', '501'], 'above the 500 training images'),
  (['--ranking.images', '501'], 'there are 500'),
  (['--ranking.archs', '82'], 'there are 81'),
  (['--density.batches', '11'], 'there are 500 validation images'),
  (['--density.tensors', 'nothing'], 'matches no weight tensor'),
  (['--space', 'digit'], 'Did you mean digits?'),
  (['--space', 'pooling'], 'takes images of 32x32x3'),
  (['--table', 'missing.json'], 'does not exist'),
  (['--warmup_from', 'missing'], 'holds no run'),
]


@pytest.mark.parametrize(('more', 'says'), BAD, ids=[b[1] for b in BAD])
def test_bad_input_ends_before_any_work(tiny, capsys, more, says):
  flags, folder = tiny
  with pytest.raises(SystemExit) as ended:
    train.main([*flags, *more])
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
  other = runs.read_config(whole)
  with pytest.raises(ValueError, match='warmed up with seed 0, not 3'):
    warm_up.check(whole, dataclasses.replace(other, seed=3), 5)
  with pytest.raises(ValueError, match='no checkpoint at step 4'):
    warm_up.check(whole, other, 4)
  assert warm_up.check(whole, other, 5) == whole


def test_without_truth_the_chosen_architecture_is_still_told(
  whole, monkeypatch, capsys
):
  (whole / 'table.json').unlink()
  monkeypatch.setattr(tables, 'shipped', lambda *args: False)
  train.main(['--workdir', str(whole), '--resume'])
  assert 'no ground truth' in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_warm_up_the_baseline_starts_afresh(tiny):
  flags, folder = tiny
  train.main(
    [*flags, '--warmup_epochs', '0', '--epochs', '1', '--debias.baseline']
  )
  assert [row['step'] for row in metrics(folder / 'undebiased')] == [2, 4, 5]
