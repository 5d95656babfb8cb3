"""Branches in CUDA graphs: when they are asked for, and where that fails."""

import ctypes
import types

import jax
import jax.numpy as jnp
import pytest

from jaxnas.runtime import graphs


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
  monkeypatch.setattr(graphs, '_said', set())
  monkeypatch.setattr(graphs, '_failed', [])
  monkeypatch.delenv(graphs.SWITCH, raising=False)
  monkeypatch.delenv('XLA_FLAGS', raising=False)


def with_driver(monkeypatch, version):
  """The driver says this number; None: there is none."""

  def load(name):
    assert name == 'libcuda.so.1'
    if version is None:
      raise OSError(name)

    def tell(number):
      number._obj.value = version
      return 0

    return types.SimpleNamespace(cuDriverGetVersion=tell)

  monkeypatch.setattr(ctypes, 'CDLL', load)


@pytest.mark.parametrize(
  ('version', 'variables', 'says'),
  [
    (12080, {}, None),
    (12030, {}, None),
    (13000, {}, None),
    (12020, {}, 'for CUDA 12.2, and graphs have branches since 12.3'),
    (11080, {}, 'for CUDA 11.8'),
    (None, {}, 'no CUDA driver'),
    (12080, {'JAXNAS_GRAPHS': '0'}, 'JAXNAS_GRAPHS is 0'),
    (12080, {'JAXNAS_GRAPHS': '1'}, None),
    (
      12080,
      {'XLA_FLAGS': '--xla_a=1 --xla_gpu_graph_min_graph_size=9'},
      'XLA_FLAGS has xla_gpu_graph_min_graph_size',
    ),
    (
      12080,
      {'XLA_FLAGS': '--xla_gpu_enable_command_buffer='},
      'XLA_FLAGS has xla_gpu_enable_command_buffer',
    ),
    (12080, {'XLA_FLAGS': '--xla_gpu_autotune_level=0'}, None),
  ],
)
def test_graphs_are_asked_for_where_they_can_be(
  version, variables, says, monkeypatch
):
  with_driver(monkeypatch, version)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  why = graphs.reason()
  assert why is None if says is None else says in why


def test_no_option_is_given_without_a_gpu(capsys):
  assert graphs.jit(lambda x: x + 1)(1) == 2
  assert not capsys.readouterr().out


@pytest.mark.parametrize(('version', 'asked'), [(12080, True), (12020, False)])
def test_a_gpu_is_given_the_options_and_the_log_says_so(
  version, asked, monkeypatch, capsys
):
  with_driver(monkeypatch, version)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  given = []
  monkeypatch.setattr(
    jax, 'jit', lambda fn, **options: given.append(options) or fn
  )
  for _ in range(2):
    assert graphs.jit(lambda x: x + 1)(1) == 2
  told = [options.get('compiler_options') for options in given]
  assert (graphs.OPTIONS in told) == asked
  printed = capsys.readouterr().out
  assert printed.count('\n') == 1
  assert ('JAXNAS_GRAPHS=0 turns' if asked else 'since 12.3') in printed
  described = graphs.describe()['graphs']
  assert described == 'on' if asked else '12.3' in described


def failing(at, message='INTERNAL: stream capture'):
  """A program that fails in one of its calls, and how often it was called."""
  calls = []
  program = jax.jit(lambda state, x: (state + x, x), donate_argnums=0)

  def run(*args):
    calls.append(args)
    if len(calls) == at:
      program(*args)  # what it was given is gone
      raise jax.errors.JaxRuntimeError(message)
    return program(*args)

  return run, calls


@pytest.mark.parametrize('at', [1, 2, 3])
def test_a_program_that_cannot_be_captured_goes_on_without(at, capsys):
  captured, calls = failing(at)
  plain = jax.jit(lambda state, x: (state + x, x), donate_argnums=0)
  run = graphs.Tried(captured, plain, donated=True)
  state = jnp.zeros(3)
  for number in range(5):
    state, _ = run(state, jnp.float32(number))
  assert state.tolist() == [10.0] * 3
  assert len(calls) == at
  printed = capsys.readouterr().out
  assert printed.count('\n') == 1
  assert 'stream capture' in printed and 'JAXNAS_GRAPHS=0' in printed
  # No other program of the process tries again.
  other, calls = failing(1)
  graphs.Tried(other, plain, donated=True)(jnp.zeros(3), jnp.float32(0))
  assert not calls and 'stream capture' in (graphs.reason() or '')


def test_a_program_that_is_captured_is_called_as_it_is_from_then_on():
  captured, calls = failing(-1)
  run = graphs.Tried(captured, lambda *_: pytest.fail(), donated=True)
  state = jnp.zeros(3)
  for _ in range(graphs.TRIES):
    before = state
    state, _ = run(state, jnp.float32(1))
    assert not before.is_deleted()
  before = state
  run(state, jnp.float32(1))
  assert before.is_deleted() and len(calls) == graphs.TRIES + 1


def test_what_fails_anyway_raises_its_own_error():
  captured, _ = failing(1)
  plain, _ = failing(1, 'RESOURCE_EXHAUSTED: out of memory')
  run = graphs.Tried(captured, plain, donated=True)
  with pytest.raises(jax.errors.JaxRuntimeError, match='out of memory'):
    run(jnp.zeros(3), jnp.float32(0))


def test_options_that_xla_does_not_know_are_an_error_that_is_caught(capsys):
  """Here a real one, of XLA's."""
  captured = jax.jit(
    lambda x: x + 1, compiler_options={'xla_gpu_no_such_option': True}
  )
  run = graphs.Tried(captured, jax.jit(lambda x: x + 1), donated=False)
  assert run(1) == 2
  assert 'No such compile option' in capsys.readouterr().out
