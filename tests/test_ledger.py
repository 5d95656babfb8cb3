"""Every second of a run has one name, over all its processes."""

import json

import pytest

from jaxnas.runtime import ledger


@pytest.fixture
def clock(monkeypatch):
  """Seconds, which only this moves."""

  class Clock:
    now_s = 0.0

    def pass_s(self, seconds):
      self.now_s += seconds

  clock = Clock()
  monkeypatch.setattr(ledger.time, 'monotonic', lambda: clock.now_s, 'run')
  return clock


def spent(book):
  return {name: value for name, value in book.seconds.items() if value}


def test_the_innermost_part_counts_and_all_add_up(tmp_path, clock):
  def feed():
    while True:
      clock.pass_s(3)
      yield 'images'

  with ledger.Ledger(tmp_path / 'ledger.json', clock.now_s, 'run') as book:
    clock.pass_s(5)
    with book.part('train'):
      clock.pass_s(2)
      inputs = book.waiting(feed())
      assert next(inputs) == next(inputs) == 'images'
      with book.part('checkpoint'):
        clock.pass_s(1)
      clock.pass_s(7)
    inputs.close()
  assert spent(book) == {
    'init': 5, 'train': 9, 'data_wait': 6, 'checkpoint': 1,
  }  # fmt: skip
  assert sum(book.seconds.values()) == clock.now_s
  saved = json.loads((tmp_path / 'ledger.json').read_text())
  assert saved['seconds'] == book.seconds and saved['processes'] == 1
  assert '21.0 s: init 5.0, train 9.0, data wait 6.0' in book.describe()


def test_programs_traced_within_others_count_once(tmp_path, clock):
  book = ledger.Ledger(tmp_path / 'ledger.json', clock.now_s, 'run')
  with book.part('train'):
    clock.pass_s(4)
    book.compiled('/jax/core/compile/jaxpr_trace_duration', 3.0)
    clock.pass_s(1)
    # From 0 to 5, the other within.
    book.compiled('/jax/core/compile/jaxpr_trace_duration', 5.0)
    clock.pass_s(2)
    book.compiled('/jax/core/compile/backend_compile_duration', 1.0)
    book.compiled('/jax/something/else', 100.0)
  assert spent(book) == {'compile': 6, 'train': 1}


def test_what_a_killed_process_did_after_its_checkpoint_is_lost(
  tmp_path, clock
):
  file = tmp_path / 'ledger.json'
  book = ledger.Ledger(file, clock.now_s, 'run')
  clock.pass_s(1)
  with book.part('train'):
    clock.pass_s(10)
    book.saved(100)
    clock.pass_s(4)
    with book.part('density'):
      clock.pass_s(2)
    book.save()
    clock.pass_s(9)  # Killed: nobody knows of these.
  again = ledger.Ledger(file, clock.now_s, 'run')
  clock.pass_s(3)
  again.restarted(100)
  again.save()
  assert spent(again) == {'init': 4, 'train': 10, 'lost': 6}
  assert json.loads(file.read_text())['processes'] == 2
  # Of a checkpoint that it knows nothing of nothing is lost.
  other = ledger.Ledger(file, clock.now_s, 'run')
  other.restarted(7)
  assert spent(other) == spent(again)
