"""The PyTorch side of benchmarks does what ours does: it is a fair rival."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnas
from jaxnas import density, spaces, supernets
from jaxnas.bench import inputs
from jaxnas.data import Training
from jaxnas.samplers import Sampler
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.supernets import evaluation
from jaxnas.training import step
from jaxnas.training.optimizer import Sgd

torch = pytest.importorskip('torch', reason='baselines need the torch extra')

from jaxnas.bench import torch_density, torch_rank, torch_step  # noqa: E402
from jaxnas.supernets import torch_nets, torch_weights  # noqa: E402

DIGITS = spaces.get('digits')
SQUEEZED = chain(
  'squeezed',
  image_shape=(8, 8, 3),
  classes=5,
  stem=4,
  stem_stride=2,
  first=(Block(1, 3), 6),
  stages=(Stage(1, 8, 1),),
  blocks=(Block(3, 5, True),),
  head=12,
  activation='hard_swish',
)
DECAY = {'weight_decay': 0.02, 'clip_norm': None}
CLIP = {'weight_decay': 0.0, 'clip_norm': 0.5}
# Space, its architectures in the order of steps, images, options.
STEPS = [
  (SQUEEZED, ['1', '0', '1'], 4, DECAY),
  (DIGITS, ['1021', '0102', '1201'], 6, DECAY),
  (DIGITS, ['2000', '2010'], 6, CLIP),
  (spaces.get('pooling'), ['4,7', '1,2', '8,9'], 2, DECAY),
  (spaces.get('nas_bench_macro'), ['10221022', '00000000'], 4, DECAY),
  (
    spaces.get('nas_bench_201'),
    [
      '|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+'
      '|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|',
      # Nothing reaches the output: what stands before decays.
      '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|',
    ],
    4,
    DECAY,
  ),
]


def params_and_data(space, count, precision='float64'):
  """Weights of ours, images and labels."""
  params = supernets.init(
    supernets.build(space), np.zeros(space.positions, np.int32), 0
  )['params']
  x, y = inputs.images(space, count, 0)
  cast = lambda leaf: jnp.asarray(leaf, precision)  # noqa: E731
  return jax.tree.map(cast, params), x.astype(precision), y


def theirs(space, params, precision='float64'):
  net = torch_nets.build(space).to(getattr(torch, precision))
  torch_weights.load(net, params)
  return net


def our_steps(space, params, archs, x, y, **options):
  net = supernets.build(space, dtype=x.dtype)
  sampler = Sampler(
    init=lambda: jnp.zeros((1, space.positions), jnp.int32),
    sample=lambda archs_1xE, key: archs_1xE,
    log_prob=lambda archs_1xE: None,
  )
  optimizer = Sgd(0.1, **options)
  count = lambda archs_PxE: jnp.int32(len(archs_PxE))  # noqa: E731
  state = step.init_state(net, sampler, optimizer, count, {'params': params})
  step_fn = step.make_step(
    net,
    sampler,
    optimizer,
    Training(iter, lambda inputs, *_: inputs, 1, len(y)),
    count,
    seed=0,
  )
  losses = []
  for arch_E in archs:
    state = dataclasses.replace(state, sampler=jnp.asarray(arch_E[None]))
    state, metrics = step_fn(state, (jnp.asarray(x), jnp.asarray(y)))
    losses.append(float(metrics.loss))
  return losses, state.params


@pytest.mark.parametrize(
  ('space', 'texts', 'count', 'options'),
  [
    pytest.param(
      *case,
      marks=[pytest.mark.slow] if i else [],
      id=f'{case[0].name}-{i}',
    )
    for i, case in enumerate(STEPS)
  ],
)
def test_steps_are_those_of_jax(space, texts, count, options):
  """Losses and parameters, those of unused ops among them."""
  archs = [space.parse(text) for text in texts]
  with jax.enable_x64(True):
    params, x, y = params_and_data(space, count)
    net = theirs(space, params)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    step_fn = torch_step.make_step(net, x, y, device='cpu', **options)
    losses = [float(step_fn(arch_E)) for arch_E in archs]
    expected, after = our_steps(space, params, archs, x, y, **options)
    # PyTorch clips to the norm over the norm and a millionth.
    tolerance = 1e-8 if options['clip_norm'] is None else 1e-6
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    after = torch_weights.converted(net, after)
  now = {n: p.detach() for n, p in net.named_parameters()}
  assert set(after) == set(now)
  for name, value in now.items():
    bound = tolerance * float(value.abs().max())
    assert float((value - after[name]).abs().max()) < bound, name
  moved = {n for n, value in now.items() if not torch.equal(value, before[n])}
  used = set()
  for arch_E in archs:
    of_arch = supernets.build(space).used(params, arch_E)
    masks = jax.tree.map(lambda m, p: np.full(p.shape, m), of_arch, params)
    masks = torch_weights.converted(net, masks)
    used |= {name for name, mask in masks.items() if mask.any()}
  assert moved == used


def test_a_clipped_step_is_as_long_as_said():
  params, x, y = params_and_data(DIGITS, 6, 'float32')
  net = theirs(DIGITS, params, 'float32')
  before = {n: p.detach().clone() for n, p in net.named_parameters()}
  torch_step.make_step(
    net, x, y, lr=0.5, momentum=0.0, clip_norm=0.2, device='cpu'
  )([1, 0, 2, 1])
  squared = sum(
    float((p - before[n]).detach().square().sum())
    for n, p in net.named_parameters()
  )
  assert squared**0.5 == pytest.approx(0.1, rel=1e-4)


def test_the_fastest_way_that_runs_is_taken(monkeypatch, capsys):
  ran, ways = [], torch_step.ways('cuda', 'bfloat16')
  assert len(set(ways)) == 6 and all(way.bfloat16 for way in ways)

  def make_step(net, x, y, **way):
    del net, x, y
    if way['graphs']:
      raise RuntimeError('no capture\nsecond line')
    return lambda arch: ran.append(torch_step.Way(**way))

  def pace(run, wait, work, at_least_s):
    run()
    best = ran[-1].compiled and not ran[-1].channels_last
    return 2.0 * work if best else float(work)

  monkeypatch.setattr(torch_step, 'make_step', make_step)
  monkeypatch.setattr(torch_step.windows, 'pace', pace)
  monkeypatch.setattr(torch_step, 'ways', lambda device, dtype: ways)
  given = {'space': 'digits', 'dtype': 'bfloat16', 'batch_size': 4, 'seed': 0}
  measure = torch_step.theirs(**given, archs=2)
  said = capsys.readouterr().err
  assert said.count('no capture') == 2 and 'second line' not in said
  assert measure() == 16
  assert ran[-1] == torch_step.Way(True, compiled=True, channels_last=False)
  monkeypatch.setattr(torch_step, 'ways', lambda *of: ways[2:3])
  with pytest.raises(RuntimeError, match='no way to train digits'):
    torch_step.theirs(**given, archs=2)


def test_maps_in_either_memory_train_alike():
  space = spaces.get('digits')
  x, y = inputs.images(space, 8, 0)
  losses = []
  for last in (True, False):
    torch.manual_seed(0)
    run = torch_step.make_step(
      torch_nets.build(space), x, y, channels_last=last
    )
    losses.append([float(run((1, 2, 0, 1))) for _ in range(3)])
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_bfloat16_is_close_and_no_more():
  params, x, y = params_and_data(DIGITS, 16, 'float32')
  losses = [
    float(
      torch_step.make_step(
        theirs(DIGITS, params, 'float32'), x, y, device='cpu', bfloat16=wide
      )([1, 0, 2, 1])
    )
    for wide in (False, True)
  ]
  assert losses[0] != losses[1]
  assert losses[0] == pytest.approx(losses[1], rel=0.02)


COMPILED = """
import json, torch
from torch._dynamo.utils import counters
from jaxnas import spaces
from jaxnas.bench import (inputs, torch_step)
from jaxnas.supernets import torch_nets

