"""The training step's program as GPUs and TPUs get it, read here.

It is lowered for them on any machine, bfloat16, and searched for what would
cost precision or time there. Where libtpu is installed it is compiled, too.
"""

import collections
import importlib.util
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data, samplers, spaces, supernets
from jaxnas.data import Images
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.training import step
from jaxnas.training.optimizer import Sgd

# No other axis is as long, but for those that maps are flattened to.
BATCH = 7
SQUEEZED = chain(
  'squeezed',
  image_shape=(8, 8, 1),
  classes=10,
  stem=4,
  stages=(Stage(1, 6), Stage(1, 6, 1)),
  blocks=(Block(2, 3, True),),
  head=32,
)
SPACES = {
  name: spaces.get(name)
  for name in ('digits', 'nas_bench_macro', 'nas_bench_201', 'pooling')
} | {'squeezed': SQUEEZED}
COLLECTIVES = {
  f'stablehlo.{name}'
  for name in (
    'all_gather',
    'all_reduce',
    'all_to_all',
    'collective_broadcast',
    'collective_permute',
    'partition_id',
    'recv',
    'reduce_scatter',
    'replica_id',
    'send',
  )
}


class Tensor(NamedTuple):
  """The type of a value."""

  shape: tuple[int, ...]
  dtype: str

  @property
  def is_map(self) -> bool:
    """A feature map, or several in one array."""
    return len(self.shape) >= 4 and BATCH in self.shape


class Program(NamedTuple):
  """A training step, lowered."""

  space: spaces.Space
  state: Any
  """Shapes and types."""
  lowered: Any
  ops: dict[str, list[Any]]
  """Operations by name, wherever they are nested."""

  def kernels(self, rank: int, *, linear: bool = False) -> list[tuple]:
    """Shapes of those of convolutions, or those of linear layers.

    The cells of a stage are one array, of which a kernel is a row.
    """
    return [
      leaf.shape[cells:]
      for path, leaf in jax.tree_util.tree_leaves_with_path(self.state.params)
      for names in [[key.key for key in path]]
      for cells in [any(name.startswith('cells_') for name in names)]
      if names[-1] == 'kernel'
      and leaf.ndim - cells == rank
      and linear == (names[-2] == 'linear' or 'squeeze' in names)
    ]


def tensors(values) -> list[Tensor]:
  return [
    Tensor(tuple(value.type.shape), str(value.type.element_type))
    for value in values
  ]


def operations(op):
  for region in op.regions:
    for block in region.blocks:
      for inner in block.operations:
        yield inner.operation
        yield from operations(inner.operation)


def inside(op) -> set[str]:
  """Names of the operations that an operation holds."""
  return {inner.name for inner in operations(op)}


def training_step(space, dtype=jnp.bfloat16):
  """(step, its state's shapes, its inputs), formulated for this backend."""
  rng = np.random.default_rng(0)
  height, width, channels = space.image_shape
  x = rng.integers(0, 256, (2 * BATCH, height, width, channels), np.uint8)
  y = rng.integers(0, space.classes, 2 * BATCH, np.int32)
  moment_C = np.full(channels, 0.5, np.float32)
  images = Images(x, y, x, y, space.classes, moment_C, moment_C)
  training = data.training(
    images,
    np.arange(2 * BATCH),
    batch_size=BATCH,
    crop_padding=4,
    flip=True,
    dtype=dtype,
  )
  leaves, tree = jax.tree.flatten(next(training.feed(0, 0)))
  order, batch = training.order, training.batch
  # Lowering puts other things than arrays into trees, where checked types
  # refuse them.
  training = training._replace(
    order=training.order._replace(
      draw=lambda state, leaves, *of: order.draw(
        state, tree.unflatten(leaves), *of
      )
    ),
    batch=lambda leaves, *of: batch(tree.unflatten(leaves), *of),
  )
  net = supernets.formulated(
    supernets.build(space, dtype=dtype), jax.default_backend()
  )
  sampler = samplers.uniform(space, paths=2)
  count = samplers.counter(space)
  optimizer = Sgd(0.1, weight_decay=1e-4, clip_norm=5.0)
  state = jax.eval_shape(
    lambda variables: step.init_state(
      net,
      sampler,
      optimizer,
      count,
      variables,
      images=training.order.init(),
      average=True,
    ),
    supernets.shapes(net, np.zeros(space.positions, np.int32)),
  )
  step_fn: Any = step.make_step(
    net,
    sampler,
    optimizer,
    training,
    count,
    seed=0,
    label_smoothing=0.1,
    ema_decay=0.9,
  )
  return step_fn, state, leaves


