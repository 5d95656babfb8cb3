"""Values that are not finite: where training meets them, and again."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import debug, retrain, train
from jaxnas.config import run_folder
from jaxnas.experiment import dump
from jaxnas.training import loop, step
from jaxnas.training.checkpoint import Checkpoints
from support import small_run
from support.small_run import SPACE, ARCHS_AxE

pytestmark = pytest.mark.usefixtures('small_space')


def fails(call, argv, capsys):
  """Returns the error line of a command that ended with status 1."""
  with pytest.raises(SystemExit) as ended:
    call(argv)
  err = capsys.readouterr().err
  assert ended.value.code == 1
  # A slow machine says how far it is, besides.
  (said,) = [line for line in err.splitlines() if line.startswith('error: ')]
  assert said == err.splitlines()[-1]
  return said


@pytest.fixture
def broken(monkeypatch):
  """broken(at, change): the state is changed before that step."""

  def breaks(at, change):
    many = step.WithNumbers.many

    def made(self, count):
      inner = many(self, count)

      def spoilt(state, inputs):
        before = int(state.step) == at - 1
        state, values = inner(state, inputs)
        return change(state) if before else state, values

      return spoilt

    monkeypatch.setattr(step.WithNumbers, 'many', made)

  return breaks


def with_leaf(name, value):
  def change(state):
    part = getattr(state, name)
    leaves, structure = jax.tree.flatten(part)
    leaves[0] = jnp.full_like(leaves[0], value)
    return state.replace(**{name: structure.unflatten(leaves)})

  return change


def steps(run):
  with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
    return checkpoints.steps()


@pytest.mark.slow
def test_a_dump_replays_from_the_last_good_checkpoint(tmp_path, broken, capsys):
  broken(33, with_leaf('params', np.inf))
  flags, run = small_run.flags_in(tmp_path)
  said = fails(train.main, flags, capsys)
  assert steps(run) == [20]
  assert 'gradient norm nan' in said
  assert f'python -m jaxnas.debug {run / "dump-33"}' in said
  about, given = dump.read(run / 'dump-33')
  assert (about.step, about.checkpoint) == (33, 20)
  assert given == run_folder.read_config(run)
  (arch,) = about.archs
  assert f'error: {arch}: step 33' in said
  # The folder is enough.
  (run / 'dump-33').rename(tmp_path / 'sent')
  assert debug.main([str(tmp_path / 'sent')]) == 0
  out = capsys.readouterr().out
  assert 'again: step 33: loss ' in out
  assert 'parameters that are not finite: ' in out
  (of_path,) = [line for line in out.splitlines() if line.startswith(arch)]
  assert 'gradients that are not finite: ' in of_path


@pytest.mark.slow
def test_a_loss_from_the_start_is_dumped_without_a_checkpoint(tmp_path, capsys):
  flags, run = small_run.flags_in(tmp_path)
  said = fails(train.main, [*flags, '--optimizer.peak_lr', '1e30'], capsys)
  assert 'step 1: loss' in said and steps(run) == []
  about, _ = dump.read(run / 'dump-1')
  assert about.checkpoint is None
  assert debug.main([str(run / 'dump-1')]) == 0
  out = capsys.readouterr().out
  assert 'again: step 1: loss' in out and f'{about.archs[0]}: loss' in out


@pytest.mark.slow
def test_a_step_that_is_finite_this_time_is_said(tmp_path, capsys):
  flags, run = small_run.flags_in(tmp_path)
  fails(train.main, [*flags, '--optimizer.peak_lr', '1e30'], capsys)
  file = run / 'dump-1' / 'config.json'
  given = json.loads(file.read_text())
  given['optimizer']['peak_lr'] = 0.05
  file.write_text(json.dumps(given))
  assert debug.main([str(run / 'dump-1')]) == 1
  assert 'step 1 was finite this time' in capsys.readouterr().out


@pytest.mark.slow
def test_features_of_a_density_are_told_by_step_and_architecture(
  tmp_path, monkeypatch, capsys
):
  # The package has a function of that name.
  module = importlib.import_module('jaxnas.density.estimate')
  of_units = module.mean_cosine_distance

  def spoilt(units, count, **options):
    def bad():
      for block in units():
        third_C = jnp.asarray(block.indices_C == 3)
        values = jax.tree.map(
          lambda f_Cx, third_C=third_C: jnp.where(
            jnp.expand_dims(third_C, [*range(1, f_Cx.ndim)]), jnp.nan, f_Cx
          ),
          block.values,
        )
        yield block._replace(values=values)

    return of_units(bad, count, **options)

  monkeypatch.setattr(module, 'mean_cosine_distance', spoilt)
  flags, run = small_run.flags_in(tmp_path)
  said = fails(train.main, [*flags, '--debias.temperature', '1'], capsys)
  arch = SPACE.format(ARCHS_AxE[3])
  assert f'step 20: the features of architecture {arch} are not' in said
  assert steps(run) == [20]
  assert not (run / 'density.npz').exists()
  about, _ = dump.read(run / 'dump-20')
  assert (about.checkpoint, about.archs) == (20, [])
  assert debug.main([str(run / 'dump-20')]) == 0
  assert f'again: step 20: the features of architecture {arch}' in (
    capsys.readouterr().out
  )


@pytest.mark.slow
def test_an_architecture_alone_is_dumped_with_its_seed(tmp_path, capsys):
  (tmp_path / 'small.py').write_text(small_run.CONFIG)
  run = tmp_path / 'alone'
  words = [
    '--config', str(tmp_path / 'small.py'), '--workdir', str(run),
    '--arch', '012', '--optimizer.peak_lr', '1e30', '--retrain.epochs', '1',
  ]  # fmt: skip
  said = fails(retrain.main, words, capsys)
  assert '012, seed 0: step 1: loss' in said
  about, _ = dump.read(run / 'dump-1')
  assert (about.archs, about.seed, about.all) == (['012'], 0, False)
  assert debug.main([str(run / 'dump-1')]) == 0
  assert 'again: 012, seed 0: step 1' in capsys.readouterr().out


# What the loop does with what a step returns; the step is made up.


def metrics(**more):
  values = dict(loss=1.0, accuracy=0.5, gradient_norm=2.0, finite=True)
  return step.Metrics(**(values | more), archs_PxE=ARCHS_AxE[[5, 7]])


def fit(after, saved, epochs=2):
  """Two steps an epoch; `after`: step -> (state's params, metrics)."""
  state = step.TrainState(
    *(jnp.int32(0), {'w': jnp.zeros(3)}, {}, {}, {}, {}, {}, {})
  )

  def step_fn(state, _):
    params, values = after(int(state.step))
    return state.replace(step=state.step + 1, params=params), values

  def feed(_):
    while True:
      yield None

  loop.fit(
    state,
    step_fn,
    feed,
    loop.Schedule(steps_per_epoch=2, epochs=epochs, log_every=1, save_every=1),
    save=lambda state, rows: saved.append(int(state.step)),
    record=lambda step, row: None,
    images_per_step=1,
    guessing_loss=9.0,
    preemption=loop.Preemption(),
    label=None,
  )


GOOD = {'w': jnp.ones(3)}


@pytest.mark.parametrize(
  ('values', 'says'),
  [
    ({'loss': np.nan}, 'step 3: loss nan'),
    ({'loss': np.inf}, 'step 3: loss inf'),
    ({'gradient_norm': np.inf}, 'gradient norm inf'),
    ({'finite': False}, 'statistics of batch normalisation not finite'),
  ],
)
def test_a_step_is_told_before_anything_of_it_is_saved(values, says):
  saved: list = []
  with pytest.raises(loop.NonFinite, match=says) as raised:
    fit(lambda at: (GOOD, metrics(**(values if at == 3 else {}))), saved)
  assert saved == [2]
  assert raised.value.step == 3
  np.testing.assert_array_equal(raised.value.archs_PxE, ARCHS_AxE[[5, 7]])


def test_an_update_that_overflows_is_not_saved_either():
  saved: list = []
  with pytest.raises(loop.NonFinite, match='step 3: params/w is not finite'):
    fit(
      lambda at: ({'w': jnp.array([1, np.inf, 1])} if at == 3 else GOOD,
                  metrics()),
      saved,
    )  # fmt: skip
  assert saved == [2]


def test_what_is_finite_is_saved():
  saved: list = []
  fit(lambda at: (GOOD, metrics()), saved)
  assert saved == [2, 4]


def test_finite_sees_every_leaf():
  assert step.finite({}) and step.finite({'a': jnp.ones(3), 'b': jnp.ones(())})
  for bad in (np.nan, np.inf, -np.inf):
    assert not step.finite({'a': jnp.ones(3), 'b': jnp.array([1, bad])})


def test_what_is_no_dump_is_refused(tmp_path, capsys):
  for folder, text in ((tmp_path / 'no', None), (tmp_path / 'bad', '{"x": 1}')):
    folder.mkdir()
    if text:
      (folder / 'dump.json').write_text(text)
    with pytest.raises(SystemExit) as ended:
      debug.main([str(folder)])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert str(folder) in err and err.count('\n') == 1
