"""Networks against PyTorch ones, those against the papers' descriptions.

Both get the same weights. Errors are relative to a tensor's largest value.
float64 decides: in float32 rounding turns a ReLU around here and there, which
moves a gradient by more than 1e-3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces, supernets
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.spaces.mobilenet import BLOCKS
from support.small_spaces import SMALL_CELLS, SMALL_POOLING

torch = pytest.importorskip('torch')
F = torch.nn.functional

from jaxnas.supernets import torch_nets, torch_weights  # noqa: E402

PUBLISHED = {
  # Name: channels of stem and of what the positions receive, stride of the
  # stem, stages as (channels, positions, stride of the first), ops from 1 on
  # as (expansion, kernel, squeeze), channels of the head, classes.
  'nas_bench_macro': (
    32, 32, 1,
    [(64, 2, 2), (128, 3, 2), (256, 3, 2)],
    [(3, 3, False), (6, 5, False)],
    1280, 10,
  ),
  'mobilenet': (
    32, 16, 2,
    [
      (32, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1),
    ],
    [
      (expansion, kernel, squeeze)
      for squeeze in (False, True)
      for expansion in (3, 6)
      for kernel in (3, 5, 7)
    ],
    1280, 1000,
  ),
}  # fmt: skip


def metadata(conv):
  """(inputs, outputs, kernel, stride, groups), and what is always so."""
  (kernel, _), (stride, _) = conv.kernel_size, conv.stride
  assert conv.kernel_size == (kernel, kernel) and conv.bias is None
  assert conv.stride == (stride, stride)
  assert conv.padding == (kernel // 2, kernel // 2)
  return conv.in_channels, conv.out_channels, kernel, stride, conv.groups


def same_function(ours, theirs):
  x = torch.linspace(-5, 9, 57)
  assert torch.equal(ours(x.clone()), theirs(x))


@pytest.mark.parametrize('name', PUBLISHED)
def test_chains_are_as_published(name):
  stem, inputs, stem_stride, stages, ops, head, classes = PUBLISHED[name]
  with torch.device('meta'):
    net = torch_nets.build(spaces.get(name))
  activation = torch.relu
  assert metadata(net.stem.conv) == (3, stem, 3, stem_stride, 1)
  if name == 'mobilenet':
    activation = F.hardswish
    assert not net.first.expands and not net.first.keeps_shape
    assert metadata(net.first.depthwise) == (stem, stem, 3, 1, stem)
    assert metadata(net.first.project) == (stem, inputs, 1, 1, 1)
    same_function(net.first.activation, activation)
  positions = iter(net.position)
  for channels, count, first_stride in stages:
    for i in range(count):
      stride = first_stride if i == 0 else 1
      skip, *blocks = next(positions).op
      if i:
        assert isinstance(skip, torch.nn.Identity)
      else:
        assert metadata(skip.project) == (inputs, channels, 1, stride, 1)
      for block, (expansion, kernel, squeeze) in zip(blocks, ops, strict=True):
        wide = inputs * expansion
        assert metadata(block.expand) == (inputs, wide, 1, 1, 1)
        assert metadata(block.depthwise) == (wide, wide, kernel, stride, wide)
        assert metadata(block.project) == (wide, channels, 1, 1, 1)
        assert block.keeps_shape == (i > 0)
        same_function(block.activation, activation)
        assert hasattr(block.squeeze, 'reduce') == squeeze
        if squeeze:
          assert block.squeeze.reduce.out_features == int(0.25 * wide)
      inputs = channels
  assert not list(positions)
  assert metadata(net.head.conv) == (inputs, head, 1, 1, 1)
  assert net.head.linear.weight.shape == (classes, head)


def test_residual_networks_are_as_published():
  net = torch_nets.build(spaces.get('pooling'))
  channels = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
  assert metadata(net.stem) == (3, 16, 3, 1, 1)
  assert len(net.block) == 9
  for e, block in enumerate(net.block.values()):
    inputs, outputs = channels[e : e + 2]
    assert metadata(block.conv1) == (inputs, outputs, 3, 1, 1)
    assert metadata(block.conv2) == (outputs, outputs, 3, 1, 1)
    assert not block.preactivate
    if e in (3, 6):
      assert metadata(block.shortcut.project) == (inputs, outputs, 1, 1, 1)
    else:
      assert isinstance(block.shortcut, torch.nn.Identity)
  net = torch_nets.build(spaces.get('nas_bench_201'))
  assert metadata(net.stem) == (3, 16, 3, 1, 1)
  assert [len(cells) for cells in net.cells] == [5, 5, 5]
  for cells, channels in zip(net.cells, (16, 32, 64), strict=True):
    for cell in cells:
      assert len(cell.position) == 6
      for choice in cell.position:
        zero, skip, one, three, average = choice.op
        assert not zero(torch.ones(1, 1, 1, 1)).any()
        assert isinstance(skip, torch.nn.Identity)
        assert metadata(one.conv) == (channels, channels, 1, 1, 1)
        assert metadata(three.conv) == (channels, channels, 3, 1, 1)
        assert (average.kernel_size, average.stride) == (3, 1)
        assert average.padding == 1 and not average.count_include_pad
  for stage, outputs in (('1', 32), ('2', 64)):
    block, inputs = net.reduce[stage], outputs // 2
    assert metadata(block.conv1) == (inputs, outputs, 3, 2, 1)
    assert metadata(block.conv2) == (outputs, outputs, 3, 1, 1)
    assert metadata(block.shortcut.project) == (inputs, outputs, 1, 1, 1)
    assert block.shortcut.pool.kernel_size == 2 and block.preactivate


MOBILENET = spaces.get('mobilenet').on_images((64, 64, 3), 10)
# Every op at both kinds of position, in a program that compiles quickly.
SMALL_MOBILENET = chain(
  'small_mobilenet',
  image_shape=(16, 16, 3),
  classes=10,
  stem=6,
  stem_stride=2,
  first=(Block(1, 3), 4),
  stages=(Stage(2, 8, 2), Stage(2, 12, 1)),
  blocks=BLOCKS,
  head=20,
  activation='hard_swish',
)
# Spaces, and how many of their architectures.
TWINS = [
  (spaces.get('pooling'), 20),
  (spaces.get('nas_bench_macro'), 20),
  (spaces.get('nas_bench_201'), 20),
  (SMALL_MOBILENET, 20),
  (MOBILENET, 3),
]
CONTIGUOUS = torch.contiguous_format
# Precision, and tolerances of logits and of gradients.
PRECISIONS = [('float64', 1e-8, 1e-7), ('float32', 1e-4, np.inf)]
EQUAL = [
  (space, count, *precision, alone)
  for space, count in TWINS
  for precision in PRECISIONS
  for alone in (False, True)
  # It takes minutes to compile; alone, the static network stands for it.
  if space != MOBILENET or (precision[0] == 'float64' and not alone)
]


def random_variables(net, arch, precision):
  """Nothing is 0 or 1, as scales, biases and statistics are at first."""
  rng = np.random.default_rng(3)

  def shaken(path, leaf):
    if path[-1].key in ('scale', 'var'):
      leaf = leaf * rng.uniform(0.5, 1.5, leaf.shape)
    elif path[-1].key in ('bias', 'mean'):
      leaf = leaf + rng.normal(0, 0.3, leaf.shape)
    return jnp.asarray(leaf, precision)

  return jax.tree_util.tree_map_with_path(shaken, supernets.init(net, arch, 0))


def twin_of(space, precision, *, alone):
  net = torch_nets.build(space, affine=alone, running=alone)
  # Contiguous: channels-last sums in another order, which float32 shows.
  return net.to(getattr(torch, precision), memory_format=CONTIGUOUS)


def same(ours, theirs, tolerance, what, smallest=1e-12):
  theirs = theirs.detach().numpy()
  scale = max(abs(theirs).max(), smallest)
  error = abs(np.asarray(ours) - theirs).max() / scale
  assert error < tolerance, f'{what}: {error:.2g}'


def same_gradients(gradient, twin, tolerance, arch):
  # Where normalisation takes a bias out again, rounding is all there is.
  smallest = 1e-4 * max(abs(leaf).max() for leaf in jax.tree.leaves(gradient))
  ours = torch_weights.converted(twin, gradient)
  for name, parameter in twin.named_parameters():
    if parameter.grad is not None:
      leaf = ours.pop(name)
      same(leaf, parameter.grad, tolerance, f'{name} of {arch}', smallest)
  for name, leaf in ours.items():
    assert not leaf.any(), name


@pytest.mark.slow
@pytest.mark.parametrize(
  ('space', 'count', 'precision', 'logits', 'gradients', 'alone'),
  EQUAL,
  ids=[f'{c[0].name}-{c[2]}-{"alone" if c[-1] else "supernet"}' for c in EQUAL],
)
def test_equals_pytorch(space, count, precision, logits, gradients, alone):
  """Logits, gradients, running statistics, and what those then give."""
  with jax.enable_x64(precision == 'float64'):
    net = supernets.build(
      space,
      dtype=jnp.dtype(precision),
      affine=alone,
      momentum=0.1 if alone else None,
    )
    archs_AxE = space.random(np.random.default_rng(1), count)
    variables = random_variables(net, archs_AxE[0], precision)
    params = variables.pop('params')
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, *space.image_shape)), precision)
    toward = rng.normal(size=(4, space.classes)).astype(precision)

    @jax.jit
    def ours(params, arch_E):
      def loss(params):
        out, updated = net.apply(
          {'params': params, **variables},
          x,
          arch_E,
          train=True,
          mutable=['batch_stats'],
        )
        return (out * toward).sum(), (out, updated)

      gradient, aux = jax.grad(loss, has_aux=True)(params)
      return *aux, gradient

    @jax.jit
    def evaluate(statistics, arch_E):
      return net.apply({'params': params, **statistics}, x, arch_E, train=False)

    twin = twin_of(space, precision, alone=alone)
    for arch_E in archs_AxE:
      arch = tuple(arch_E.tolist())
      out, statistics, gradient = ours(params, arch_E)
      twin.train().zero_grad()
      torch_weights.load(twin, params, variables.get('batch_stats'))
      images = torch_nets.images(np.array(x), 'cpu').contiguous()
      theirs = twin(images, arch)
      same(out, theirs, logits, f'logits of {arch}')
      (theirs * torch.tensor(toward)).sum().backward()
      same_gradients(gradient, twin, gradients, arch)
      buffers = dict(twin.named_buffers())
      for name, leaf in torch_weights.converted(
        twin, statistics.get('batch_stats', {})
      ).items():
        same(leaf, buffers[name], logits, f'{name} of {arch}')
      if alone:
        twin.eval()
        same(
          evaluate(statistics, arch_E),
          twin(images, arch),
          logits,
          f'evaluation of {arch}',
        )


STATIC = [(SMALL_POOLING, 0)] + [
  (space, i) for space, count in TWINS for i in range(min(count, 4))
]


@pytest.mark.parametrize(
  ('space', 'i'),
  [
    pytest.param(*case, marks=[pytest.mark.slow] if i else [])
    for i, case in enumerate(STATIC)
  ],
  ids=[f'{case[0].name}-{case[1]}' for case in STATIC],
)
def test_a_static_network_equals_pytorch(space, i):
  """The network of one architecture, which has no other parameters."""
  with jax.enable_x64(True):
    net = supernets.StandAlone(
      supernets.build(space, dtype=jnp.float64, affine=True, momentum=0.1),
      tuple(space.random(np.random.default_rng(2), 20)[i].tolist()),
    )
    variables = random_variables(net, net.arch, 'float64')
    params = variables.pop('params')
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == int(
      space.costs(np.array([net.arch], np.int32)).params_A[0]
    )
    x = np.random.default_rng(0).normal(size=(4, *space.image_shape))

    @jax.jit
    def ours(params):
      out, _ = net.apply(
        {'params': params, **variables},
        jnp.asarray(x),
        None,
        train=True,
        mutable=['batch_stats'],
      )
      return (out**2).sum(), out

    gradient, out = jax.grad(ours, has_aux=True)(params)
    twin = twin_of(space, 'float64', alone=True)
    # Other ops keep the twin's weights.
    twin.load_state_dict(
      {
        **twin.state_dict(),
        **torch_weights.converted(twin, params),
        **torch_weights.converted(twin, variables['batch_stats']),
      }
    )
    theirs = twin(torch_nets.images(x, 'cpu'), net.arch)
    same(out, theirs, 1e-8, f'logits of {net.arch}')
    (theirs**2).sum().backward()
    same_gradients(gradient, twin, 1e-7, net.arch)


def test_a_bias_before_normalisation_would_change_nothing():
  """Published supernets of NAS-Bench-201 have it; ours leave it out."""
  net = torch_nets.build(SMALL_CELLS).double()
  x = torch.randn(4, 3, *SMALL_CELLS.image_shape[:2], dtype=torch.float64)
  arch = (2, 3, 3, 2, 2, 3)
  without = net(x, arch).detach()
  named = net.cells.named_modules()
  convolutions = [conv for name, conv in named if name.endswith('.conv')]
  assert len(convolutions) == 3 * SMALL_CELLS.cells * 6 * 2
  for conv in convolutions:
    bias = torch.linspace(-1, 1, conv.out_channels, dtype=x.dtype)
    conv.bias = torch.nn.Parameter(bias)
  same(net(x, arch).detach(), without, 1e-8, 'logits')
