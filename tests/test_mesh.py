"""Training on a mesh is training on one device, to rounding.

All devices are this machine's, in one child process.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.config import Config, Data, Mesh, Sampler, Supernet
from jaxnas.config.validation import validate
from jaxnas.experiment import build, sampling
from jaxnas.training import mesh
from support import mesh_runs
from support.many_devices import found_by
from support.mesh_runs import CASES


def found_by_eight(file, *cases):
  quickly = (
    # Programs run for a blink: what counts is how long they take to compile.
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
  )
  return found_by(8, 'support.mesh_runs', file, *cases, flags=quickly)


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mesh')
  return found_by_eight(folder / 'found.npz', 'draws', 'groups')


@pytest.fixture(scope='module')
def more(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mesh')
  cases = [case for case in CASES if case != 'groups']
  return found_by_eight(folder / 'found.npz', *cases)


def of(found, case, data, paths):
  prefix = f'{mesh_runs.name_of(case, data, paths)} '
  return {
    key.removeprefix(prefix): value
    for key, value in found.items()
    if key.startswith(prefix)
  }


def check(found, case):
  _, (first, *others) = CASES[case]
  one = of(found, case, *first)
  assert not one.pop('collectives').size
  assert one.pop('whole').size
  assert np.isfinite(one['metrics']).all()
  for shape in others:
    many = of(found, case, *shape)
    collectives = many.pop('collectives').tolist()
    # Where devices share a batch, none has all of its images.
    assert bool(many.pop('whole').size) == (shape[0] == 1), shape
    assert one.keys() == many.keys()
    if case != 'synchronised':
      # That of gradients, and none of normalisation or of images; a teacher has
      # one of its own.
      count = 2 if case == 'distilled' else 1
      assert collectives == [f'all-reduce {count}'], shape
    for key, value in one.items():
      if np.issubdtype(value.dtype, np.integer):
        np.testing.assert_array_equal(many[key], value, err_msg=key)
      elif case in spaces.SPACES:
        # Rounding grows with depth; a wrong gradient is off by more.
        off = np.linalg.norm(many[key] - value)
        assert off <= 0.01 * np.linalg.norm(value), (shape, key)
      else:
        np.testing.assert_allclose(
          many[key], value, rtol=1e-4, atol=1e-5, err_msg=f'{shape} {key}'
        )


@pytest.mark.slow
def test_the_same_run_on_any_mesh(found):
  """Also that one all-reduce a step is all that devices exchange."""
  check(found, 'groups')


@pytest.mark.long
@pytest.mark.parametrize('case', [case for case in CASES if case != 'groups'])
def test_the_same_run_with_feedback_and_shared_statistics(more, case):
  check(more, case)


@pytest.mark.parametrize('on', spaces.SPACES)
@pytest.mark.slow
def test_any_number_of_devices_draws_the_same_architectures(found, on):
  archs_TxPxE = found[f'{on} 1']
  assert len({archs_PxE.tobytes() for archs_PxE in archs_TxPxE}) > 1
  for devices in (2, 4, 8):
    np.testing.assert_array_equal(found[f'{on} {devices}'], archs_TxPxE)


def test_one_device_needs_no_mesh():
  assert mesh.layout(1, 1, 4) is None
  with pytest.raises(ValueError, match=r'is 4 devices; there are 1\.'):
    mesh.layout(2, 2, 2)


@pytest.mark.parametrize(
  ('mesh', 'groups', 'says'),
  [
    (Mesh(data=3), 1, 'into mesh.data 3 equal parts; 63 or 66 does'),
    (Mesh(), 5, 'does not divide into supernet.bn_groups 5 equal parts'),
    (Mesh(), 64, 'have 1 image each; statistics need 2'),
    (Mesh(data=2, paths=2), 1, 'give supernet.bn_groups 2 and sampler.paths 2'),
    (Mesh(data=4), 6, 'one must be a multiple of the other'),
  ],
)
def test_what_does_not_divide_is_refused(mesh, groups, says):
  data = Data(batch_size=12 if groups == 6 else 64)
  with pytest.raises(ValueError, match=says):
    validate(Config(mesh=mesh, supernet=Supernet(bn_groups=groups), data=data))


def test_paths_that_a_mesh_cannot_share_are_refused():
  given = Config(mesh=Mesh(paths=2), sampler=Sampler(name='fair'))
  with pytest.raises(ValueError, match='does not divide the 3 architectures'):
    sampling.check_paths(given, 3)
  with pytest.raises(ValueError, match='architectures alone are trained'):
    build.stand_alone(dataclasses.replace(given), None)


def test_processes_share_a_batch_by_its_rows():
  devices = np.array(jax.devices()).reshape(1, 1, 1)
  layout = mesh.DeviceLayout(
    jax.sharding.Mesh(devices, ('paths', *mesh.IMAGES)), mesh.Groups()
  )
  assert layout.share(6) == range(6)
  rows = {'x': np.arange(12).reshape(6, 2)}
  np.testing.assert_array_equal(layout.batch(rows, 6)['x'], rows['x'])
