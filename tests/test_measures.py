"""Features of real supernets, read through their parts and whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import density, spaces, supernets
from jaxnas.density import features
from support import small_net
from support.small_run import SPACE

READOUTS = {
  'gradients': features.Gradients(('head/conv/kernel', 'head/linear/kernel')),
  'activations': features.Activations(('head', 'head/linear')),
}


def matrix_of(snapshot, measure):
  """Every distance between the subject's architectures."""
  features = density.gather(snapshot, measure)
  return density.matrix(measure.distance, features)


def gathered(snapshot, readout):
  """Every architecture's features, each counted once."""
  out, seen = {}, []
  for block in features.read(*snapshot, readout):
    seen += block.indices_C[block.real_C].tolist()
    for name, values in block.values.items():
      out.setdefault(name, np.empty((SPACE.size, *values.shape[1:])))
      out[name][block.indices_C] = values
  assert sorted(seen) == [*range(SPACE.size)]
  return out


@pytest.fixture(scope='module')
def twice():
  """name -> features through the head alone, and through the whole net."""

  @functools.cache
  def of(name):
    nets = None, small_net.Whole(SPACE)
    return [gathered(small_net.snapshot(net), READOUTS[name]) for net in nets]

  return of


@pytest.mark.parametrize('name', READOUTS)
def test_the_head_alone_reads_what_the_whole_net_reads(twice, name):
  head, whole = twice(name)
  assert {*head} == {*whole}
  for key in head:
    np.testing.assert_allclose(head[key], whole[key], atol=2e-5)
    # Architectures differ by more than that.
    assert np.ptp(head[key], axis=0).max() > 1e-2


def test_representations_of_all_are_as_alike_by_both_ways(twice):
  """CKA of all pairs, and the density that needs none."""
  snapshot = small_net.snapshot()
  measure = density.representational(snapshot.net, layers='head,head/linear')
  by_head, by_whole = (
    np.mean([1 - f_AxD @ f_AxD.T for f_AxD in read.values()], axis=0)
    for read in twice('activations')
  )
  np.testing.assert_allclose(by_head, by_whole, atol=1e-5)
  np.testing.assert_allclose(matrix_of(snapshot, measure), by_whole, atol=1e-5)
  np.testing.assert_allclose(
    density.estimate(snapshot, measure).alpha_A,
    (SPACE.size - 1) / by_whole.sum(axis=1),
    rtol=1e-4,
  )


# One cell a stage and four blocks, to trace in less time.
SPACES = (
  spaces.get('digits'),
  dataclasses.replace(
    spaces.get('nas_bench_201'), image_shape=(8, 8, 3), channels=4, cells=1
  ),
  dataclasses.replace(
    spaces.get('pooling'),
    ops=spaces.get('pooling').ops[:4],
    image_shape=(16, 16, 3),
    channels=(4, 4, 8, 8),
    stem=4,
  ),
)


@pytest.mark.parametrize('space', SPACES, ids=lambda space: space.name)
def test_every_space_is_read_as_much_as_is_said(space):
  net, arch_E = supernets.build(space), space.enumerate()[-1]
  params = supernets.shapes(net, arch_E)['params']
  batches, batch = 2, 5
  x = (jnp.zeros((batch, *space.image_shape)),) * batches
  y = (jnp.zeros(batch, jnp.int32),) * batches
  forward = functools.partial(net.apply, arch=arch_E, train=True)
  # Gradients are as large as their tensors, and take long to trace.
  for readout, keys in (
    (features.Activations(net.layers), net.layers),
    (features.Activations(net.layers, unbiased=True), net.layers),
    (features.Outputs(), ['outputs']),
  )[: 3 if space is SPACES[0] else 1]:
    shapes = jax.eval_shape(
      lambda params, readout=readout: readout(forward, params, x, y), params
    )
    assert {*shapes} == {*keys}
    assert sum(f.size for f in shapes.values()) == readout.floats(
      params, batches, batch, space.classes
    )
