"""Runs write in their own folders, and replace nothing but their own.

A run's folder may have been made by somebody else, who put links in it; and a
flag may name what is there already.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxnas import debug
from jaxnas.report import __main__ as report
from jaxnas.report import page
from jaxnas.runtime import errors, files, jsonl, lock, places
from support.refusals import COMMANDS, CONFIG, Refusal, contents, refused, row


@pytest.fixture(autouse=True)
def released():
  yield
  lock.release()


@pytest.fixture
def outside(tmp_path):
  """A folder with something precious, to which links may lead."""
  folder = tmp_path / 'outside'
  folder.mkdir()
  (folder / 'precious').write_text('precious')
  return folder


WRITERS = {
  'text': lambda file: files.write_text(file, 'x'),
  'json': lambda file: files.write_json(file, {}),
  'npz': lambda file: files.write_npz(file, {'x': np.zeros(1)}),
  'rows': lambda file: jsonl.write_rows(file, [{}]),
}


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS)
def test_a_link_is_replaced_and_what_it_leads_to_stays(
  write, outside, tmp_path
):
  file = tmp_path / 'file'
  file.symlink_to(outside / 'precious')
  write(file)
  assert file.is_file() and not file.is_symlink()
  file.unlink()
  # Nor is what a dangling one leads to made.
  file.symlink_to(outside / 'new')
  write(file)
  assert not file.is_symlink()
  assert contents(outside) == contents(outside)
  assert [path.name for path in outside.iterdir()] == ['precious']
  assert (outside / 'precious').read_text() == 'precious'


def test_nothing_is_added_through_a_link(outside, tmp_path):
  file = tmp_path / 'rows.jsonl'
  file.symlink_to(outside / 'precious')
  with pytest.raises(OSError, match=r'rows\.jsonl'):
    jsonl.append_row(file, {'step': 1})
  assert (outside / 'precious').read_text() == 'precious'


def test_names_of_what_is_not_complete_are_new_each_time(tmp_path):
  names = set()
  for _ in range(3):
    with files.whole(tmp_path / 'file') as stream:
      (part,) = (p for p in tmp_path.iterdir() if p.name != 'file')
      names.add(part.name)
      assert os.stat(part).st_ino == os.fstat(stream.fileno()).st_ino
  assert len(names) == 3


@pytest.mark.parametrize(
  'make', [os.mkfifo, os.mkdir, lambda file: os.mknod(file, 0o140600)],
  ids=['pipe', 'folder', 'socket'],
)  # fmt: skip
def test_what_is_no_file_is_not_replaced(make, tmp_path):
  make(tmp_path / 'file')
  for write in WRITERS.values():
    with pytest.raises(errors.Damaged, match='file is no regular file: take'):
      write(tmp_path / 'file')
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_every_folder_in_a_run_is_a_real_one(outside, tmp_path):
  # Above the run a user may have put links.
  (tmp_path / 'disk').mkdir()
  (tmp_path / 'link').symlink_to('disk')
  run = tmp_path / 'link' / 'run'
  lock.keep(run)
  places.make(run / 'a' / 'b')
  files.write_text(run / 'a' / 'b' / 'file', 'x')
  (run / 'c').symlink_to(outside)
  (run / 'd').write_text('x')
  for name in ('c', 'c/deep', 'd', 'd/deep'):
    for act in (
      places.make,
      places.check_within,
      lambda folder: files.write_text(folder / 'file', 'x'),
      lambda folder: jsonl.append_row(folder / 'file', {}),
      lambda folder: places.remove(folder / 'file'),
    ):
      with pytest.raises(errors.Damaged, match=r'is no folder but a link'):
        act(run / name)
  assert [path.name for path in outside.iterdir()] == ['precious']


def test_what_killed_processes_left_goes_and_nothing_else(outside, tmp_path):
  run = tmp_path / 'run'
  (run / 'deep').mkdir(parents=True)
  left = places.part_of(run / 'deep' / 'metrics.jsonl')
  left.write_text('half')
  (run / 'mine.part').write_text('x')
  places.part_of(run / 'a').symlink_to(outside / 'precious')
  (run / 'link').symlink_to(outside)
  (outside / places.part_of(run / 'a').name).write_text('x')
  before = contents(outside)
  places.clean(run)
  assert not left.exists() and (run / 'mine.part').exists()
  assert contents(outside) == before


HOLDS = """
import sys
from pathlib import Path
from jaxnas.runtime import lock, places
run = Path(sys.argv[1])
lock.keep(run)
(run / 'deep').mkdir()
places.part_of(run / 'deep' / 'state.npz').write_text('half')
print('up', flush=True)
sys.stdin.read()
"""


def test_what_another_process_writes_within_stays(tmp_path):
  held = tmp_path / 'runs' / 'held'
  held.mkdir(parents=True)
  with subprocess.Popen(
    [sys.executable, '-c', HOLDS, str(held)],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  ) as process:  # fmt: skip
    assert process.stdin and process.stdout
    assert process.stdout.readline() == 'up\n'
    left = places.part_of(tmp_path / 'runs' / 'file')
    left.write_text('half')
    places.clean(tmp_path / 'runs')
    assert not left.exists() and [*held.glob('deep/.state.npz.*.part')]
    process.kill()
  # Now nobody does.
  places.clean(tmp_path / 'runs')
  assert not [*held.glob('deep/.*.part')]


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
  (tmp_path / 'lost+found').mkdir()
  left = places.part_of(tmp_path / 'z')
  left.write_text('half')
  scandir = os.scandir

  def refusing(path):
    if str(path).endswith('lost+found'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  # Whoever is root may read everything, so that a mode would refuse nothing.
  monkeypatch.setattr(os, 'scandir', refusing)
  places.clean(tmp_path)
  assert not left.exists()
  for check in (places.check_within, places.check_readable):
    with pytest.raises(errors.Damaged, match=r'lost\+found cannot .*: take it'):
      check(tmp_path)


# Names that a command would write to, or pass, in the folder of a run.
LINKS = [
  ('train', '--workdir {tmp}/run --resume', '.lock'),
  ('rank', '--run {tmp}/run', 'rank-validation-batch'),
  ('rank', '--run {tmp}/run', 'rank-validation-batch/.lock'),
  ('measure', '--run {tmp}/run', 'measure'),
  ('measure', '--run {tmp}/run', 'measure/.lock'),
  ('search', '--run {tmp}/run', 'search'),
  ('search', '--run {tmp}/run', 'search/.lock'),
  ('retrain', '--run {tmp}/run --arch best', 'retrain'),
  ('export', '--run {tmp}/run --arch best', 'export'),
  ('compare', '--workdir {tmp}/run --resume --samplers uniform', '.lock'),
  ('report', '{tmp}/run', 'report'),
]


@pytest.mark.parametrize(
  ('command', 'words', 'name'), LINKS, ids=[f'{c} {n}' for c, _, n in LINKS]
)
def test_no_command_goes_where_a_link_leads(
  command, words, name, finished, outside, tmp_path, capsys
):
  shutil.copytree(finished, tmp_path / 'run')
  link = tmp_path / 'run' / name
  link.parent.mkdir(exist_ok=True)
  target = outside / 'precious' if name.endswith('.lock') else outside
  link.symlink_to(target)
  says = '{tmp}/run/' + name
  refused(Refusal(command, words, (says, 'link')), tmp_path, capsys)
  assert (outside / 'precious').read_text() == 'precious'


MEANWHILE = (
  'checkpoints',
  'checkpoints/9',
  'checkpoints/4.orbax-checkpoint-tmp',
)


@pytest.mark.parametrize('name', MEANWHILE)
def test_checkpoints_are_in_the_run(name, finished, outside, tmp_path, capsys):
  shutil.copytree(finished, tmp_path / 'run')
  link = tmp_path / 'run' / name
  if name == 'checkpoints':
    shutil.move(link, outside / 'checkpoints')
    outside = outside / 'checkpoints'
  link.symlink_to(outside)
  before = contents(outside)
  words = '--workdir {tmp}/run --resume'
  says = ('{tmp}/run/' + name, 'take it away')
  refused(Refusal('train', words, says), tmp_path, capsys, code=1)
  assert contents(outside) == before


# What is in the way, the command, and what it says.
OUT = [
  ('report', '{tmp}/run --out {tmp}/x.html'),
  ('plan', '--config {config} --topology h100:1 --out {tmp}/x.html'),
  ('reproduce', 'table3 --out {tmp} --data.dir {tmp}'),
]


def put(folder, name, kind, outside):
  file = folder / name
  if kind == 'file':
    file.write_text('mine')
  elif kind == 'folder':
    (file / 'mine').mkdir(parents=True)
  elif kind == 'link':
    file.symlink_to(outside / 'precious')
  else:
    os.mkfifo(file)


@pytest.mark.parametrize('kind', ['file', 'folder', 'link', 'pipe'])
@pytest.mark.parametrize(
  ('command', 'words'), OUT, ids=[command for command, _ in OUT]
)
def test_out_replaces_nothing_but_its_own(
  command, words, kind, finished, outside, tmp_path, capsys
):
  shutil.copytree(finished, tmp_path / 'run')
  name = 'table3.json' if command == 'reproduce' else 'x.html'
  put(tmp_path, name, kind, outside)
  for more in ('',) if kind == 'file' else ('', ' --overwrite'):
    says = ('--out {tmp}/' + name, 'a file in it' if kind == 'folder' else
            'choose another')  # fmt: skip
    refused(Refusal(command, words + more, says), tmp_path, capsys)


def test_out_may_be_what_the_command_wrote(tmp_path):
  out = tmp_path / 'report.html'
  page.check_out(out, [])
  out.write_text(f'<head>{page.GENERATOR}')
  page.check_out(out, [])
  out.write_text('mine')
  with pytest.raises(ValueError, match='add --overwrite'):
    page.check_out(out, [])
  page.check_out(out, [], overwrite=True)
  out.unlink()
  (tmp_path / 'report').mkdir()
  page.check_out(out, [])
  (tmp_path / 'report' / 'mine.png').write_text('mine')
  with pytest.raises(ValueError, match=r'report would get its figures'):
    page.check_out(out, [])


def test_a_report_does_not_replace_the_run(finished, tmp_path, capsys):
  shutil.copytree(finished, tmp_path / 'run')
  words = '{tmp}/run --out {tmp}/run/config.json'
  says = ('run/config.json is there', 'choose another, or add --overwrite')
  refused(Refusal('report', words, says), tmp_path, capsys)


WORKDIRS = [
  ('train', '--config {config} --workdir {tmp}/w', 'metrics.jsonl'),
  ('compare', '--config {config} --samplers uniform --workdir {tmp}/w',
   'results.json'),
  ('retrain', '--config {config} --all --workdir {tmp}/w', 'table.json'),
  ('rank', '--run {tmp}/run --workdir {tmp}/w', 'correlation.json'),
  ('measure', '--run {tmp}/run --workdir {tmp}/w', 'density.png'),
  ('search', '--run {tmp}/run --workdir {tmp}/w', 'state.npz'),
  ('export', '--run {tmp}/run --arch best --workdir {tmp}/w', 'mine.txt'),
]  # fmt: skip


@pytest.mark.parametrize(
  ('command', 'words', 'name'), WORKDIRS, ids=[w[0] for w in WORKDIRS]
)
def test_workdir_is_not_written_over(
  command, words, name, finished, tmp_path, capsys
):
  shutil.copytree(finished, tmp_path / 'run')
  (tmp_path / 'w').mkdir()
  (tmp_path / 'w' / name).write_text('mine')
  says = ('{tmp}/w', 'choose another --workdir', 'add --overwrite')
  refused(Refusal(command, words, says), tmp_path, capsys)


EMPTY = [
  row(command, words, flag, 'is empty, where a path is needed')
  for command, words, flag in (
    ('train', '--config {config} --workdir=', '--workdir'),
    ('train', '--workdir= --resume', '--workdir'),
    ('train', '--config {config} --table=', '--table'),
    ('train', '--config {config} --warmup_from=', '--warmup_from'),
    ('compare', '--config {config} --workdir=', '--workdir'),
    ('retrain', '--run=', '--run'),
    ('rank', '--run=', '--run'),
    ('rank', '--run {tmp} --workdir=', '--workdir'),
    ('measure', '--run {tmp} --workdir=', '--workdir'),
    ('search', '--run {tmp} --workdir=', '--workdir'),
    ('export', '--run {tmp} --workdir=', '--workdir'),
    ('prepare', 'cifar10 --dir=', '--dir'),
    ('report', '{tmp} --out=', '--out'),
    ('plan', '--config {config} --out=', '--out'),
    ('reproduce', 'table3 --out=', '--out'),
    ('train', '--config=', '--config'),
    ('train', '--config {config} --data.dir=', '--data.dir'),
    ('reproduce', 'table3 --out {tmp} --data.dir=', '--data.dir'),
  )
]


@pytest.mark.parametrize('refusal', EMPTY)
def test_an_unset_variable_is_no_path(refusal, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  refused(refusal, tmp_path, capsys)


def test_an_empty_word_is_no_path(tmp_path, capsys):
  """A shell makes it of `--workdir "$UNSET"`."""
  (tmp_path / 'config.py').write_text(CONFIG)
  for command in ('train', 'compare', 'retrain'):
    with pytest.raises(SystemExit) as ended:
      COMMANDS[command].main(
        ['--config', str(tmp_path / 'config.py'), '--workdir', '']
      )
    assert ended.value.code == 2
    assert '--workdir' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['report', 'debug'])
def test_an_empty_argument_is_no_path(command, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as ended:
    {'report': report, 'debug': debug}[command].main([''])
  assert ended.value.code == 2
  assert capsys.readouterr().err == (
    'error: an argument is empty: give one, or leave it out.\n'
  )


REPLACES = """
import shutil, sys
from pathlib import Path
from jaxnas.runtime import files, lock
run = Path(sys.argv[1])
shutil.rmtree(run)
lock.keep(run)
files.write_text(run / 'config.json', 'of another')
print(flush=True)
input()
"""


def test_who_lost_its_folder_stops_and_leaves_the_next_alone(tmp_path):
  run = tmp_path / 'run'
  lock.keep(run)
  files.write_text(run / 'config.json', 'ours')
  other = subprocess.Popen(
    [sys.executable, '-c', REPLACES, str(run)],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert other.stdout is not None and other.stdout.readline() == '\n'
  before = contents(run)
  for act in (
    lambda: files.write_text(run / 'config.json', 'x'),
    lambda: jsonl.append_row(run / 'metrics.jsonl', {}),
    lambda: files.write_npz(run / 'deep' / 'x.npz', {}),
    lambda: places.make(run / 'deep'),
    lambda: places.remove(run / 'config.json'),
  ):
    with pytest.raises(lock.Lost, match='begun anew or taken over while') as no:
      act()
    assert '\n' not in str(no.value)
  lock.release()
  assert contents(run) == before
  with pytest.raises(lock.Locked):
    lock.keep(run)
  other.communicate('\n', timeout=30)


def test_a_name_may_begin_anew_in_one_process(tmp_path):
  lock.keep(tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run')
  with pytest.raises(lock.Lost):
    files.write_text(tmp_path / 'run' / 'x', 'x')
  lock.keep(tmp_path / 'run')
  files.write_text(tmp_path / 'run' / 'x', 'x')


def test_losing_a_folder_is_one_line(tmp_path, capsys):
  lock.keep(tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run')
  with pytest.raises(SystemExit) as ended, errors.outcome(tmp_path / 'run'):
    files.write_text(tmp_path / 'run' / 'x', 'x')
  err = capsys.readouterr().err
  assert ended.value.code == 1 and err.count('\n') == 1
  assert err.startswith(f'error: {tmp_path / "run"} was removed')
