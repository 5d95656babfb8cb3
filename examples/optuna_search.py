"""Search over configs with Optuna, on as many machines as call this.

`pip install optuna`, then on each machine, in a folder that all of them see:

    python optuna_search.py --config quickstart.py --trials 20

All share the study in `study.log`. A trial is a run of `jaxnas.train`, which
ranks some architectures every few epochs; one whose ranking lies behind those
of others at the same epoch is told to stop. Its folder is named by its values,
and a trial with the same ones goes on there.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

# The flags of jaxnas.train that are searched.
RANGES = {
  '--debias.temperature': (0.1, 10),
  '--optimizer.peak_lr': (0.01, 0.2),
}

# What a trial is judged by; without a table of ground truth, mean_accuracy.
JUDGED_BY = 'kendall'


def values(trial):
  """Draws the values of a trial, by the flags of jaxnas.train."""
  return {
    flag: trial.suggest_float(flag[2:], low, high, log=True)
    for flag, (low, high) in RANGES.items()
  }


def reports(run):
  """Reads what the run has reported so far: the epoch, and its value."""
  file = run / 'metrics.jsonl'
  lines = file.read_text().split('\n')[:-1] if file.exists() else []
  for row in map(json.loads, lines):
    if row.get(JUDGED_BY) is not None:
      yield int(row['epoch']), row[JUDGED_BY]


def train(trial, flags):
  """Trains a trial, or goes on with it; returns its last value."""
  drawn = values(trial)
  name = ' '.join(f'{flag[2:]}={value:.6g}' for flag, value in drawn.items())
  run = Path('trials', name)
  words = [word for pair in drawn.items() for word in map(str, pair)]
  run.mkdir(parents=True, exist_ok=True)
  with (run / 'log.txt').open('ab') as log:
    process = subprocess.Popen(
      [
        sys.executable, '-m', 'jaxnas.train',
        '--workdir', str(run), '--resume', *flags, *words,
      ],
      stdout=log,
      stderr=log,
    )  # fmt: skip
    told = set()
    try:
      while True:
        running = process.poll() is None
        for epoch, value in reports(run):
          if epoch not in told:
            told.add(epoch)
            trial.report(value, epoch)
        if not running:
          break
        if trial.should_prune():
          raise optuna.TrialPruned
        time.sleep(1)
    finally:
      # It saves, so that the trial could go on.
      process.send_signal(signal.SIGTERM)
      process.wait()
  found = [*reports(run)]
  if process.returncode or not found:
    raise RuntimeError(f'{run}: see its log.txt')
  return found[-1][1]


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--trials', type=int, default=20)
  args, flags = parser.parse_known_args()
  study = optuna.create_study(
    study_name='jaxnas',
    storage=JournalStorage(JournalFileBackend('study.log')),
    load_if_exists=True,
    direction='maximize',
    pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
  )
  study.optimize(
    lambda trial: train(trial, ['--ranking.every_epochs', '5', *flags]),
    n_trials=args.trials,
    # The others go on.
    catch=RuntimeError,
  )
  for trial in study.trials:
    print(trial.number, trial.state.name, trial.value, trial.params)


if __name__ == '__main__':
  main()
