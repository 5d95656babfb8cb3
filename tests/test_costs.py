import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest

from jaxnas import spaces, supernets

MACRO = spaces.get('nas_bench_macro')
POOLING = spaces.get('pooling')
CELLS = spaces.get('nas_bench_201')
MOBILENET = spaces.get('mobilenet')


def costs(space, text):
  return tuple(int(cost[0]) for cost in space.costs(space.parse(text)[None]))


# The benchmark's own figures for its best, worst and one more.
@pytest.mark.parametrize(
  ('text', 'params', 'macs'),
  [
    ('22212220', 1_985_514, 85_164_544),
    ('00000000', 387_882, 7_713_280),
    ('11111111', 1_588_874, 53_246_464),
  ],
)
def test_costs_of_known_archs(text, params, macs):
  assert costs(MACRO, text) == (params, macs)


def test_costs_are_those_of_the_benchmark(benchmark):
  archs_AxE = MACRO.enumerate()
  entries = [benchmark[MACRO.format(arch_E)] for arch_E in archs_AxE]
  assert len(entries) == len(benchmark) == 6561
  params_A, macs_A = MACRO.costs(archs_AxE)
  np.testing.assert_array_equal(params_A, [e['params'] for e in entries])
  np.testing.assert_array_equal(macs_A, [e['flops'] for e in entries])


def test_all_ops_together_are_the_supernet():
  zero_E = np.zeros(8, np.int32)
  single_AxE = np.array(
    [
      np.where(np.arange(8) == e, op, zero_E)
      for e, op in itertools.product(range(8), (1, 2))
    ],
    np.int32,
  )
  (least,) = MACRO.costs(zero_E[None]).params_A
  added_A = MACRO.costs(single_AxE).params_A - least
  # An MB block stands in the place of an identity, which has parameters
  # where the shape changes; the supernet has both.
  identities = sum(
    layer.inputs * layer.outputs + 2 * layer.outputs
    for layer in MACRO.layers
    if layer.stride == 2
  )
  assert least + added_A.sum() + 2 * identities == 4_221_386


