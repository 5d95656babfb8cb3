"""Bad inputs of commands, and the one line with which each is refused."""

import dataclasses
import hashlib
from typing import NamedTuple

import pytest

from jaxnas import (
  calibrate,
  compare,
  config,
  export,
  measure,
  prepare,
  rank,
  retrain,
  search,
  sweep,
  train,
)
from jaxnas.bench import __main__ as bench
from jaxnas.config import run_folder
from jaxnas.experiment import build
from jaxnas.plan import __main__ as plan
from jaxnas.report import __main__ as report
from jaxnas.reproduce import __main__ as reproduce
from jaxnas.runtime import lock
from jaxnas.training.checkpoint import Checkpoints
from support import runs

COMMANDS = {
  'train': train,
  'measure': measure,
  'rank': rank,
  'search': search,
  'retrain': retrain,
  'compare': compare,
  'calibrate': calibrate,
  'sweep': sweep,
  'export': export,
  'prepare': prepare,
  'bench': bench,
  'report': report,
  'plan': plan,
  'reproduce': reproduce,
}

# Two steps an epoch, and few architectures to rank.
CONFIG = """
from jaxnas.config import *
def get_config():
  return Config(
    warmup_epochs=1,
    epochs=1,
    data=Data(batch_size=250),
    ranking=Ranking(images=20, archs=9, batch_size=10),
    retrain=Retrain(epochs=1, seeds=2),
  )
"""


def write_finished(folder):
  """A run as if its four steps were done, of which none was."""
  (folder / 'config.py').write_text(CONFIG)
  given = config.load(str(folder / 'config.py'))
  run = folder / 'run'
  run_folder.open_run(run, given, resume=False)
  state = build.experiment(given).init_state()
  with Checkpoints(run / 'checkpoints') as checkpoints:
    checkpoints.save(
      dataclasses.replace(state, step=state.step + 4), {}, wait=True
    )
  runs.write_result(run, 'correlation.json', {'best_arch': '0120'})
  lock.release()
  return run


class Refusal(NamedTuple):
  """A row of a table: what is called, and what it says."""

  command: str
  words: str
  """Flags; {tmp} is the test's folder, {config} a good config file."""
  says: tuple[str, ...]
  """The value, and the way out."""


def row(command, words, *says):
  assert len(says) >= 2, f'{words}: a value and a remedy'
  return pytest.param(
    Refusal(command, words, says), id=f'{command} {words}'[:70]
  )


def contents(folder):
  """Everything below a folder but bytecode, to be held to what it was."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
    if path.is_file()
    else None
    for path in sorted(folder.rglob('*'))
    if '__pycache__' not in path.parts
  }


def refused(refusal, folder, capsys, code=2):
  """The one line that a command ends with, nothing having been written."""
  (folder / 'config.py').write_text(CONFIG)
  words = [
    word.format(tmp=folder, config=folder / 'config.py')
    for word in refusal.words.split(' ')
    if word
  ]
  before = contents(folder)
  with pytest.raises(SystemExit) as ended:
    COMMANDS[refusal.command].main(words)
  err = capsys.readouterr().err
  assert ended.value.code == code, err
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert len(err) < 2100
  for word in refusal.says:
    assert word.format(tmp=folder) in err, (word, err)
  if code == 2:
    assert contents(folder) == before
  return err
