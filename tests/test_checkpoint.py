"""Checkpoints that were damaged, are of something else, or did not fit."""

import contextlib
import dataclasses
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.experimental.compilation_cache import compilation_cache

from jaxnas import train
from jaxnas.runtime import jsonl
from jaxnas.runtime.errors import Damaged, Different
from jaxnas.training import digests, noise
from jaxnas.training.checkpoint import Checkpoints, NotSaved
from support import small_run

FACTS = {'space': 'digits', 'precision': 'float32'}


@struct.dataclass
class State:
  step: Any
  params: Any


def state(step, **more):
  """Holds one leaf of every kind that Orbax writes in its own way."""
  return State(
    jnp.int32(step),
    {
      'large': step * jnp.arange(3000, dtype=jnp.float32).reshape(3, -1),
      'small': jnp.full(4, step, jnp.bfloat16),
      'truth': jnp.arange(5) < step,
      'key': jax.random.key(step),
      **more,
    },
  )


def save(folder, *steps, **more):
  with Checkpoints(folder, keep=9, metadata=FACTS) as checkpoints:
    for step in steps:
      checkpoints.save(state(step), {'window': [[0.1 * step, 2]]}, **more)


@pytest.fixture
def folder(tmp_path):
  """Folder that holds the checkpoints of steps 1 to 3."""
  save(tmp_path / 'checkpoints', 1, 2, 3)
  return tmp_path / 'checkpoints'


def newest(folder, like=None, **more):
  with Checkpoints(folder, keep=9, **more) as checkpoints:
    return checkpoints.newest(state(0) if like is None else like)


def is_step(found, step):
  restored, notes = found
  assert digests.describe(restored) == digests.describe(state(step))
  assert notes == {'window': [[0.1 * step, 2]]}
  return True


def files_in(folder):
  return sorted(file for file in folder.rglob('*') if file.is_file())


def test_what_is_restored_is_what_was_saved(folder, capsys):
  assert is_step(newest(folder), 3)
  assert capsys.readouterr().out == ''
  assert newest(folder.parent / 'nothing') is None