# Formulations differ between backends in chains alone, so that the costly
# spaces are lowered once.
LOWERED = [
  (name, platform)
  for name in ('digits', 'squeezed')
  for platform in ('cuda', 'tpu')
] + [
  pytest.param((name, 'cuda'), marks=pytest.mark.slow)
  for name in ('nas_bench_macro', 'nas_bench_201', 'pooling')
]


@pytest.fixture(scope='module', params=LOWERED, ids='-'.join)
def program(request):
  name, platform = request.param
  space = SPACES[name]
  with pytest.MonkeyPatch.context() as patch:
    backend = {'cuda': 'gpu'}.get(platform, platform)
    patch.setattr(jax, 'default_backend', lambda: backend)
    step_fn, state, inputs = training_step(space)
    lowered = step_fn.trace(state, inputs).lower(lowering_platforms=(platform,))
  ops = collections.defaultdict(list)
  for op in operations(lowered.compiler_ir('stablehlo').operation):
    ops[op.name].append(op)
  return Program(space, state, lowered, ops)


def test_convolutions_multiply_bfloat16_forward_and_backward(program):
  found = [
    (tensors(op.operands), tensors(op.results)[0])
    for op in program.ops['stablehlo.convolution']
  ]
  for operands, result in found:
    assert {t.dtype for t in (*operands, result)} == {'bf16'}
  results = collections.Counter(result.shape for _, result in found)
  depthwise = [(k, k, 1, c) for k, _, c in program.kernels(3)]
  kernels = collections.Counter(program.kernels(4) + depthwise)
  # The gradient of every kernel is among them, and of every map but images.
  assert kernels.total() > 0
  assert all(results[shape] >= n for shape, n in kernels.items())
  maps = sum(n for shape, n in results.items() if BATCH in shape)
  assert maps >= 2 * kernels.total() - 1


def test_pointwise_products_are_bfloat16_and_linear_layers_float32(program):
  dots = [
    [*tensors(op.operands), *tensors(op.results)]
    for op in program.ops['stablehlo.dot_general']
  ]
  precisions = [{t.dtype for t in dot} for dot in dots]
  wide = [
    frozenset(axes(t.shape) for t in dot)
    for dot, found in zip(dots, precisions, strict=True)
    if found == {'f32'}
  ]
  assert precisions.count({'bf16'}) == len(dots) - len(wide)
  # Forward and both gradients, and of those whose rows are images, not pixels.
  assert precisions.count({'bf16'}) >= 3 * len(program.kernels(2))
  linear = program.kernels(2, linear=True)
  assert len(wide) >= 3 * len(linear)
  assert set(wide) == {
    frozenset(map(axes, [(BATCH, d), (d, k), (BATCH, k)])) for d, k in linear
  }


def axes(shape) -> tuple[int, ...]:
  """Returns sorted axes, which a matrix shares with its transpose."""
  return tuple(sorted(shape))


def test_sums_are_wider_than_bfloat16(program):
  """Statistics, losses, gradients of what is broadcast."""
  summed = []
  for op in program.ops['stablehlo.reduce']:
    if inside(op) != {'stablehlo.add', 'stablehlo.return'}:
      continue
    operand = tensors(op.operands)[0]
    terms = math.prod(operand.shape[d] for d in op.attributes['dimensions'])
    if terms > 1:
      summed.append(operand)
  narrow = [t for t in summed if t.dtype not in ('f32', 'i32')]
  assert not narrow, collections.Counter(narrow).most_common(5)
  # Those of normalisation: two statistics and what comes back through them.
  convolutions = len(program.ops['stablehlo.convolution'])
  assert sum(t.is_map for t in summed) > convolutions / 3
  assert Tensor((BATCH, program.space.classes), 'f32') in summed
  for op in program.ops['stablehlo.reduce_window']:
    assert {t.dtype for t in tensors(op.operands)} <= {'f32', 'i32'}


def test_nothing_is_float64(program):
  text = program.lowered.as_text()
  assert re.findall(r'[<x](bf16|f32)>', text)
  assert not re.findall(r'[<x]f64>', text)


