"""Networks against PyTorch ones, written from the papers' descriptions.

Both get the same weights. Errors are relative to a tensor's largest value.
float64 decides: in float32 rounding turns a ReLU around here and there, which
moves a gradient by more than 1e-3.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxnas import spaces, supernets
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.spaces.mobilenet import BLOCKS

torch = pytest.importorskip('torch')
F = torch.nn.functional


class Weights:
  """Variables as tensors by path, and the layers that use them.

  `cell` picks one of the cells that a stage's parameters are stacked over.
  """

  def __init__(self, variables, dtype):
    flat = flatten_dict(variables['params'], sep='/')
    self.params = {
      name: torch.tensor(np.asarray(leaf), dtype=dtype, requires_grad=True)
      for name, leaf in flat.items()
    }
    flat = flatten_dict(variables.get('batch_stats', {}), sep='/')
    self.statistics = {
      name: torch.tensor(np.asarray(leaf), dtype=dtype)
      for name, leaf in flat.items()
    }
    self.training = True
    self.bias = False

  def __call__(self, path, cell=None):
    value = self.params[path]
    return value if cell is None else value[cell]

  def conv(self, x, path, stride=1, cell=None, bias=None):
    """The kernel KxK as HWIO, 1x1 as IO."""
    kernel = self(f'{path}/kernel', cell)
    if kernel.ndim == 2:
      kernel = kernel[None, None]
    weight = kernel.permute(3, 2, 0, 1)
    padding = weight.shape[-1] // 2
    return F.conv2d(x, weight, bias, stride=stride, padding=padding)

  def depthwise(self, x, path, stride):
    kernel = self(f'{path}/kernel')
    weight = kernel.permute(2, 0, 1)[:, None]
    padding = weight.shape[-1] // 2
    return F.conv2d(
      x, weight, stride=stride, padding=padding, groups=len(weight)
    )

  def norm(self, x, path, cell=None):
    if f'{path}/scale' not in self.params:
      return F.batch_norm(x, None, None, training=True)
    mean, var = (self.statistics[f'{path}/{name}'] for name in ('mean', 'var'))
    if cell is not None:
      mean, var = mean[cell], var[cell]
    return F.batch_norm(
      x,
      mean,
      var,
      self(f'{path}/scale', cell),
      self(f'{path}/bias', cell),
      training=self.training,
      momentum=0.1,
    )

  def linear(self, x, path):
    return x @ self(f'{path}/kernel') + self(f'{path}/bias')


def macro(w, x, arch):
  x = torch.relu(w.norm(w.conv(x, 'stem/conv'), 'stem/norm'))
  channels = (64, 64, 128, 128, 128, 256, 256, 256)
  for e, op in enumerate(arch):
    at, stride = f'position_{e}/op_{op}', 2 if e in (0, 2, 5) else 1
    if op == 0:
      if stride == 2:
        x = w.conv(x, f'{at}/project', 2)
        x = w.norm(x, f'{at}/project_norm')
      continue
    y = torch.relu(w.norm(w.conv(x, f'{at}/expand'), f'{at}/expand_norm'))
    assert y.shape[1] == x.shape[1] * (3, 6)[op - 1]
    y = w.depthwise(y, f'{at}/depthwise', stride)
    y = torch.relu(w.norm(y, f'{at}/depthwise_norm'))
    y = w.norm(w.conv(y, f'{at}/project'), f'{at}/project_norm')
    assert y.shape[1] == channels[e]
    x = y if stride == 2 else x + y
  x = torch.relu(w.norm(w.conv(x, 'head/conv'), 'head/norm'))
  return w.linear(x.mean((2, 3)), 'head/linear')


# (expansion, kernel, squeeze) of ops 1 to 12.
MOBILE_OPS = [
  (expansion, kernel, squeeze)
  for squeeze in (False, True)
  for expansion in (3, 6)
  for kernel in (3, 5, 7)
]
# (channels, positions, stride of the first).
MOBILE_STAGES = [
  (32, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1),
]  # fmt: skip


def mobilenet(w, x, arch, stages=tuple(MOBILE_STAGES)):
  x = torch.relu(w.norm(w.conv(x, 'stem/conv', 2), 'stem/norm'))
  y = F.hardswish(
    w.norm(w.depthwise(x, 'first/depthwise', 1), 'first/depthwise_norm')
  )
  x = w.norm(w.conv(y, 'first/project'), 'first/project_norm')
  ops = iter(enumerate(arch))
  for channels, positions, first_stride in stages:
    for i in range(positions):
      e, op = next(ops)
      at, stride = f'position_{e}/op_{op}', first_stride if i == 0 else 1
      if op == 0:
        if i == 0:
          x = w.conv(x, f'{at}/project', stride)
          x = w.norm(x, f'{at}/project_norm')
        continue
      expansion, kernel, squeeze = MOBILE_OPS[op - 1]
      y = w.norm(w.conv(x, f'{at}/expand'), f'{at}/expand_norm')
      assert y.shape[1] == x.shape[1] * expansion
      assert w(f'{at}/depthwise/kernel').shape[0] == kernel
      y = w.depthwise(F.hardswish(y), f'{at}/depthwise', stride)
      y = F.hardswish(w.norm(y, f'{at}/depthwise_norm'))
      if squeeze:
        gate = torch.relu(w.linear(y.mean((2, 3)), f'{at}/squeeze/reduce'))
        assert gate.shape[1] == int(0.25 * y.shape[1])
        gate = F.hardsigmoid(w.linear(gate, f'{at}/squeeze/expand'))
        y = y * gate[:, :, None, None]
      y = w.norm(w.conv(y, f'{at}/project'), f'{at}/project_norm')
      assert y.shape[1] == channels
      x = y if i == 0 else x + y
  x = torch.relu(w.norm(w.conv(x, 'head/conv'), 'head/norm'))
  return w.linear(x.mean((2, 3)), 'head/linear')


def pooling(w, x, arch):
  x = torch.relu(w.norm(w.conv(x, 'stem'), 'stem_norm'))
  for e in range(9):
    if arch[e]:
      x = F.max_pool2d(x, 2)
    at = f'block_{e + 1}'
    y = torch.relu(w.norm(w.conv(x, f'{at}/conv1'), f'{at}/norm1'))
    y = w.norm(w.conv(y, f'{at}/conv2'), f'{at}/norm2')
    if e in (3, 6):
      x = w.conv(x, f'{at}/shortcut/project')
      x = w.norm(x, f'{at}/shortcut/project_norm')
    x = torch.relu(x + y)
  return w.linear(x.mean((2, 3)), 'linear')


def cell(w, x, arch, at, index):
  def edge(e, x):
    op, here = arch[e], f'{at}/position_{e}/op_{arch[e]}'
    if op == 0:
      return x * 0
    if op == 1:
      return x
    if op == 4:
      return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    bias = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype) if w.bias else None
    y = w.conv(torch.relu(x), f'{here}/conv', 1, index, bias)
    return w.norm(y, f'{here}/norm', index)

  one = edge(0, x)
  two = edge(1, x) + edge(2, one)
  return edge(3, x) + edge(4, one) + edge(5, two)


def nas_bench_201(w, x, arch):
  x = w.norm(w.conv(x, 'stem'), 'stem_norm')
  for stage in range(3):
    if stage:
      at = f'reduce_{stage}'
      y = w.norm(w.conv(torch.relu(x), f'{at}/conv1', 2), f'{at}/norm1')
      y = w.norm(w.conv(torch.relu(y), f'{at}/conv2'), f'{at}/norm2')
      x = w.conv(F.avg_pool2d(x, 2, 2), f'{at}/shortcut/project') + y
    for index in range(5):
      x = cell(w, x, arch, f'cells_{stage}', index)
  x = torch.relu(w.norm(x, 'last_norm'))
  return w.linear(x.mean((2, 3)), 'linear')


MOBILENET = spaces.get('mobilenet').on_images((64, 64, 3), 10)
# Every op at both kinds of position, in a program that compiles quickly.
SMALL_STAGES = ((8, 2, 2), (12, 2, 1))
SMALL_MOBILENET = chain(
  'small_mobilenet',
  image_shape=(16, 16, 3),
  classes=10,
  stem=6,
  stem_stride=2,
  first=(Block(1, 3), 4),
  stages=tuple(Stage(n, c, s) for c, n, s in SMALL_STAGES),
  blocks=BLOCKS,
  head=20,
  activation='hard_swish',
)
TWINS = [
  (spaces.get('pooling'), pooling, 20),
  (spaces.get('nas_bench_macro'), macro, 20),
  (spaces.get('nas_bench_201'), nas_bench_201, 20),
  (
    SMALL_MOBILENET,
    functools.partial(mobilenet, stages=SMALL_STAGES),
    20,
  ),
  (MOBILENET, mobilenet, 3),
]
# Precision, and tolerances of logits and of gradients.
PRECISIONS = [('float64', 1e-8, 1e-7), ('float32', 1e-4, np.inf)]
EQUAL = [
  (space, twin, count, *precision, alone)
  for space, twin, count in TWINS
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


def same(ours, theirs, tolerance, what, smallest=1e-12):
  theirs = theirs.detach().numpy()
  scale = max(abs(theirs).max(), smallest)
  error = abs(np.asarray(ours) - theirs).max() / scale
  assert error < tolerance, f'{what}: {error:.2g}'


def same_gradients(gradient, w, tolerance, arch):
  # Where normalisation takes a bias out again, rounding is all there is.
  smallest = 1e-4 * max(abs(leaf).max() for leaf in jax.tree.leaves(gradient))
  for name, leaf in flatten_dict(gradient, sep='/').items():
    expected = w.params[name].grad
    if expected is None:
      assert not np.asarray(leaf).any(), name
    else:
      same(leaf, expected, tolerance, f'{name} of {arch}', smallest)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('space', 'twin', 'count', 'precision', 'logits', 'gradients', 'alone'),
  EQUAL,
  ids=[f'{c[0].name}-{c[3]}-{"alone" if c[-1] else "supernet"}' for c in EQUAL],
)
def test_equals_pytorch(
  space, twin, count, precision, logits, gradients, alone
):
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

    for arch_E in archs_AxE:
      arch = tuple(arch_E.tolist())
      out, statistics, gradient = ours(params, arch_E)
      w = Weights({'params': params, **variables}, getattr(torch, precision))
      images = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
      theirs = twin(w, images, arch)
      same(out, theirs, logits, f'logits of {arch}')
      (theirs * torch.tensor(toward)).sum().backward()
      same_gradients(gradient, w, gradients, arch)
      for name, leaf in flatten_dict(
        statistics.get('batch_stats', {}), sep='/'
      ).items():
        same(leaf, w.statistics[name], logits, f'{name} of {arch}')
      if alone:
        w.training = False
        same(
          evaluate(statistics, arch_E),
          twin(w, images, arch),
          logits,
          f'evaluation of {arch}',
        )


STATIC = [
  (space, twin, i) for space, twin, count in TWINS for i in range(min(count, 4))
]


@pytest.mark.parametrize(
  ('space', 'twin', 'i'),
  [
    pytest.param(
      *case, marks=[pytest.mark.slow] if case[2] or case[0] == MOBILENET else []
    )
    for case in STATIC
  ],
  ids=[f'{case[0].name}-{case[2]}' for case in STATIC],
)
def test_a_static_network_equals_pytorch(space, twin, i):
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
    w = Weights({'params': params, **variables}, torch.float64)
    theirs = twin(w, torch.tensor(x).permute(0, 3, 1, 2), net.arch)
    same(out, theirs, 1e-8, f'logits of {net.arch}')
    (theirs**2).sum().backward()
    same_gradients(gradient, w, 1e-7, net.arch)


def test_a_bias_before_normalisation_would_change_nothing():
  """Published supernets of NAS-Bench-201 have it; ours leave it out."""
  space, arch_E = spaces.get('nas_bench_201'), np.array([2, 3, 3, 2, 2, 3])
  with jax.enable_x64(True):
    net = supernets.build(space, dtype=jnp.float64)
    variables = random_variables(net, arch_E, 'float64')
    w = Weights(variables, torch.float64)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    without = nas_bench_201(w, x, tuple(arch_E))
    w.bias = True
    same(nas_bench_201(w, x, tuple(arch_E)).detach(), without, 1e-8, 'logits')