space = spaces.get('digits')
x, y = inputs.images(space, 8, 0)

def run(compiled):
  torch.manual_seed(0)
  step = torch_step.make_step(
    torch_nets.build(space), x, y, device='cpu', compiled=compiled
  )
  losses = [float(step(arch)) for arch in ([1, 0, 2, 1], [0, 1, 0, 2])]
  graphs = counters['stats']['unique_graphs']
  losses.append(float(step([1, 1, 0, 1])))
  return losses, graphs, counters['stats']['unique_graphs']

print(json.dumps([run(False), run(True)]))
"""


def run_alone(script, *command):
  """Without the checks of types, and with settings of its own."""
  return subprocess.run(
    [*command, sys.executable, '-c', script],
    capture_output=True,
    text=True,
    check=True,
  ).stdout


@pytest.mark.slow
def test_compiled_steps_are_the_same_and_compile_ops_not_paths():
  eager, compiled = json.loads(run_alone(COMPILED))
  np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-4)
  assert eager[1:] == [0, 0]
  # Stem, head and seven ops that are more than nothing; the third path has
  # none that is new.
  assert compiled[1:] == [9, 9]


def our_hits(space, params, archs_AxE, x, y, batch_size):
  """Images classified correctly in each batch, whose sizes are alike."""
  right_AxI = evaluation.right(
    supernets.build(space, dtype=x.dtype),
    {'params': params},
    archs_AxE,
    lambda indices_B: (jnp.asarray(x[indices_B]), jnp.asarray(y[indices_B])),
    len(y),
    batch_size=batch_size,
    label=None,
  )
  return right_AxI.reshape(len(archs_AxE), -1, batch_size).sum(axis=2)


def split(x, y, batch_size):
  return [
    (torch_nets.images(x[at], 'cpu'), torch_nets.labels(y[at], 'cpu'))
    for at in np.split(np.arange(len(y)), len(y) // batch_size)
  ]


@pytest.mark.slow
def test_a_ranking_counts_what_ours_counts():
  """The walk counts the same too, whatever the order of architectures."""
  archs_AxE = np.random.default_rng(0).permutation(DIGITS.enumerate())
  with jax.enable_x64(True):
    params, x, y = params_and_data(DIGITS, 24)
    expected_AxN = our_hits(DIGITS, params, archs_AxE, x, y, 12)
  net, batches = theirs(DIGITS, params), split(x, y, 12)
  hits_AxN = torch_rank.by_path(net, archs_AxE, batches)
  np.testing.assert_array_equal(hits_AxN, expected_AxN)
  np.testing.assert_array_equal(
    torch_rank.by_walk(net, archs_AxE, batches), hits_AxN
  )
  assert len(np.unique(hits_AxN, axis=0)) > 5


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pooling', 'nas_bench_201'])
def test_a_ranking_of_what_is_no_chain(name):
  space = spaces.get(name)
  archs_AxE = inputs.archs(space, 6, 0)
  with jax.enable_x64(True):
    params, x, y = params_and_data(space, 32)
    # Untrained it would see one class in all images.
    kernel = params['linear']['kernel']
    params['linear']['kernel'] = kernel - kernel.mean(axis=0)
    params['linear']['bias'] *= 0
    expected_AxN = our_hits(space, params, archs_AxE, x, y, 16)
  hits_AxN = torch_rank.by_path(
    theirs(space, params), archs_AxE, split(x, y, 16)
  )
  np.testing.assert_array_equal(hits_AxN, expected_AxN)
  assert len(np.unique(hits_AxN, axis=0)) > 2


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_density_by_pairs_is_ours(kind):
  """With blocks that do not divide A, a row of zeros and two equal rows."""
  features_AxD = np.random.default_rng(0).normal(1, 2, (37, 50))
  features_AxD = features_AxD.astype(np.float32)
  features_AxD[3], features_AxD[5] = 0, features_AxD[6]
  expected_A = density.inverse_mean_distance(features_AxD)
  assert np.ptp(expected_A) > 0.2
  for rows in (10, 1024):
    np.testing.assert_allclose(
      torch_density.inverse_mean_distance(kind(features_AxD), rows=rows),
      expected_A,
      rtol=1e-5,
    )


def test_weights_must_all_be_there():
  params, *_ = params_and_data(DIGITS, 1, 'float32')
  net = torch_nets.build(DIGITS)
  stem = params.pop('stem')
  with pytest.raises(RuntimeError, match=r'Missing.*stem\.conv\.weight'):
    torch_weights.load(net, params)
  with pytest.raises(KeyError, match='root'):
    torch_weights.load(net, {**params, 'stem': stem, 'root': stem})


def test_inputs_are_functions_of_the_seed():
  archs_AxE = inputs.archs(DIGITS, 5, 0)
  DIGITS.validate(archs_AxE)
  np.testing.assert_array_equal(inputs.archs(DIGITS, 5, 0), archs_AxE)
  assert (inputs.archs(DIGITS, 5, 1) != archs_AxE).any()
  for mine, again, other in zip(
    *(inputs.images(DIGITS, 5, seed) for seed in (0, 0, 1)), strict=True
  ):
    np.testing.assert_array_equal(mine, again)
    assert (mine != other).any()


def test_threads_are_the_cores():
  out = run_alone(
    'import torch\n'
    'from jaxnas.bench import torch_step\n'
    'torch_step.use_pinned_cores()\n'
    'print(torch.get_num_threads())',
    'taskset',
    '-c',
    '0',
  )
  assert out.split() == ['1']


def test_only_modules_named_for_it_import_torch():
  root = Path(jaxnas.__file__).parent
  importing = set()
  for file in root.rglob('*.py'):
    for node in ast.walk(ast.parse(file.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module or '']
      if any(name.split('.')[0] == 'torch' for name in names):
        importing.add(file)
  assert importing
  assert importing <= {*root.glob('*/torch_*.py')}