def counted(space, arch_E):
  """Costs from a list of convolutions: inputs, outputs, kernel, groups."""
  side = space.image_shape[0]
  total = {'params': 0, 'macs': 0}

  def conv(i, o, kernel=1, stride=1, groups=1):
    nonlocal side
    side = (side + 2 * (kernel // 2) - kernel) // stride + 1
    weights = kernel * kernel * (i // groups) * o
    total['params'] += weights + 2 * o
    total['macs'] += weights * side * side

  conv(space.image_shape[2], space.stem, 3)
  for layer, op in zip(space.layers, arch_E, strict=True):
    inputs, outputs, stride = layer
    if op == 0 and stride == 1:
      continue
    if op == 0:
      conv(inputs, outputs, 1, stride)
      continue
    expansion, kernel = ((3, 3), (6, 5))[op - 1]
    wide = inputs * expansion
    conv(inputs, wide)
    conv(wide, wide, kernel, stride, wide)
    conv(wide, outputs)
  conv(space.stages[-1][1], space.head)
  return (
    total['params'] + (space.head + 1) * space.classes,
    total['macs'] + space.head * space.classes,
  )


@pytest.mark.parametrize('name', ['digits', 'nas_bench_macro'])
@pytest.mark.parametrize('side', [8, 33])
def test_costs_against_a_count_by_convolution(name, side):
  space = dataclasses.replace(
    spaces.get(name), image_shape=(side, side, 2), classes=7
  )
  archs_AxE = space.random(np.random.default_rng(0), 40)
  np.testing.assert_array_equal(
    np.stack(space.costs(archs_AxE), axis=1),
    [counted(space, arch_E) for arch_E in archs_AxE],
  )


@pytest.mark.parametrize('name', ['digits', 'nas_bench_macro', 'pooling'])
@pytest.mark.parametrize('shape', [(8, 8, 1), (13, 10, 2)])
def test_parameters_are_those_of_the_network(name, shape):
  space = spaces.get(name).on_images(shape, 7)
  for arch_E in space.random(np.random.default_rng(0), 2):
    arch = tuple(arch_E.tolist())
    net = supernets.build(space, affine=True, momentum=0.1)
    shapes = supernets.shapes(supernets.StandAlone(net, arch), arch)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
    assert count == space.costs(arch_E[None]).params_A[0]


def test_pooling_parameters():
  params_A, _ = POOLING.costs(POOLING.enumerate())
  # 270,906 without affine normalisation; with it a scale and a bias for each
  # channel of the stem, of two norms a block and of the two shortcuts.
  channels = 16 + 2 * 3 * (16 + 32 + 64) + 32 + 64
  assert set(params_A.tolist()) == {270_906 + 2 * channels}


def test_pooling_macs():
  # ResNet20's 40,551,040 and two shortcuts of 16*32*16*16 = 32*64*8*8.
  assert costs(POOLING, '4,7')[1] == 40_551_040 + 2 * 131_072
  macs_A = POOLING.costs(POOLING.enumerate()).macs_A
  first = 9 * 3 * 16 * 32 * 32
  pairs = list(itertools.combinations(range(1, 10), 2))
  for (p, q), macs in zip(pairs, macs_A, strict=True):
    expected, inputs = first + 64 * 10, 16
    for block in range(1, 10):
      outputs = (16, 32, 64)[(block - 1) // 3]
      side = 32 // 2 ** ((block >= p) + (block >= q))
      weights = 9 * inputs * outputs + 9 * outputs * outputs
      weights += inputs * outputs if inputs != outputs else 0
      expected += weights * side * side
      inputs = outputs
    assert macs == expected


def test_pooling_costs_follow_image_and_classes():
  archs_AxE = POOLING.enumerate()
  params_A, macs_A = POOLING.costs(archs_AxE)
  larger = dataclasses.replace(POOLING, image_shape=(64, 32, 3), classes=100)
  more_A, twice_A = larger.costs(archs_AxE)
  np.testing.assert_array_equal(more_A, params_A + 90 * 65)
  np.testing.assert_array_equal(twice_A - 6400, 2 * (macs_A - 640))
  grey = dataclasses.replace(POOLING, image_shape=(32, 32, 1))
  np.testing.assert_array_equal(
    grey.costs(archs_AxE).params_A, params_A - 9 * 2 * 16
  )


# Parameters and multiply-adds as published for networks found by others.
MOBILENETS = {
  'MCT-NAS-A': (
    '6.3s 3.3s 3.3s 3.3s 3.3s 3.5s 3.5s 3.3s 6.3s 3.5s 3.5s 6.3s 6.3s 6.7s '
    '6.3s 6.5s 6.7s 6.7s 6.5s 6.5s 6.7s',
    8_448_814,
    441_640_928,
  ),
  'MCT-NAS-B': (
    '3.7s ID ID 3.3s 3.5s 3.5s 6.3s 3.3s 3.3s ID 6.5s 6.5s 6.5s 3.3s 3.3s '
    '3.3s 6.5s 3.5s 6.7s 3.3s 6.7s',
    6_408_250,
    327_228_416,
  ),
  'GreedyNAS-B': (
    '3.5s 3.5s 3.5s ID 3.5s 3.7s 3.5s 3.3 6.5 ID 3.7s 3.7s 3.3s 3.5 3.5 3.7s '
    '6.5s 3.7s 3.3s 3.7s 6.7s',
    5_207_804,
    323_520_704,
  ),
}


@pytest.mark.parametrize('name', MOBILENETS)
def test_costs_of_published_mobilenets(name):
  short, params, macs = MOBILENETS[name]
  text = re.sub(r'(\d)\.(\d)', r'MB\1_K\2', short).replace('s', '_SE')
  assert costs(MOBILENET, text.replace(' ', ',')) == (params, macs)


def test_costs_of_cells_are_those_of_the_benchmark(data_folder):
  truth = np.load(data_folder / 'nas_bench_201.npz')
  params_A, macs_A = CELLS.costs(truth['ops'].astype(np.int32))
  assert (params_A.min(), params_A.max()) == (73_306, 1_531_546)
  np.testing.assert_array_equal(params_A, truth['params'])
  # The benchmark counts the linear layer's bias as an operation a class.
  np.testing.assert_array_equal(macs_A + 10, truth['flops'])


# Published FLOPs are in millions, with six digits.
@pytest.mark.parametrize(
  ('op', 'params', 'mflops'),
  [('nor_conv_3x3', 1_531_546, 220.11969), ('none', 73_306, 7.78305)],
)
def test_costs_of_a_cell_and_what_is_published(op, params, mflops):
  text = f'|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|'
  assert costs(CELLS, text) == (params, round(1e6 * mflops) - 10)


@pytest.mark.parametrize('name', spaces.SPACES)
def test_costs_are_exact_integers(name):
  space = spaces.get(name)
  archs_AxE = space.random(np.random.default_rng(0), 100)
  for cost_A in space.costs(archs_AxE):
    assert cost_A.dtype == np.int64
    assert (cost_A > 0).all()


def test_baselines():
  baselines = POOLING.baselines(POOLING.enumerate())
  assert sorted(baselines) == ['layers', 'macs', 'params']
  assert np.ptp(baselines['params']) == np.ptp(baselines['layers']) == 0
  assert np.ptp(baselines['macs']) > 0
  archs_AxE = np.stack([MACRO.parse(t) for t in ('00000000', '01020010')])
  baselines = MACRO.baselines(archs_AxE)
  np.testing.assert_array_equal(baselines['layers'], [0, 3])
  np.testing.assert_array_equal(
    baselines['params'], MACRO.costs(archs_AxE).params_A
  )
  np.testing.assert_array_equal(
    baselines['macs'], MACRO.costs(archs_AxE).macs_A
  )
