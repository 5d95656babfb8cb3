"""Half an hour of training that is stopped every minute.

`pytest -m soak -s`; JAXNAS_SOAK_S and JAXNAS_SOAK_EVERY_S are its seconds and
those between two signals.
"""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnas.runtime import jsonl
from support import small_run
from support.runs import rows

pytestmark = pytest.mark.soak

DURATION_S = float(os.environ.get('JAXNAS_SOAK_S', '1800'))
EVERY_S = float(os.environ.get('JAXNAS_SOAK_EVERY_S', '60'))

# Two where runs can have several.
PROCESSES = 2 if importlib.util.find_spec('jaxnas.runtime.processes') else 1

# Without end; a row and two checkpoints every so many of 20 steps.
MORE = [
  '--epochs', '1000000', '--logging.every_steps', '20',
  '--ranking.every_epochs', 'None', '--ranking.sample', '100',
  '--checkpoint.every_epochs', '25',
]  # fmt: skip

# How much of the memory of its first half a process may add in its second.
GROWTH = 0.1


def port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def start(argv, log):
  """The processes of a run."""
  flags: list[list[str]] = [[]]
  if PROCESSES > 1:
    where = f'localhost:{port()}'
    flags = [
      ['--distributed.coordinator', where, '--distributed.num_processes',
       str(PROCESSES), '--distributed.process_id', str(index)]
      for index in range(PROCESSES)
    ]  # fmt: skip
  with log.open('ab') as stream:
    return [
      subprocess.Popen(
        [sys.executable, '-m', 'support.small_run', *argv, *more],
        stdout=stream,
        stderr=stream,
      )
      for more in flags
    ]


def memory_mb(child):
  status = Path(f'/proc/{child.pid}/status').read_text()
  found = re.search(r'VmRSS:\s+(\d+)', status)
  return int(found[1]) / 1e3 if found else 0.0


def train_for(seconds, argv, run, log):
  """Until a signal; [(step, memory in MB)] a second from its first row on."""
  children, seen = start(argv, log), []
  began, first = time.monotonic(), None
  while time.monotonic() - began < seconds or not seen:
    time.sleep(1)
    assert all(child.poll() is None for child in children), log.read_text()
    rows = jsonl.read_rows(run / 'metrics.jsonl', {'step': int})
    last = rows[-1]['step'] if rows else 0
    first = last if first is None else first
    if last > first:
      seen.append((last, max(map(memory_mb, children))))
  for child in children:
    child.send_signal(signal.SIGTERM)
  codes = [child.wait(timeout=300) for child in children]
  assert codes == [143] * len(children), log.read_text()
  return seen


def test_stopped_every_minute_nothing_is_lost_and_memory_stays(tmp_path):
  log = tmp_path / 'log'
  flags, run = small_run.flags_in(tmp_path)
  if PROCESSES > 1:
    MORE.extend(['--mesh.data', str(PROCESSES), '--data.batch_size', '24'])
  began, argv, parts = time.monotonic(), [*flags, *MORE], []
  while time.monotonic() - began < DURATION_S:
    parts.append(train_for(EVERY_S, argv, run, log))
    argv = ['--workdir', str(run), '--resume']
  wall_s = time.monotonic() - began

  # Every row once, in order, as one run that is not stopped writes them.
  found = rows(run / 'metrics.jsonl', {'step': int, 'loss': float})
  assert [row['step'] for row in found] == [
    20 * (index + 1) for index in range(len(found))
  ]
  flags, whole = small_run.flags_in(tmp_path / 'whole')
  train_for(DURATION_S / 6, [*flags, *MORE], whole, log)
  expected = rows(whole / 'metrics.jsonl', {'step': int, 'loss': float})
  count = min(len(found), len(expected))
  assert found[:count] == expected[:count]
  assert not list((run / 'checkpoints').glob('*tmp*'))
  assert 'skipped a checkpoint' not in log.read_text()

  # Within a process, and from the first to the last.
  growth = []
  for part in parts:
    half = part[len(part) // 2 :]
    growth.append(half[-1][1] / half[0][1] - 1)
  last = [part[-1][1] for part in parts]
  print(
    f'\n{PROCESSES} processes, {len(parts)} preemptions in {wall_s:.0f} s, '
    f'{found[-1]["step"]} steps, {count} rows equal to those of a run that was '
    f'not stopped; memory {min(last):.0f} to {max(last):.0f} MB at the end of '
    f'a part, at most {max(growth):.1%} more than in its middle'
  )
  assert max(growth) < GROWTH
  assert last[-1] < (1 + GROWTH) * last[0]