def test_feature_maps_are_never_transposed_and_kernels_gradients_once(program):
  """One layout from the images to the head, forward and backward.

  A product's gradient of its kernel comes out transposed, as does a depthwise
  convolution's, with axes of length 1; small arrays, once for every branch
  that has the kernel. Dense convolutions name their axes instead.
  """
  transposed = [
    tensors(op.operands)[0] for op in program.ops['stablehlo.transpose']
  ]
  assert not [t for t in transposed if BATCH in t.shape or len(t.shape) == 4]
  products = program.kernels(2) + program.kernels(2, linear=True)
  if program.space.name == 'pooling':
    # A block that projects is a branch for every resolution and pool before.
    branches = [
      count
      for count, (before, after) in zip(
        cases(program.space),
        zip(
          (16, *program.space.channels), program.space.channels, strict=False
        ),
        strict=True,
      )
      if before != after
    ]
    *projections, linear = products
    products = [linear] + [
      shape
      for shape, count in zip(projections, branches, strict=True)
      for _ in range(count)
    ]
  elif program.space.name == 'nas_bench_201':
    # The six edges of each stage; its cells are a loop.
    assert len(products) == 3 * 6 + 2 + 1
  expected = collections.Counter(
    [shape[::-1] for shape in products]
    + [(k, k, 1, c, 1) for k, _, c in program.kernels(3)]
  )
  assert collections.Counter(t.shape for t in transposed) == expected


def test_the_state_is_updated_in_place_and_the_images_stay(program):
  (main,) = (
    op
    for op in program.ops['func.func']
    if op.attributes['sym_name'].value == 'main'
  )
  donated = [
    'tf.aliasing_output' in of_arg or 'jax.buffer_donor' in of_arg
    for of_arg in main.attributes['arg_attrs']
  ]
  leaves = len(jax.tree.leaves(program.state))
  assert donated[:leaves] == [True] * leaves
  assert donated[leaves:] and not any(donated[leaves:])


def test_one_device_talks_to_no_other(program):
  assert not COLLECTIVES & set(program.ops)
  # Memory that nothing writes.
  targets = {
    op.attributes['call_target_name'].value
    for op in program.ops['stablehlo.custom_call']
  }
  assert targets <= {'AllocateBuffer'}


def cases(space) -> list[int]:
  """Branches of each switch of the forward pass."""
  if isinstance(space, spaces.PoolingSpace):
    archs_AxE = space.enumerate()
    pooled_AxE = archs_AxE.cumsum(1)
    return [
      len(set(zip(archs_AxE[:, e], pooled_AxE[:, e], strict=True)))
      for e in range(space.positions)
    ]
  stages = 3 if isinstance(space, spaces.CellSpace) else 1
  return [*space.counts] * stages


def test_one_program_switches_once_forward_and_once_backward(program):
  found = [
    len(op.regions)
    for op in program.ops['stablehlo.case']
    if inside(op) & {'stablehlo.convolution', 'stablehlo.dot_general'}
  ]
  assert sorted(found) == sorted(2 * cases(program.space))
  # Of the paths, and of the cells of each stage there and back.
  loops = 6 if isinstance(program.space, spaces.CellSpace) else 0
  assert len(program.ops['stablehlo.while']) == 1 + loops


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)
@pytest.mark.parametrize('name', ['digits', 'nas_bench_macro'])
def test_a_tpu_compiles_it_as_it_is_meant(name, monkeypatch):
  from jax.experimental import topologies

  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  device = topologies.get_topology_desc('v5e:2x2', 'tpu').devices[0]
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  step_fn, *arguments = training_step(SPACES[name])
  arguments = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(device)
    ),
    arguments,
  )
  compiled = step_fn.trace(*arguments).lower().compile()
  text = compiled.as_text()
  assert not re.findall(r'(?:all-reduce|all-gather|all-to-all)\(', text)
  assert 'f64[' not in text
  assert len(re.findall(r' conditional\(', text)) == 2 * len(
    cases(SPACES[name])
  )
  # Products are convolutions there.
  products = [line for line in text.splitlines() if ' convolution(' in line]
  wide = [line for line in products if ' = bf16[' not in line]
  assert len(wide) == 3 and all('/head/linear/' in line for line in wide)
  assert len(products) > 6 * len(cases(SPACES[name]))
  # Every leaf of the state, in place.
  (header,) = re.findall(r'input_output_alias=\{(.*?)\}, entry', text)
  assert header.count('alias)') == len(jax.tree.leaves(arguments[0]))
