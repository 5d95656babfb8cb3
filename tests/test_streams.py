"""Standard streams that are full or gone, and terminals that close."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaxnas
from jaxnas import train
from jaxnas.runtime import errors, jsonl, signals, streams
from jaxnas.runtime.preemption import Preemption
from support import small_run
from support.runs import metrics

# Prints so many letters, does its work, and ends with a code.
COMMAND = """
import sys
from pathlib import Path
from jaxnas.runtime import streams
count, file, code = sys.argv[1:]
def main():
  print('x' * int(count))
  print('y' * int(count), file=sys.stderr)
  Path(file).write_text('done')
  return int(code)
streams.run(main)
"""


@contextlib.contextmanager
def full():
  with open('/dev/full', 'w') as stream:
    yield stream


@contextlib.contextmanager
def nobody_reads():
  reader, writer = os.pipe()
  os.close(reader)
  yield writer
  os.close(writer)


@contextlib.contextmanager
def closed_terminal():
  leader, follower = pty.openpty()
  os.close(leader)
  yield follower
  os.close(follower)


GONE = {
  full: 'No space left on device',
  nobody_reads: 'Broken pipe',
  closed_terminal: 'Input/output error',
}


def ended(tmp_path, count, code, **streams):
  return subprocess.run(
    [sys.executable, '-c', COMMAND, str(count), tmp_path / 'work', str(code)],
    **streams,
    text=True,
  )


@pytest.mark.parametrize('count', [1, 100_000])
@pytest.mark.parametrize('gone', GONE)
def test_output_that_nobody_gets_is_one_line_and_the_work_goes_on(
  tmp_path, gone, count
):
  with gone() as out:
    done = ended(tmp_path, count, 0, stdout=out, stderr=subprocess.PIPE)
  assert done.returncode == 1
  *rest, line = sorted(done.stderr.splitlines(), reverse=True)
  assert line.startswith('error: standard output cannot be written to')
  assert GONE[gone] in line and rest == ['y' * count]
  assert (tmp_path / 'work').read_text() == 'done'


@pytest.mark.parametrize('code', [0, 3])
@pytest.mark.parametrize('gone', GONE)
def test_errors_that_nobody_gets_change_nothing(tmp_path, gone, code):
  with gone() as err:
    done = ended(tmp_path, 10, code, stdout=subprocess.PIPE, stderr=err)
  assert (done.returncode, done.stdout) == (code, 'x' * 10 + '\n')
  assert (tmp_path / 'work').read_text() == 'done'


def test_files_do_not_take_the_place_of_closed_streams(tmp_path):
  """A library's message would be in them."""
  words = [sys.executable, '-c', COMMAND, '1', str(tmp_path / 'work'), '0']
  done = subprocess.run(
    ['sh', '-c', 'exec "$@" 0<&- 1>&- 2>&-', '-', *words], check=True
  )
  assert done.returncode == 0
  assert (tmp_path / 'work').read_text() == 'done'


@pytest.mark.parametrize(
  ('error', 'says'),
  [
    (MemoryError(), '(MemoryError)'),
    (
      ImportError('/lib/x.so: failed to map segment from shared object'),
      '(ImportError: /lib/x.so: failed to map segment from shared object)',
    ),
  ],
)
def test_libraries_that_find_no_memory_are_one_line(error, says, capsys):
  def main():
    raise error

  with pytest.raises(SystemExit) as ended:
    streams.run(main)
  assert ended.value.code == 1
  assert capsys.readouterr().err == (
    f'error: memory ran out {says}: take a machine with more.\n'
  )


@pytest.mark.usefixtures('capsys')
def test_other_errors_of_loading_are_left_as_they_are():
  def main():
    raise ImportError('no module')

  with pytest.raises(ImportError, match='no module'):
    streams.run(main)


def test_every_command_runs_so():
  package = Path(jaxnas.__file__).parent
  modules = [
    file
    for file in package.rglob('*.py')
    if file.read_text().rpartition("\nif __name__ == '__main__':")[1]
    # Another command reads what it says.
    and file != package / 'bench' / 'child.py'
  ]
  assert len(modules) >= 13
  for file in modules:
    assert file.read_text().endswith('  streams.run(main)\n'), file


HUP, TERM, INT = signal.SIGHUP, signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
  ('numbers', 'ends'),
  [
    ([HUP], False), ([HUP, HUP], False), ([HUP, TERM], False),
    ([INT, HUP], False), ([TERM, TERM], True), ([HUP, TERM, INT], True),
  ],
)  # fmt: skip
def test_a_closed_terminal_asks_and_never_ends(monkeypatch, numbers, ends):
  """It may send several signals, beside what else does."""
  codes = []
  monkeypatch.setattr(os, '_exit', codes.append)
  with Preemption() as preemption:
    for number in numbers:
      os.kill(os.getpid(), number)
    assert preemption.requested
  assert codes == [128 + numbers[-1]] * ends


@pytest.mark.parametrize(
  ('numbers', 'code'), [([INT], 130), ([TERM], 143), ([HUP], 143), ([], 143)]
)
def test_a_run_that_is_stopped_says_by_its_code_how(numbers, code, tmp_path):
  # As shells do. A signal that another process was sent is no Ctrl-C.
  with (
    pytest.raises(SystemExit) as ended,
    errors.outcome(tmp_path),
    Preemption() as preemption,
  ):
    for number in numbers:
      os.kill(os.getpid(), number)
    preemption.requested = True
    preemption.check()
  assert ended.value.code == code


def test_who_asked_for_no_hangup_gets_none():
  """A run under `nohup` goes on."""
  before = signal.signal(HUP, signal.SIG_IGN)
  try:
    with Preemption() as preemption:
      os.kill(os.getpid(), HUP)
      assert not preemption.requested
    assert signal.getsignal(HUP) == signal.SIG_IGN
  finally:
    signal.signal(HUP, before)
  with signals.handled(lambda number, frame: None):
    pass
  assert signal.getsignal(HUP) == before


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_a_run_whose_terminal_closes_has_saved(tmp_path):
  # Long enough for the signal to come before the end.
  longer = ['--epochs', '40']
  flags, run = small_run.flags_in(tmp_path)
  child, terminal = pty.fork()
  if not child:
    words = [sys.executable, '-m', 'support.small_run', *flags, *longer]
    os.execv(sys.executable, words)
  while not jsonl.read_rows(run / 'metrics.jsonl', {'step': int}):
    assert os.waitpid(child, os.WNOHANG) == (0, 0), os.read(terminal, 10_000)
    time.sleep(0.01)
  os.close(terminal)
  _, status = os.waitpid(child, 0)
  assert os.waitstatus_to_exitcode(status) == 143
  assert not (run / 'predictions.npz').exists()
  assert train.main(['--workdir', str(run), '--resume']) == 0
  whole = small_run.train_in(tmp_path / 'whole', *longer)
  assert metrics(run) == metrics(whole)
