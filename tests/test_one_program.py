"""Runs that differ in numbers share their compiled programs."""

import contextlib
import dataclasses

import jax
import pytest
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache

import jaxnas
from jaxnas.experiment import build
from support import small_run

# Numbers of an experiment that its step reads.
OTHERS = [
  {'seed': 2**32 - 1},
  {'epochs': 5},
  {'optimizer.peak_lr': 0.3, 'optimizer.floor_lr': 0.01},
  {'optimizer.momentum': 0.0, 'optimizer.weight_decay': 0.1},
  {'optimizer.label_smoothing': 0.1, 'optimizer.clip_norm': 3.0},
  {'optimizer.lr_warmup_steps': 9},
]

DEBIASED = {'debias': {'temperature': 0.1}}


def changed(config, fields):
  for name, value in fields.items():
    section, _, field = name.rpartition('.')
    if section:
      part = dataclasses.replace(getattr(config, section), **{field: value})
      field, value = section, part
    config = dataclasses.replace(config, **{field: value})
  return config


def traced(config):
  experiment = build.experiment(config)
  inputs = next(experiment.training.feed(config.seed, 0))
  program = experiment.step_fn.trace(experiment.init_state(), inputs)
  return str(program.jaxpr)


@pytest.mark.slow
@pytest.mark.parametrize('sampler', ['uniform', 'fair'])
def test_a_step_with_other_numbers_is_the_same_program(
  small_space, tmp_path, sampler
):
  small_run.flags_in(tmp_path)
  config = jaxnas.load_config(
    tmp_path / 'small.py',
    sampler={'name': sampler},
    optimizer={'clip_norm': 1.0},
  )
  texts = {traced(changed(config, other)) for other in [{}, *OTHERS]}
  assert len(texts) == 1


@contextlib.contextmanager
def counted(folder):
  """Yields what JAX compiles with an empty cache in a folder."""
  compiled = []

  def listen(event, **_):
    if event == '/jax/compilation_cache/cache_misses':
      compiled.append(event)

  config = jax.config
  before = config.jax_compilation_cache_dir
  config.update('jax_compilation_cache_dir', str(folder))
  compilation_cache.reset_cache()
  monitoring.register_event_listener(listen)
  try:
    yield compiled
  finally:
    monitoring.unregister_event_listener(listen)
    config.update('jax_compilation_cache_dir', before)
    compilation_cache.reset_cache()


@pytest.mark.slow
def test_a_comparison_compiles_for_one_seed_alone(small_space, tmp_path):
  small_run.flags_in(tmp_path)
  config, after = jaxnas.load_config(tmp_path / 'small.py', **DEBIASED), []
  with counted(tmp_path / 'cache') as compiled:
    for seeds in (1, 2, 3):
      jaxnas.compare_samplers(
        config,
        ['uniform', 'uniform+debias'],
        tmp_path / 'both',
        seeds=seeds,
        resume=True,
        table=tmp_path / 'truth.json',
      )
      after.append(len(compiled))
  assert after[0] > 0
  assert after[1:] == [after[0]] * 2


@pytest.mark.slow
def test_a_sweep_of_numbers_compiles_for_its_first_run_alone(
  small_space, tmp_path
):
  small_run.flags_in(tmp_path)
  after = []
  numbers = [
    DEBIASED,
    {'optimizer': {'peak_lr': 0.2}, 'debias': {'temperature': 0.3}},
    {
      'optimizer': {'weight_decay': 0.01, 'label_smoothing': 0.1},
      'debias': {'temperature': 1.0},
    },
  ]
  with counted(tmp_path / 'cache') as compiled:
    for number, fields in enumerate(numbers):
      jaxnas.run_experiment(
        jaxnas.load_config(tmp_path / 'small.py', **fields),
        tmp_path / str(number),
        table=tmp_path / 'truth.json',
      )
      after.append(len(compiled))
  assert after[0] > 0
  assert after[1:] == [after[0]] * 2