def flips(file, rng, count):
  whole = file.read_bytes()
  for bit in (rng.randrange(8 * len(whole)) for _ in range(count)):
    part = bytearray(whole)
    part[bit // 8] ^= 1 << bit % 8
    yield bytes(part)


def cuts(file):
  whole = file.read_bytes()
  yield from (b'', whole[: len(whole) // 2], whole[:-1], None)


def test_every_damage_is_harmless_or_reported(folder):
  """Flipped bits, files cut short, emptied or gone: none changes a result."""
  rng, reported = random.Random(0), {}
  with Checkpoints(folder, read_only=True) as checkpoints:
    for file in files_in(folder / '3'):
      whole = file.read_bytes()
      for damage in (*flips(file, rng, 6), *cuts(file)):
        file.unlink()
        if damage is not None:
          file.write_bytes(damage)
        try:
          assert is_step(checkpoints.restore(3, state(0)), 3)
        except Damaged as error:
          assert str(folder / '3') in str(error)
          reported[file.name] = reported.get(file.name, 0) + 1
      file.write_bytes(whole)
    assert is_step(checkpoints.restore(3, state(0)), 3)
  # What the arrays and notes are in. A few bits of the first are spare, and
  # where they lie changes from run to run.
  largest = max(files_in(folder / '3'), key=lambda file: file.stat().st_size)
  assert reported[largest.name] >= 7
  assert reported['metadata'] == 10


def test_a_bit_of_an_array_is_told_by_its_name(folder, monkeypatch):
  """Orbax alone restores the flipped bit without a word."""
  read = Checkpoints._read

  def flipped(self, step, **args):
    values = read(self, step, **args)
    if 'state' in args:
      bits = np.array(values.params['large']).view(np.uint32)
      bits[2, 7] ^= 1
      values.params['large'] = jnp.asarray(bits.view(np.float32))
    return values

  monkeypatch.setattr(Checkpoints, '_read', flipped)
  with (
    pytest.raises(Damaged, match='params/large differs from its digest'),
    Checkpoints(folder) as checkpoints,
  ):
    checkpoints.restore(3, state(0))


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def test_damaged_ones_are_skipped_said_and_made_way_for(folder, capsys):
  empty(folder / '3')
  shutil.rmtree(folder / '2' / 'state')
  assert is_step(newest(folder), 1)
  out = capsys.readouterr().out
  for step in (2, 3):
    assert f'moved to {folder.parent / "damaged" / str(step)}' in out
    assert f'{folder / str(step)} is damaged (' in out
  save(folder, 2, 3)
  assert is_step(newest(folder), 3)


def test_who_only_reads_moves_nothing(folder, capsys):
  empty(folder / '3')
  assert is_step(newest(folder, read_only=True), 2)
  assert 'skipped a checkpoint: ' in capsys.readouterr().out
  assert (folder / '3').is_dir() and not (folder.parent / 'damaged').exists()
  assert newest(folder.parent / 'nothing', read_only=True) is None
  assert not (folder.parent / 'nothing').exists()


def test_where_none_is_good_it_says_so_and_nothing_moves(folder):
  for step in (1, 2, 3):
    empty(folder / str(step))
  with pytest.raises(Damaged, match=r'no checkpoint in .* is good') as raised:
    newest(folder)
  assert '\n' not in str(raised.value)
  assert all((folder / str(step)).is_dir() for step in (1, 2, 3))


def other(**more):
  return state(0, **more)


@pytest.mark.parametrize(
  ('like', 'metadata', 'says'),
  [
    (other(small=jnp.zeros(4)), FACTS,
     r'params/small as bfloat16\[4\], not float32\[4\]'),
    (other(large=jnp.zeros((3, 5))), FACTS,
     r'params/large as float32\[3,1000\], not float32\[3,5\]'),
    (other(more=jnp.zeros(1)), FACTS,
     r'params/more as nothing, not float32\[1\]'),
    (State(jnp.int32(0), {}), FACTS, r'params/key as key<fry>\[\], not nothi'),
    (other(), FACTS | {'space': 'pooling'},
     'is of space digits, not pooling'),
    (other(), FACTS | {'precision': 'bfloat16'},
     'is of precision float32, not bfloat16'),
  ],
)  # fmt: skip
def test_another_experiment_is_refused_with_the_difference(
  folder, like, metadata, says
):
  with pytest.raises(Different, match=says) as raised:
    newest(folder, like, metadata=metadata)
  assert str(folder / '3') in str(raised.value)
  assert '\n' not in str(raised.value)


@contextlib.contextmanager
def largest_file(size):
  """Ends writing of larger files with an error, as a full disk does.

  JAX keeps no compiled programs meanwhile: they would be cut short, and other
  tests would find them.
  """
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  keep_programs(False)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    keep_programs(True)


def keep_programs(keep):
  jax.config.update('jax_enable_compilation_cache', keep)
  compilation_cache.reset_cache()


def test_programs_that_a_full_disk_would_cut_short_are_not_kept():
  kept = Path(os.environ['JAX_COMPILATION_CACHE_DIR'])
  # A program that no other test compiles.
  unique = time.time()
  before = {*kept.iterdir()}
  with largest_file(10):
    jax.jit(lambda x: x + unique)(1.0)
  assert {*kept.iterdir()} == before


def large(step):
  rng = np.random.default_rng(step)
  return dataclasses.replace(
    state(step, noise=jnp.asarray(rng.random(100_000))),
  )


def test_what_does_not_fit_ends_the_run_and_the_last_good_one_stays(
  tmp_path, caplog
):
  folder = tmp_path / 'checkpoints'
  with (
    pytest.raises(NotSaved) as raised,
    Checkpoints(folder, keep=1) as checkpoints,
  ):
    checkpoints.save(large(1), {}, wait=True)
    with largest_file(100_000):
      checkpoints.save(large(2), {})
      checkpoints.save(large(3), {})
  said = str(raised.value)
  assert str(folder / '2') in said and '\n' not in said
  assert not caplog.records
  assert 'takes 0.000412 GB' in said and 'Those of steps 1 stay' in said
  assert 'checkpoint.on_error skip' in said
  assert [path.name for path in folder.iterdir()] == ['1']
  restored, _ = newest(folder, large(0))
  assert digests.describe(restored) == digests.describe(large(1))


def test_what_is_written_late_into_a_lost_checkpoint_goes_too(
  tmp_path, monkeypatch
):
  """Orbax writes parts side by side, and one of them may fail first."""
  remove, late = shutil.rmtree, []

  def while_writing(part, **options):
    remove(part, **options)
    if not late:
      late.append(part)
      part.mkdir()
      (part / 'late').write_text('')

  monkeypatch.setattr(shutil, 'rmtree', while_writing)
  folder = tmp_path / 'checkpoints'
  with pytest.raises(NotSaved), Checkpoints(folder, keep=1) as checkpoints:
    checkpoints.save(large(1), {}, wait=True)
    with largest_file(100_000):
      checkpoints.save(large(2), {}, wait=True)
  assert late and [path.name for path in folder.iterdir()] == ['1']


def test_or_it_is_skipped_and_the_next_one_that_fits_is_saved(tmp_path, capsys):
  folder = tmp_path / 'checkpoints'
  with Checkpoints(folder, keep=1, on_error='skip') as checkpoints:
    checkpoints.save(large(1), {}, wait=True)
    with largest_file(100_000):
      checkpoints.save(large(2), {}, wait=True)
    assert checkpoints.steps() == [1]
    checkpoints.save(large(3), {})
  assert f'warning: {folder / "2"} could not be' in capsys.readouterr().out
  assert [path.name for path in folder.iterdir()] == ['3']


def test_the_last_one_is_never_skipped(tmp_path):
  folder = tmp_path / 'checkpoints'
  with (
    pytest.raises(NotSaved),
    Checkpoints(folder, on_error='skip') as checkpoints,
    largest_file(100_000),
  ):
    checkpoints.save(large(1), {})
    checkpoints.finish()


def caused(error, cause):
  error.__cause__ = cause
  return error


GONE = jax.errors.JaxRuntimeError('UNAVAILABLE: peer')


@pytest.mark.parametrize('choice', ['raise', 'skip'])
@pytest.mark.parametrize(
  ('count', 'error', 'ends'),
  [
    (2, GONE, True),
    (2, caused(ValueError('barrier'), GONE), True),
    (2, caused(OSError('a'), caused(RuntimeError('b'), GONE)), True),
    (2, OSError('disk full'), False),
    (1, caused(ValueError('barrier'), GONE), False),
  ],
)
def test_another_process_that_ended_is_not_taken_for_a_full_disk(
  tmp_path, monkeypatch, choice, count, error, ends
):
  """Nor is it skipped, since none of the later ones could be saved."""

  def failing(*args, **kwargs):
    raise error

  with (
    pytest.raises(jax.errors.JaxRuntimeError if ends else NotSaved),
    Checkpoints(tmp_path / 'checkpoints', on_error=choice) as checkpoints,
    monkeypatch.context() as patch,
  ):
    patch.setattr(checkpoints._manager, 'save', failing)
    patch.setattr(jax, 'process_count', lambda: count)
    checkpoints.save(state(1), {})


def test_threads_that_nobody_waits_for_are_not_heard(monkeypatch):
  heard = []
  monkeypatch.setattr(sys, 'unraisablehook', heard.append)
  noise.quiet()
  noise.quiet()
  other = types.SimpleNamespace(exc_value=RuntimeError('another'))
  for unraisable in (
    types.SimpleNamespace(exc_value=RuntimeError('Event loop is closed')),
    other,
  ):
    sys.unraisablehook(unraisable)
  assert heard == [other]


@pytest.mark.parametrize(
  ('text', 'heard'),
  [
    (
      f'Task exception was never retrieved\nfuture: <at {noise.ORBAX}/a>',
      False,
    ),
    (
      'Future exception was never retrieved\nfuture: <Future error: cannot '
      'write to 40.orbax-checkpoint-tmp>',
      False,
    ),
    ('Task exception was never retrieved\nfuture: <at /mine.py>', True),
    (f'Executing <Task at {noise.ORBAX}/a> took 9 seconds', True),
  ],
)
def test_tasks_of_a_lost_checkpoint_are_not_heard(text, heard, caplog):
  noise.quiet()
  logging.getLogger('asyncio').error(text)
  assert bool(caplog.records) == heard


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
@pytest.mark.parametrize('choice', ['raise', 'skip'])
def test_a_run_says_what_its_disk_could_not_take(tmp_path, choice):
  """It says so in one line each, without what libraries say of it."""
  flags, run = small_run.flags_in(tmp_path)
  ended = subprocess.run(
    [
      *('bash', '-c', 'ulimit -f 5; exec "$@"', '-'),
      *(sys.executable, '-m', 'support.small_run', *flags),
      *('--checkpoint.on_error', choice),
    ],
    env={**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': '0'},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1, ended.stderr
  # On a slow machine training has said how far it is.
  (said,) = (
    line
    for line in ended.stderr.splitlines()
    if not line.startswith('training ')
  )
  assert said.startswith(f'error: {run / "checkpoints"}/')
  assert 'are free on its disk' in said
  warned = ended.stdout.count('Training goes on')
  assert warned == (2 if choice == 'skip' else 0)
  if choice == 'skip':
    rows = jsonl.read_rows(run / 'metrics.jsonl', {'step': int, 'loss': float})
    assert rows[-1]['step'] == 40
  assert not (run / 'predictions.npz').exists()
  # With room it goes on from what there is: nothing.
  assert train.main(['--workdir', str(run), '--resume']) == 0
