"""A network alone is what the supernet has of it, in any formulation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import spaces, supernets
from jaxnas.data.pipeline import Normalise
from jaxnas.experiment import artifact
from jaxnas.spaces.chain import Block, Stage, chain
from jaxnas.supernets import recalibration
from jaxnas.supernets.mixture import Mixture

DIGITS, ARCH = spaces.get('digits'), (1, 0, 2, 0)
POOLING = spaces.get('pooling')
# Each on small images, to compile in less time.
MOBILENET = chain(
  'small_mobilenet',
  image_shape=(8, 8, 3),
  classes=10,
  stem=6,
  stem_stride=2,
  first=(Block(1, 3), 4),
  stages=(Stage(2, 8),),
  blocks=(Block(3, 3), Block(6, 5, True)),
  head=20,
  activation='hard_swish',
)
CELLS = dataclasses.replace(
  spaces.get('nas_bench_201'),
  name='small_cells',
  image_shape=(8, 8, 3),
  channels=4,
  cells=2,
)
SMALL_POOLING = dataclasses.replace(
  POOLING,
  name='small_pooling',
  ops=POOLING.ops[:4],
  image_shape=(16, 16, 3),
  channels=(4, 4, 8, 8),
  stem=4,
)
# Programs run for a blink: what counts is how long they take to compile.
quickly = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)
CASES = [
  (DIGITS, ARCH),
  (MOBILENET, (2, 1)),
  (SMALL_POOLING, (0, 1, 0, 1)),
  (CELLS, (3, 0, 1, 4, 2, 3)),
]


def weights(net, arch):
  """Any at all: fresh scales and biases would hide that they are lost."""
  variables = supernets.init(net, np.zeros(len(arch), np.int32), 0)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: (
      leaf + jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32)
    ),
    variables['params'],
  )


def pixels(space, count):
  shape = (count, *space.image_shape)
  rng = np.random.default_rng(count)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)


def normaliser(space, dtype=jnp.float32):
  channels = space.image_shape[2]
  return Normalise(
    np.linspace(0.2, 0.6, channels), np.linspace(0.5, 0.2, channels), dtype
  )


def inherited(net, arch, member=()):
  """(network alone, its variables, uint8 images -> what it must say)."""
  space, dtype = net.space, net.dtype
  normalise, arch_F = normaliser(space, dtype), jnp.array([*arch, *member])
  params = weights(net, arch_F)
  images_NxBxHxWxC = jnp.stack([normalise(pixels(space, 8))] * 2)
  frozen = quickly(
    lambda params, arch_F: recalibration.statistics(
      net, params, arch_F, images_NxBxHxWxC
    )
  )(params, arch_F)
  alone = artifact.network(space, arch, dtype, None)
  of_net, of_member, _ = supernets.of_arch(net, params, arch_F)
  expected = quickly(
    lambda arch_F, x: recalibration.logits(net, params, frozen, x, arch_F)
  )
  return (
    alone,
    artifact.inherit(alone, of_net, of_member, frozen),
    lambda images: np.asarray(expected(arch_F, normalise(images))),
  )


def close(found, expected, share=1e-5):
  np.testing.assert_allclose(
    found, expected, rtol=0, atol=share * abs(expected).max()
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('space', 'arch'), CASES, ids=lambda value: getattr(value, 'name', '')
)
def test_the_program_says_what_the_supernet_says(
  space, arch, tmp_path, monkeypatch
):
  net = supernets.build(space, affine=space is not DIGITS)
  alone, variables, expected = inherited(net, arch)
  monkeypatch.setattr(spaces, 'get', {space.name: space}.get)
  normalise = normaliser(space)
  metadata = {
    'space': space.name,
    'arch': space.format(np.array(arch, np.int32)),
    'image_shape': list(space.image_shape),
    'classes': space.classes,
    'dtype': 'float32',
    'activation': None,
  }
  folder = tmp_path / 'network'
  artifact.write(folder, alone, variables, normalise, metadata)
  exported = artifact.load_program(folder)
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  images = pixels(space, 16)
  said = expected(images)
  for count in (1, 3, 16):
    logits_BxK = exported.call(images[:count])
    assert logits_BxK.dtype == jnp.float32
    assert logits_BxK.shape == (count, space.classes)
    close(logits_BxK, said[:count])
  rebuilt, read = artifact.load(folder)
  assert rebuilt == alone
  jax.tree.map(np.testing.assert_array_equal, read, variables)
  close(
    jax.jit(lambda x: artifact.logits(rebuilt, read, x))(normalise(images)),
    expected(images),
  )
  # As many as the space says: its own ops' alone.
  own = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert own == space.costs(np.array([arch], np.int32)).params_A[0]


@pytest.mark.slow
def test_a_member_is_handed_over_alone():
  mixed = Mixture(supernets.build(DIGITS), 2)
  images, said = pixels(DIGITS, 5), []
  for member in (0, 1):
    alone, variables, expected = inherited(mixed, ARCH, (member,))
    logits = artifact.program(alone, variables, normaliser(DIGITS)).call(images)
    close(logits, expected(images))
    said.append(np.asarray(logits))
  assert abs(said[0] - said[1]).max() > 1e-2


def test_each_backend_has_its_own_formulation_of_the_same_network():
  alone = artifact.network(DIGITS, ARCH, jnp.float32, None)
  variables = supernets.init(alone, ARCH, 0)
  exported = artifact.program(alone, variables, normaliser(DIGITS))
  # Depthwise convolutions as such, which a CPU is slow at.
  channels = DIGITS.stem * DIGITS.candidates[0][1].expansion
  assert f'feature_group_count = {channels} ' in exported.mlir_module()
  images = pixels(DIGITS, 4)
  compiled = jax.jit(exported.call).lower(images).compile().as_text()
  assert 'feature_group_count' not in compiled
  assert 'conditional' not in compiled
  x = normaliser(DIGITS)(images)
  cpu, tpu = (
    np.asarray(
      jax.jit(functools.partial(net.apply, arch=ARCH, train=False))(
        variables, x
      )
    )
    for net in (
      supernets.formulated(alone.net, backend) for backend in ('cpu', 'tpu')
    )
  )
  close(tpu, cpu)


@pytest.mark.slow
def test_bfloat16_is_compared_with_bfloat16():
  net, images = supernets.build(DIGITS, dtype=jnp.bfloat16), pixels(DIGITS, 8)
  alone, variables, expected = inherited(net, ARCH)
  normalise = normaliser(DIGITS, net.dtype)
  logits = artifact.program(alone, variables, normalise).call(images)
  assert logits.dtype == jnp.float32
  close(logits, expected(images), 0.03)
